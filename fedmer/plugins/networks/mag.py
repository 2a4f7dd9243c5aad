"""MAG, the Multimodal Adaptation Gate."""

import math

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, main_modality, there


class MAG(Network):
    r"""Multimodal Adaptation Gate: the other modalities shift the main one's stream, within bounds.

    W. Rahman et al., "Integrating Multimodal Information in Large Pretrained Transformers", ACL
    2020 (arXiv 1908.05787). With the main modality t, position encoding :math:`p` and speaker
    embedding :math:`s`, over the other modalities m that an utterance has:

    .. math::

        x_m &= W_m f_m, \qquad
        Z = \mathrm{Transformer}_1(\mathrm{drop}(x_t + p + s)) \\
        g_m &= \mathrm{relu}(G_m [x_m; Z] + b_m), \qquad H = \sum_m g_m \odot x_m + b_H \\
        \bar Z &= \mathrm{drop}(\mathrm{LN}(Z + \alpha H)), \qquad
        \alpha = \min\Big(\frac{\lVert Z \rVert}{\lVert H \rVert}\,\beta,\ 1\Big) \\
        h &= \mathrm{Transformer}_2(\bar Z), \qquad z = V h + c

    The main modality is ``text`` if there is one, else the first. An utterance that has no other
    modality is not shifted. One that lacks the main modality stands in the stream with its place
    and its speaker; nobody attends to it before the gate.

    Deviations: the authors put the gate into a pretrained BERT or XLNet, whose sequence is the
    words of an utterance. Here nothing is pretrained, the sequence is the dialogue, and the gate
    stands behind the first layer. They read :math:`f_m` where :math:`g_m` here reads :math:`x_m`.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Transformer layers behind the gate; one stands before it.
        shift: The factor beta above 0: how far an utterance may be shifted, in lengths of Z.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MAG(corpus.shape, hidden=8)(batch)
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
        shift: float = 1.0,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        if not 0 < shift < math.inf:
            raise InputError(f"shift is {shift}; expected a number above 0.")
        self.shift = shift
        self.main = main_modality(shape)
        others = [name for name in shape.features if name != self.main]
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.before = Transformer(1, hidden, heads, dropout, causal)
        self.gates = nn.ModuleDict({name: nn.Linear(2 * hidden, hidden) for name in others})
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.norm = nn.LayerNorm(hidden)
        self.after = Transformer(layers, hidden, heads, dropout, causal)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows, present = self.project(batch), there(batch)
        entered = self.dropout(rows[self.main] + self.place(batch))
        stream = self.before(entered, present[self.main])
        gated = self.dropout(self.norm(stream + self.displacement(stream, rows, present)))
        # What the gate lets in has reached utterances that lack the main modality: all are keys.
        fused = self.after(gated, batch.context)
        return NetworkOutput(
            logits=self.head(fused), embeddings={self.main: stream, "gated": gated, "fused": fused}
        )

    def displacement(
        self, stream: Tensor, rows: dict[str, Tensor], present: dict[str, Tensor]
    ) -> Tensor:
        """alpha H, ``(B, L, d)``; zero where no other modality is there.

        Args:
            stream: Z, ``(B, L, d)``.
            rows: Modality name -> x, ``(B, L, d)``, zero where missing.
            present: Modality name -> ``(B, L)`` bool.
        """
        moved = self.bias.expand_as(stream)
        anything = torch.zeros_like(present[self.main])
        for name, gate in self.gates.items():
            opened = torch.relu(gate(torch.cat([rows[name], stream], dim=-1)))
            moved = moved + opened * rows[name]
            anything = anything | present[name]
        moved = moved.masked_fill(~anything[..., None], 0)
        lengths = stream.norm(dim=-1, keepdim=True), moved.norm(dim=-1, keepdim=True)
        # Where nothing is moved the factor does not matter, as long as it is finite.
        factor = (self.shift * lengths[0] / (lengths[1] + 1e-6)).clamp(max=1)
        shifted: Tensor = factor * moved
        return shifted
