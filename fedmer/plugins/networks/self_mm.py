"""SelfMM, self-supervised multi-task learning of one student for each modality."""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, there

FUSED = "fused"


class SelfMM(Network):
    r"""Self-MM: a student for each modality, with targets by its distances to class centres.

    W. Yu et al., "Learning Modality-Specific Representations with Self-Supervised Multi-Task
    Learning for Multimodal Sentiment Analysis", AAAI 2021 (arXiv 2102.04830). With position
    encoding :math:`p` and speaker embedding :math:`s`:

    .. math::

        h_m &= \mathrm{Transformer}_m(\mathrm{drop}(W_m f_m + p + s)), \qquad
        h = \mathrm{relu}(W\,\mathrm{drop}([h_1; \dots; h_M])), \qquad z = V h + c \\
        h'_m &= \mathrm{relu}(W'_m\,\mathrm{drop}(h_m)), \qquad z_m = V_m h'_m + c_m

    In training, for s each modality and for the fused h, with centres :math:`C^s_k` of the classes
    k, and without gradient:

    .. math::

        d^s_k &= \lVert h^s - C^s_k \rVert^2, \qquad
        \alpha^s_k = 1 - \frac{d^s_k}{\tfrac{1}{K} \sum_j d^s_j} \\
        y_m &= \mathrm{softmax}(z + \alpha^m - \alpha^{\mathrm{fused}}), \qquad
        w_m = \tanh\Big(\tfrac{1}{2} \lVert y_m - \mathrm{softmax}(z) \rVert_1\Big)

    and every utterance adds to the loss, over the modalities that it has,

    .. math:: \eta \sum_m w_m \mathrm{KL}(y_m \,\Vert\, \mathrm{softmax}(z_m))

    A modality whose representation is relatively
    nearer to a class than the fused one is gets a target with more of it, and weighs the more the
    further that is from the common target.

    How this differs from the paper, which scores sentiment by one number:

    * Its relative distance is that to the centres of positive and of negative utterances; here it
      is that to each class, over the mean of all classes.
    * A network may not look at labels. So the common target is what the fused branch says, which
      the loss trains on the labels, and centres are means weighed by :math:`\mathrm{softmax}(z)`.
      What the paper adds to a label, :class:`~fedmer.losses.distillation.SelfDistillation` adds
      here to the cross-entropy of the students with the labels and to their distillation; its
      factors ``students`` and ``distillation`` at 0 leave the generated targets alone.
    * The paper keeps a generated label for each utterance and moves it a little in each epoch. A
      client of a federation starts anew in each round, so it is the centres that move: each step
      goes the part ``momentum`` of the way to the centres of the batch, less where a class has
      little weight there. They are buffers, which travel and are averaged as weights are.
    * The authors have BERT for text and LSTMs over frames and samples; here each modality has a
      Transformer over the dialogue.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Transformer layers of each modality.
        generated: The factor eta of the generated targets, 0 or more.
        momentum: How far a step moves the centres, above 0 and at most 1.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = SelfMM(corpus.shape, hidden=8)(batch)
    >>> sorted(output.students)
    ['audio', 'text']
    """

    stackable: ClassVar[bool] = False

    centres: Tensor

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        generated: float = 1.0,
        momentum: float = 0.1,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        if not 0 <= generated < math.inf:
            raise InputError(f"generated is {generated}; expected 0 or more.")
        if not 0 < momentum <= 1:
            raise InputError(f"momentum is {momentum}; expected a number above 0, at most 1.")
        self.generated, self.momentum = generated, momentum
        names = list(shape.features)
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.transformers = nn.ModuleDict(
            {name: Transformer(layers, hidden, heads, dropout, causal) for name in names}
        )
        self.fuse = nn.Linear(len(names) * hidden, hidden)
        self.narrow = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in names})
        self.students = nn.ModuleDict({name: nn.Linear(hidden, shape.classes) for name in names})
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)
        # Of each modality, and of the fused representation behind them.
        self.register_buffer("centres", torch.zeros(len(names) + 1, shape.classes, hidden))

    @property
    def class_parameters(self) -> dict[str, int]:
        students = (f"students.{name}" for name, _ in self.students.named_parameters())
        return {**super().class_parameters, **dict.fromkeys(students, 0)}

    def forward(self, batch: Batch) -> NetworkOutput:
        present, place = there(batch), self.place(batch)
        rows = {
            name: self.transformers[name](self.dropout(rows + place), present[name])
            for name, rows in self.project(batch).items()
        }
        together = torch.cat(list(rows.values()), dim=-1)
        fused = torch.relu(self.fuse(self.dropout(together)))
        each = {
            name: torch.relu(self.narrow[name](self.dropout(own))) for name, own in rows.items()
        }
        logits = self.head(fused)
        students = {name: self.students[name](own) for name, own in each.items()}
        auxiliary = None
        if self.training:
            exist = torch.stack([*present.values(), batch.context])
            found = torch.stack([*each.values(), fused])
            auxiliary = self._generated(logits, torch.stack(list(students.values())), found, exist)
        return NetworkOutput(
            logits=logits,
            students=students,
            embeddings={**each, FUSED: fused},
            auxiliary=auxiliary,
        )

    def _generated(self, logits: Tensor, students: Tensor, rows: Tensor, exist: Tensor) -> Tensor:
        """What the generated targets cost, ``(B, L)``, once the centres have moved.

        Args:
            logits: z, ``(B, L, C)``.
            students: z_m, ``(M, B, L, C)``.
            rows: h^s, ``(M + 1, B, L, d)``.
            exist: ``(M + 1, B, L)`` bool.
        """
        with torch.no_grad():
            common, rows = logits.float(), rows.float()
            self._move(common.softmax(dim=-1), rows, exist)
            target = self._targets(common, rows)
            apart = (target - common.softmax(dim=-1)).abs().sum(dim=-1)
            weight = torch.tanh(apart / 2).masked_fill(~exist[:-1], 0)
        said = F.log_softmax(students.float(), dim=-1)
        cost = F.kl_div(said, target, reduction="none").sum(dim=-1)
        return self.generated * (weight * cost).sum(dim=0)

    def _targets(self, common: Tensor, rows: Tensor) -> Tensor:
        """y_m, ``(M, B, L, C)``."""
        centres = self.centres.float()[:, None, None]
        far = (rows[..., None, :] - centres).square().sum(dim=-1)
        near = 1 - far / far.mean(dim=-1, keepdim=True).clamp(min=1e-12)
        return (common + near[:-1] - near[-1:]).softmax(dim=-1)

    def _move(self, shares: Tensor, rows: Tensor, exist: Tensor) -> None:
        """Take the centres towards those of a batch."""
        shares = shares * exist[..., None]
        weight = shares.sum(dim=(1, 2))[..., None]
        means = torch.einsum("sblc,sbld->scd", shares, rows) / weight.clamp(min=1e-12)
        step = self.momentum * weight / (weight + 1)
        self.centres.lerp_(means.to(self.centres.dtype), step.to(self.centres.dtype))
