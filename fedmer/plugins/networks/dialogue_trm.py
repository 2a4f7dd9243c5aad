"""DialogueTRM, a hierarchical Transformer with fusion in two grains."""

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import (
    Place,
    Projections,
    check,
    main_modality,
    there,
)


class DialogueTRM(Network):
    r"""DialogueTRM-style: context for text alone, fusion by neurons and by vectors.

    A reconstruction from the text of Y. Mao et al., "DialogueTRM: Exploring Multi-Modal Emotional
    Dynamics in a Conversation", Findings of EMNLP 2021 (arXiv 2010.07637); sizes and details are
    ours. Text reads the whole dialogue, the other modalities read each utterance alone. The main
    modality :math:`t` is ``text``, or the first if there is no text. With position encoding
    :math:`p` and speaker embedding :math:`s`, for the other modalities :math:`m` and for every
    ordered pair :math:`(m, n)` of all of them:

    .. math::

        h_t &= \mathrm{Transformer}(\mathrm{drop}(W_t f_t + p + s)), \qquad
        h_m = B_m\,\mathrm{drop}(\mathrm{relu}(W_m f_m)) \\
        g_{mn} &= \sigma(G_{mn} [h_m; h_n]), \qquad
        f_{mn} = g_{mn} \odot \tanh(P_{mn} h_m) + (1 - g_{mn}) \odot \tanh(Q_{mn} h_n) \\
        u &= \mathrm{mean}\ \mathrm{Transformer}'(\{f_{mn}\}), \qquad
        h = \mathrm{relu}(W u), \qquad z = V h + c

    The gates work neuron by neuron. The second Transformer works on whole vectors: it lets the
    pairs of one utterance attend to each other. The paper's utterance encoder, BERT, is a linear
    layer here, because the features are extracted before.

    Where an utterance lacks one modality of a pair, the gate belongs to the other. A pair that
    lacks both is left out. The main modality counts as there in all utterances of a dialogue that
    has it anywhere, because its Transformer speaks of utterances that lack it too. A single
    modality is paired with itself.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of the Transformer over the dialogue. The one over pairs has one.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = DialogueTRM(corpus.shape, hidden=8, heads=2)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 2,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        self.main = main_modality(shape)
        self.causal = causal
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.dialogue = Transformer(layers, hidden, heads, dropout, causal)
        self.turn = nn.ModuleDict(
            {name: nn.Linear(hidden, hidden) for name in shape.features if name != self.main}
        )
        pairs = [(m, n) for m in shape.features for n in shape.features if m != n]
        self.pairs = pairs or [(self.main, self.main)]
        self.gates = nn.ModuleList(_Gate(hidden) for _ in self.pairs)
        self.among_pairs = Transformer(1, hidden, heads, dropout)
        self.last = nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        hidden = self._encode(batch, present[self.main])
        heard = present[self.main]
        if self.causal:
            present[self.main] = heard.cummax(dim=1).values
        else:
            present[self.main] = heard.any(dim=1, keepdim=True).expand_as(batch.context)
        pairs = torch.stack(
            [
                gate(hidden[m], hidden[n], present[m], present[n])
                for gate, (m, n) in zip(self.gates, self.pairs, strict=True)
            ],
            dim=2,
        )
        counted = torch.stack([present[m] | present[n] for m, n in self.pairs], dim=2)
        fused = self.last(self.dropout(self._pool(pairs, counted))).relu()
        return NetworkOutput(logits=self.head(fused), embeddings={**hidden, "fused": fused})

    def _encode(self, batch: Batch, keys: Tensor) -> dict[str, Tensor]:
        """h_m of every modality, ``(B, L, d)``."""
        hidden = {}
        for name, rows in self.project(batch).items():
            if name == self.main:
                placed = self.dropout(rows + self.place(batch))
                hidden[name] = self.dialogue(placed, keys)
            else:
                hidden[name] = self.turn[name](self.dropout(rows.relu()))
        return hidden

    def _pool(self, pairs: Tensor, counted: Tensor) -> Tensor:
        """u of ``(B, L, P, d)`` pairs, of which ``(B, L, P)`` are counted: ``(B, L, d)``."""
        mixed: Tensor = self.among_pairs(pairs.flatten(0, 1), counted.flatten(0, 1))
        some = counted[..., None]
        total = mixed.view_as(pairs).masked_fill(~some, 0).sum(dim=2)
        return total / some.sum(dim=2).clamp(min=1)


class _Gate(nn.Module):
    """One vector of two, each of its neurons a mixture of both sides."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * hidden, hidden)
        self.left = nn.Linear(hidden, hidden)
        self.right = nn.Linear(hidden, hidden)

    def forward(self, left: Tensor, right: Tensor, has_left: Tensor, has_right: Tensor) -> Tensor:
        """``(B, L, d)`` of two such, and of the ``(B, L)`` utterances that have them."""
        share = torch.sigmoid(self.gate(torch.cat([left, right], dim=-1)))
        share = share.masked_fill(~has_right[..., None], 1).masked_fill(~has_left[..., None], 0)
        mixed: Tensor = share * self.left(left).tanh() + (1 - share) * self.right(right).tanh()
        return mixed
