"""The loss of SDT: cross-entropy of teacher and students, and distillation between them."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import NetworkOutput
from fedmer.contracts.part import PartType
from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED
from fedmer.errors import InputError
from fedmer.losses.class_terms import NEUTRAL, Calibration, ClassTerms, class_terms

ClassWeights = Literal["none", "local", "global"]


class SelfDistillation(nn.Module, metaclass=PartType):
    r"""Self-distillation within one network: the fused branch teaches each modality's branch.

    Over the labelled utterances :math:`M`, with fused logits :math:`z` and student logits
    :math:`z_m` (Ma et al., IEEE TMM 2024):

    .. math::

        L &= \gamma_1 \mathrm{CE}(z, y) + \gamma_2 \sum_m \mathrm{CE}(z_m, y)
             + \gamma_3 \sum_m \mathrm{KL}_m \\
        \mathrm{CE}(z, y) &= \frac{\sum_M w_y (-\log \mathrm{softmax}(z)_y)}{\sum_M w_y} \\
        \mathrm{KL}_m &= \frac{1}{|M|} \sum_M \sum_c p_c \log \frac{p_c}{q_c}, \quad
        p = \mathrm{softmax}(z / T),\ q = \mathrm{softmax}(z_m / T)

    With ``teacher='global'``, :math:`p` comes from the network that the server sent, frozen for the
    round and without dropout, as in FedDistill; then clients learn from each other and not only
    from themselves. There is no factor :math:`T^2` and, as in the authors' code, the teacher is not
    detached unless asked for. A student's terms leave out the utterances that lack its modality. A
    network without students is trained by the first term alone. What a network minimises beside
    that (``auxiliary`` of its output) is added, as the mean over :math:`M`.

    With a calibration, the cross-entropies are of the logits plus a client's offsets
    (:func:`~fedmer.losses.class_terms.logit_offsets`). The divergence is between the logits
    themselves, by which predictions are made: with offsets inside it, weighted F1 on validation was
    the same to a tenth of a point (mean of the last ten of 30 rounds on ``meld_dev`` and of 20 on
    ``meld_text``, NWay, one seed, 'prior' and 'balanced').

    Args:
        temperature: T > 0. The authors use 1 on IEMOCAP and 8 on MELD.
        task: The factor gamma_1 of the teacher's cross-entropy, 0 or more.
        students: The factor gamma_2 of the students' cross-entropy, 0 or more.
        distillation: The factor gamma_3 of the divergence, 0 or more.
        teacher: Who teaches the students: the 'fused' branch of the same network, or the 'global'
            network as it was sent at the round's start.
        detach_teacher: Keep the gradient of KL out of the fused branch.
        class_weights: 'none' (all 1), 'local' (a client's own inverse class frequencies), or
            'global' (those of all clients together; the server then knows every client's class
            counts).
        calibration: What is added to the logits in training, by how often a client has each class:
            'none'; 'restricted' leaves out the classes that it lacks; 'balanced' adds the logarithm
            of its class shares; 'prior' that of its shares over everybody's (the server then knows
            every client's class counts).
        calibration_strength: How much of it, 0 (none) or more; at most 1 for 'restricted'.

    Raises:
        InputError: A value is out of range.
    """

    def __init__(
        self,
        temperature: float = 1.0,
        task: float = 1.0,
        students: float = 1.0,
        distillation: float = 1.0,
        teacher: Literal["fused", "global"] = "fused",
        detach_teacher: bool = False,
        class_weights: ClassWeights = "none",
        calibration: Calibration = "prior",
        calibration_strength: float = 1.0,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; expected a number above 0.")
        for name, value in (
            ("task", task), ("students", students), ("distillation", distillation)
        ):  # fmt: skip
            if not value >= 0:
                raise InputError(f"the loss factor {name} is {value}; expected 0 or more.")
        most = 1.0 if calibration == "restricted" else math.inf
        if not 0 <= calibration_strength <= most or math.isinf(calibration_strength):
            limit = "from 0 to 1 with calibration restricted" if most == 1 else "of 0 or more"
            raise InputError(
                f"calibration_strength is {calibration_strength}; expected a number {limit}."
            )
        self.temperature = temperature
        self.task, self.students, self.distillation = task, students, distillation
        self.teacher = teacher
        self.detach_teacher = detach_teacher
        self.class_weights = class_weights
        self.calibration: Calibration = calibration
        self.calibration_strength = calibration_strength

    def terms(self, counts: Tensor, everybody: Tensor) -> ClassTerms:
        """What :meth:`forward` wants to know of a client's classes.

        Args:
            counts: ``(C,)``, how often each class occurs at the client.
            everybody: ``(C,)``, at all clients together.

        Raises:
            InputError: It takes everybody's counts, and they are all 0.
        """
        return class_terms(
            self.class_weights, self.calibration, self.calibration_strength, counts, everybody
        )

    @property
    def counts_classes(self) -> bool:
        """Does it look at how often each class occurs?"""
        return self.class_weights != "none" or self.calibration != "none"

    def forward(
        self,
        output: NetworkOutput,
        batch: Batch,
        terms: ClassTerms = NEUTRAL,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """The loss, a scalar; zero for a batch without a labelled utterance.

        Args:
            output: What the network said of the batch.
            batch: The batch.
            terms: The client's weights :math:`w` and offsets.
            guidance: ``(B, L, C)`` logits of the global teacher, without gradient.

        Raises:
            InputError: The global teacher is asked for and there is none.
        """
        if self.teacher == "global" and guidance is None:
            raise InputError(
                "loss.teacher is 'global', but nobody sent a network; use 'fused' outside a "
                "federation."
            )
        fused = output.logits.float()
        moved = _moved(fused, terms.offsets)
        loss = self.task * cross_entropy(moved, batch.labels, batch.labelled, terms.weights)
        target = fused if guidance is None else guidance.float()
        target = target.detach() if self.detach_teacher else target
        for name, logits in output.students.items():
            counted = batch.labelled & batch.present[name]
            student = logits.float()
            moved = _moved(student, terms.offsets)
            entropy = cross_entropy(moved, batch.labels, counted, terms.weights)
            divergence = self.divergence(target, student, counted)
            loss = loss + self.students * entropy + self.distillation * divergence
        if output.auxiliary is not None:
            found = output.auxiliary.float() * batch.labelled
            loss = loss + found.sum() / batch.labelled.sum().clamp(min=1)
        return loss

    def divergence(self, teacher: Tensor, student: Tensor, counted: Tensor) -> Tensor:
        """Mean KL(teacher || student) over the utterances counted.

        The mask is applied after the pointwise term: masking its factors instead makes 0/0 in the
        backward pass through the teacher.
        """
        target = F.log_softmax(teacher / self.temperature, dim=-1)
        predicted = F.log_softmax(student / self.temperature, dim=-1)
        pointwise = (target.exp() * (target - predicted)).sum(dim=-1)
        return (pointwise * counted).sum() / counted.sum().clamp(min=1)


def _moved(logits: Tensor, offsets: Tensor | None) -> Tensor:
    return logits if offsets is None else logits + offsets


def cross_entropy(
    logits: Tensor, labels: Tensor, counted: Tensor, class_weights: Tensor | None = None
) -> Tensor:
    """Weighted mean of ``-log p_y`` over the utterances counted; zero if none is.

    Args:
        logits: ``(B, L, C)``.
        labels: ``(B, L)`` int64; read only where counted.
        counted: ``(B, L)`` bool.
        class_weights: ``(C,)``, or None for all 1.
    """
    safe = labels.masked_fill(~counted | (labels == UNLABELLED), 0)
    surprise = -F.log_softmax(logits, dim=-1).gather(-1, safe[..., None])[..., 0]
    weights = counted.to(surprise.dtype)
    if class_weights is not None:
        weights = weights * class_weights[safe]
    return (surprise * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)
