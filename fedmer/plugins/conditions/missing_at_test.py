"""MissingAtTest, recordings that are not there when the network is tested."""

from collections.abc import Sequence
from typing import Literal

from fedmer.contracts.condition import Condition
from fedmer.data.batch import Excerpt
from fedmer.plugins.conditions._missing import masked


class MissingAtTest(Condition):
    """Modalities are missing in the test part, whatever clients train on.

    It holds for no client. Masks are drawn as those of
    :class:`~fedmer.plugins.conditions.missing_modality.MissingModality`, and every utterance keeps
    at least one of what it has. Without the other condition beside it, training is whole and the
    test is not; with it, both are drawn apart. Validation stays whole.

    Args:
        severity: The rate, in [0, 1].
        by: What a modality is drawn for: every 'utterance', or every 'dialogue'.
        modalities: Which may be missing; by default all. At a severity of 1 they all are.

    Raises:
        InputError: A number is out of range.
    """

    def __init__(
        self,
        severity: float = 0.5,
        by: Literal["utterance", "dialogue"] = "utterance",
        modalities: list[str] | None = None,
    ) -> None:
        super().__init__(fraction=0.0, severity=severity)
        self.by = by
        self.modalities = modalities

    def on_test(self, excerpts: Sequence[Excerpt], seed: int) -> Sequence[Excerpt]:
        return masked(excerpts, self, self.by, self.modalities, seed)
