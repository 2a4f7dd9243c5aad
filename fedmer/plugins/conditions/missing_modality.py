"""MissingModality, recordings that are not there."""

from dataclasses import replace
from typing import Literal

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.client_data import ClientData
from fedmer.plugins.conditions._missing import masked


class MissingModality(Condition):
    r"""Modalities are missing where clients train, by chance, and are known to be missing.

    A modality is missing where a number drawn for it is below the severity :math:`r`, for each
    modality by itself. An utterance keeps at least one of what it has: where all would be missing,
    the one with the largest number stays. Of :math:`M` modalities that all may be missing, a share
    of :math:`r - r^M / M` is, and what is missing at a rate is missing at every higher one too. An
    utterance that has no modality in the corpus stays without.

    Masks depend on the run's seed and the place in the list of conditions, and on neither rule nor
    network. Whoever holds a dialogue lacks the same of it, unless masks are drawn by client.
    Features are standardised by what was there before. A client that lacks a modality altogether
    lacks it in what it keeps back too. The test part stays whole, unless
    :class:`~fedmer.plugins.conditions.missing_at_test.MissingAtTest` is in the list.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The rate :math:`r`, in [0, 1].
        seed: Chooses the clients, together with the run's.
        by: What a modality is drawn for: every 'utterance', every 'dialogue', or the 'client' as a
            whole. With 'client' and a severity of 1, clients lack the ``modalities`` altogether.
        modalities: Which may be missing; by default all.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        fraction: float = 1.0,
        severity: float = 0.5,
        seed: int = 0,
        by: Literal["utterance", "dialogue", "client"] = "utterance",
        modalities: list[str] | None = None,
    ) -> None:
        super().__init__(fraction, severity, seed)
        self.by = by
        self.modalities = modalities

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        seed = context.seed if self.by == "client" else context.common
        return replace(data, train=masked(data.train, self, self.by, self.modalities, seed))
