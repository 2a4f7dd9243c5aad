"""Window: a linear head on an utterance, the utterances around it, and means over speakers."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._modalities import there


class Window(Network):
    r"""A linear head on the features of an utterance and what is around it; nothing else.

    With :math:`x_t` the modalities of utterance :math:`t` side by side, each zero where it is
    missing and followed by a bit that says whether it is there, :math:`S_t` the utterances of
    whoever speaks in
    :math:`t` and :math:`P_t` those of everybody else in the dialogue:

    .. math::

        z_t = \Big[x_{t-w}; \dots; x_t; \dots; x_{t+w};
            \tfrac{1}{|S_t|} \sum_{s \in S_t} x_s;
            \tfrac{1}{|P_t|} \sum_{s \in P_t} x_s\Big], \qquad
        \mathrm{logits} = V z_t + c

    Beyond the border of what the client may read, features and bits are zero. A mean is over the
    utterances that have the modality, and its bit says whether there are any.

    Only the head has parameters, so that :class:`~fedmer.plugins.aggregators.analytic.Analytic`
    finds its optimum in one round. Every other rule can train it too.

    With ``random_features`` :math:`R`, as many cosines follow, which turn a linear model into one
    with a Gaussian kernel of width :math:`\sigma \sqrt{D}` (A. Rahimi and B. Recht, "Random
    Features for Large-Scale Kernel Machines", NIPS 2007):

    .. math:: \phi_j(z) = \sqrt{2 / R} \cos(\omega_j^\top z + b_j), \qquad
        \omega_j \sim N\big(0, (\sigma^2 D)^{-1} I\big), \quad b_j \sim U(0, 2 \pi)

    Args:
        shape: The sizes of the corpus.
        window: Utterances before and after that are read, 0 or more.
        means: Whether the means over the speaker's utterances and the partners' are read.
        causal: Read no later utterance, neither around an utterance nor in a mean.
        random_features: How many cosines to add, 0 or more.
        kernel_width: :math:`\sigma`, above 0.
        random_seed: Where the cosines come from; all clients need the same ones.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> network = Window(corpus.shape, window=1)
    >>> network(batch_of(corpus, [0])).embeddings["fused"].shape[-1] == (6 + 1 + 4 + 1) * (3 + 2)
    True
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(
        self,
        shape: CorpusShape,
        window: int = 3,
        means: bool = True,
        causal: bool = False,
        random_features: int = 0,
        kernel_width: float = 1.0,
        random_seed: int = 0,
    ) -> None:
        super().__init__(shape)
        for name, value in (("window", window), ("random_features", random_features)):
            if value < 0:
                raise InputError(f"{name} is {value}; expected a whole number, 0 or more.")
        if not 0 < kernel_width < math.inf:
            raise InputError(f"kernel_width is {kernel_width}; expected a number above 0.")
        self.offsets = range(-window, 1 if causal else window + 1)
        self.means = means
        self.causal = causal
        width = sum(shape.features.values()) + len(shape.features)
        width *= len(self.offsets) + (2 if means else 0)
        random = torch.Generator().manual_seed(random_seed)
        frequencies = torch.randn(width, random_features, generator=random)
        phases = 2 * math.pi * torch.rand(random_features, generator=random)
        # Made anew from the seed by everybody, so that they need not travel.
        scale = kernel_width * math.sqrt(width)
        self.register_buffer("frequencies", frequencies / scale, persistent=False)
        self.register_buffer("phases", phases, persistent=False)
        self.head = nn.Linear(width + random_features, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        rows, bits = [], []
        for name in self.shape.features:
            bit = present[name][..., None]
            rows.append(batch.features[name].masked_fill(~bit, 0))
            bits.append(bit.to(rows[-1].dtype))
        turn = torch.cat([*rows, *bits], dim=-1)
        parts = [_shifted(turn, offset) for offset in self.offsets]
        if self.means:
            parts += self._means(batch, rows, bits)
        fused = torch.cat(parts, dim=-1)
        if len(self.phases):
            waves = (fused @ self.frequencies.to(fused.dtype) + self.phases).cos()
            fused = torch.cat([fused, waves * math.sqrt(2 / len(self.phases))], dim=-1)
        return NetworkOutput(logits=self.head(fused), embeddings={"fused": fused})

    def _means(self, batch: Batch, rows: list[Tensor], bits: list[Tensor]) -> list[Tensor]:
        """Means and bits of the speaker's utterances, and then of the partners'."""
        readable = batch.context[:, None, :] & batch.context[:, :, None]
        if self.causal:
            readable = readable.tril()
        same = batch.roles[:, None, :] == batch.roles[:, :, None]
        found = []
        for group in (readable & same, readable & ~same):
            # In double precision, so that no result depends on how long the batch's others are.
            members = group.double()
            counts = [members @ bit.double() for bit in bits]
            means = [
                (members @ own.double() / count.clamp(min=1)).to(own.dtype)
                for own, count in zip(rows, counts, strict=True)
            ]
            found += [*means, *[(count > 0).to(rows[0].dtype) for count in counts]]
        return found


def _shifted(rows: Tensor, offset: int) -> Tensor:
    """``(B, L, D)``: for each utterance what stands ``offset`` utterances later, zero beyond the
    border."""
    length = rows.shape[1]
    kept = max(length - abs(offset), 0)
    if offset < 0:
        return F.pad(rows[:, :kept], (0, 0, length - kept, 0))
    return F.pad(rows[:, length - kept :], (0, 0, 0, length - kept))
