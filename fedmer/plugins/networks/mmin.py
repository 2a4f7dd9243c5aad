"""MMIN, the Missing Modality Imagination Network."""

import math

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.data.missing import kept
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, check_rate, there


class MMIN(Network):
    r"""Missing Modality Imagination Network: imagines the embeddings of what is missing, and back.

    J. Zhao, R. Li and Q. Jin, "Missing Modality Imagination Network for Emotion Recognition with
    Uncertain Missing Modalities", ACL 2021. With position encoding :math:`p`, speaker embedding
    :math:`s`, and residual autoencoders b, one after the other (a cascade):

    .. math::

        h_m &= \mathrm{Transformer}_m(\mathrm{drop}(W_m f_m + p + s)), \quad
            0 \text{ where m is missing}, \qquad h = [h_1; \dots; h_M] \\
        c_b &= \mathrm{relu}\Big(E_b\,\mathrm{drop}\Big(h + \sum_{j < b} \Delta_j\Big)\Big), \qquad
        \Delta_b = D_b c_b, \qquad h' = h + \sum_b \Delta_b \\
        z &= V\,[c_1; \dots; c_B] + c, \qquad h'' = \mathrm{cascade}'(h')

    In training each modality of an utterance is hidden with the probability ``missing_rate``, where
    the utterance has another one left. With :math:`\hat h` the embeddings that the same encoders
    make of everything, without gradient, every utterance adds the squared errors of what it
    imagines of its hidden modalities H, and of the way back to those that it has, A:

    .. math::

        \lambda_1 \frac{1}{d} \sum_{m \in H} \lVert h'_m - \hat h_m \rVert^2
        + \lambda_2 \frac{1}{d} \sum_{m \in A} \lVert h''_m - h_m \rVert^2

    The way back is needed in training only; its target :math:`h_m` has no gradient either.

    Deviations: the authors read the frames and words of one utterance by LSTMs and convolutions,
    where here a Transformer reads the dialogue. They train encoders on complete utterances first
    and compare with those, frozen; here there is one training, so that :math:`\hat h` moves with
    the encoders. They add further layers before the logits.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of each modality's embedding, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Transformer layers of each modality.
        autoencoders: How many, B, in each of the two cascades. The authors have 5.
        missing_rate: Probability in [0, 1) that a modality of an utterance is hidden in training.
        imagination: The factor lambda_1 of imagining, 0 or more.
        cycle: The factor lambda_2 of the way back, 0 or more.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MMIN(corpus.shape, hidden=8)(batch)
    >>> output.auxiliary.shape == batch.labels.shape
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        autoencoders: int = 3,
        missing_rate: float = 0.2,
        imagination: float = 1.0,
        cycle: float = 1.0,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers, autoencoders=autoencoders)
        check_rate(missing_rate)
        for name, value in (("imagination", imagination), ("cycle", cycle)):
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; expected 0 or more.")
        self.missing_rate, self.imagination, self.cycle = missing_rate, imagination, cycle
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.encoders = nn.ModuleDict(
            {name: Transformer(layers, hidden, heads, dropout, causal) for name in shape.features}
        )
        width = len(shape.features) * hidden
        self.imagine = _Cascade(autoencoders, width, hidden, dropout)
        self.recall = _Cascade(autoencoders, width, hidden, dropout)
        self.head = nn.Linear(autoencoders * hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        left = kept(present, self.missing_rate) if self.training else present
        known = self.encode(batch, left)
        imagined, fused = self.imagine(known)
        each = imagined.chunk(len(present), dim=-1)
        return NetworkOutput(
            logits=self.head(fused),
            embeddings={**dict(zip(present, each, strict=True)), "fused": fused},
            auxiliary=self._errors(batch, known, imagined, left) if self.training else None,
        )

    def encode(self, batch: Batch, left: dict[str, Tensor]) -> Tensor:
        """h, ``(B, L, M d)``, of the modalities that are ``left``: name -> ``(B, L)`` bool."""
        place = self.place(batch)
        found = []
        for name, rows in self.project(batch).items():
            missing = ~left[name][..., None]
            stream = self.dropout(rows.masked_fill(missing, 0) + place)
            found.append(self.encoders[name](stream, left[name]).masked_fill(missing, 0))
        return torch.cat(found, dim=-1)

    def _errors(
        self, batch: Batch, known: Tensor, imagined: Tensor, left: dict[str, Tensor]
    ) -> Tensor:
        """What imagining and the way back cost, ``(B, L)``."""
        present = there(batch)
        with torch.no_grad():
            whole = self.encode(batch, present)
        recalled, _ = self.recall(imagined)
        hidden = torch.stack([present[name] & ~left[name] for name in present], dim=-1)
        has = torch.stack(list(left.values()), dim=-1)
        forward = self._error(imagined, whole, hidden)
        backward = self._error(recalled, known.detach(), has)
        return self.imagination * forward + self.cycle * backward

    def _error(self, said: Tensor, wanted: Tensor, counted: Tensor) -> Tensor:
        """``(B, L)`` of two ``(B, L, M d)`` and of the modalities that count, ``(B, L, M)``."""
        squares = (said - wanted).square().view(*counted.shape, -1).mean(dim=-1)
        return squares.masked_fill(~counted, 0).sum(dim=-1)


class _Cascade(nn.Module):
    """Autoencoders in a row, each of which reads what those before have added, and adds to it."""

    def __init__(self, count: int, wide: int, narrow: int, dropout: float) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Linear(wide, narrow) for _ in range(count))
        self.decoders = nn.ModuleList(nn.Linear(narrow, wide) for _ in range(count))
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The sum of input and additions, ``(B, L, wide)``, and the codes c side by side."""
        codes = []
        for encoder, decoder in zip(self.encoders, self.decoders, strict=True):
            codes.append(torch.relu(encoder(self.dropout(rows))))
            rows = rows + decoder(codes[-1])
        return rows, torch.cat(codes, dim=-1)
