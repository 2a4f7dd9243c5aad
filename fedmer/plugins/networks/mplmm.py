"""MPLMM, prompts for what is missing."""

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.data.missing import kept
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import (
    Place,
    Projections,
    check,
    check_rate,
    mean_over,
    there,
)


class MPLMM(Network):
    r"""MPLMM-style: prompts stand in for a missing modality, and say what is missing.

    Z. Guo, T. Jin and Z. Zhao, "Multimodal Prompt Learning with Missing Modalities for Sentiment
    Analysis and Emotion Recognition", ACL 2024 (arXiv 2407.05374). With position encoding p,
    speaker embedding s, and a the modalities that an utterance has:

    .. math::

        x_m &= W_m f_m, \qquad
        \hat x_m = B_m\,\mathrm{relu}\Big(A_m \Big[P^g_m;\
            \frac{1}{|a|} \sum_{n \in a} C_n x_n\Big]\Big) \\
        u_m &= \begin{cases}
            x_m + P^s_{m,1} & m \in a \\
            \hat x_m + P^s_{m,0} & m \notin a
        \end{cases} \quad + p + s, \qquad
        t = \sum_n P^t_{n, [n \in a]} \\
        x_{n \to m} &= \mathrm{Transformer}_{n \to m}(
            \text{queries } \mathrm{drop}(u_m + t), \text{ keys } \mathrm{drop}(u_n)) \\
        h &= \mathrm{relu}(W\,\mathrm{drop}([x_{1 \to 1}; \dots; x_{n \to m}; \dots])),
        \qquad z = V h + c

    :math:`P^g` are the generative prompts, of which a missing modality is made, :math:`P^s` the
    missing-signal prompts, which tell what was made from what was there, and :math:`P^t` the
    missing-type prompts, which tell each modality what the others lack; their sum stands for each
    of the :math:`2^M - 1` sets of modalities, and their number grows with M alone. All are
    parameters whose names begin with ``prompts``, so that a rule may leave them on a client.

    In training each modality of an utterance is hidden with the probability ``missing_rate``, where
    the utterance has another one left. What was made is read like what was there; nobody attends
    to an utterance without any modality.

    Deviations: the authors train the Transformers on a large corpus without gaps, freeze them, and
    train the prompts alone; here all is trained at once. Their sequences are words and frames, so
    that prompts are sequences too, put before those of an utterance; here an utterance has one row
    a modality, a prompt is one row, and what they put before is added. Generation has a layer for
    each modality that is there, not for each set of them.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of a modality, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of every Transformer.
        missing_rate: Probability in [0, 1) that a modality of an utterance is hidden in training.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MPLMM(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        missing_rate: float = 0.2,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        check_rate(missing_rate)
        self.missing_rate = missing_rate
        names = list(shape.features)
        self.prompts = _Prompts(names, hidden)
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.offer = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in names})
        self.generate = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(2 * hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
                )
                for name in names
            }
        )
        self.pairs = [(source, target) for target in names for source in names]
        self.attention = nn.ModuleDict(
            {
                f"{source}_to_{target}": Transformer(layers, hidden, heads, dropout, causal)
                for source, target in self.pairs
            }
        )
        self.fuse = nn.Linear(len(self.pairs) * hidden, hidden)
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        left = kept(present, self.missing_rate) if self.training else present
        heard = torch.stack(list(left.values())).any(dim=0)
        place = self.place(batch)
        rows = {name: own + place for name, own in self.complete(batch, left).items()}
        kind = self.prompts.kind(left)
        queries = {name: self.dropout(own + kind) for name, own in rows.items()}
        keys = {name: self.dropout(own) for name, own in rows.items()}
        flows = [
            self.attention[f"{source}_to_{target}"](queries[target], heard, keys=keys[source])
            for source, target in self.pairs
        ]
        fused = torch.relu(self.fuse(self.dropout(torch.cat(flows, dim=-1))))
        return NetworkOutput(logits=self.head(fused), embeddings={**rows, "fused": fused})

    def complete(self, batch: Batch, left: dict[str, Tensor]) -> dict[str, Tensor]:
        """u without place and speaker: modality name -> ``(B, L, d)``.

        Args:
            batch: The batch.
            left: Modality name -> ``(B, L)`` bool, what may be read.
        """
        missing = {name: ~has[..., None] for name, has in left.items()}
        rows = {
            name: own.masked_fill(missing[name], 0) for name, own in self.project(batch).items()
        }
        offers = mean_over({name: self.offer[name](own) for name, own in rows.items()}, left)
        made = {
            name: self.generate[name](torch.cat([prompt.expand_as(offers), offers], dim=-1))
            for name, prompt in self.prompts.generative.items()
        }
        return {
            name: torch.where(missing[name], made[name], own) + self.prompts.signal(name, left)
            for name, own in rows.items()
        }


class _Prompts(nn.Module):
    """The three kinds of prompts, each for every modality."""

    def __init__(self, names: list[str], hidden: int) -> None:
        super().__init__()
        self.generative = nn.ParameterDict({name: 0.02 * torch.randn(hidden) for name in names})
        # The first row is for what is missing, the second for what is there.
        self.signals = nn.ParameterDict({name: 0.02 * torch.randn(2, hidden) for name in names})
        self.kinds = nn.ParameterDict({name: 0.02 * torch.randn(2, hidden) for name in names})

    def signal(self, name: str, left: dict[str, Tensor]) -> Tensor:
        """Whether one modality is there, ``(B, L, d)``."""
        return _chosen(self.signals[name], left[name])

    def kind(self, left: dict[str, Tensor]) -> Tensor:
        """Which modalities are there, ``(B, L, d)``."""
        return torch.stack([_chosen(self.kinds[name], has) for name, has in left.items()]).sum(
            dim=0
        )


def _chosen(rows: Tensor, has: Tensor) -> Tensor:
    return torch.where(has[..., None], rows[1], rows[0])
