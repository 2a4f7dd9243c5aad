"""What a mechanism asks for if the server shall see the sum of a cohort's updates and no part."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class MaskedSum:
    """A weighted sum of updates that only the whole cohort can unmask.

    Args:
        threshold: Share of the cohort, in (0.5, 1], that has to stay to the end of a round.
        clip: The largest size of a number in a weighted update, above 0.
        class_holders: Clients that have to have a weight in a class for its rows to be summed.
        class_share: The largest share, in (0, 1], of a class's weights that one of them may have.
        summary_clip: The largest size of a number of a summary that crosses in the sum, above 0.
    """

    threshold: float
    clip: float
    class_holders: int = 3
    class_share: float = 0.8
    summary_clip: float = 64.0

    @property
    def factor(self) -> float:
        """By what a summary is multiplied before the sum, to have the range of updates in it."""
        return self.clip / self.summary_clip

    def withheld(self, classes: Mapping[int, Sequence[float]]) -> list[int]:
        """Classes whose rows would be those of one or few clients, and so keep their old values.

        Args:
            classes: Client -> ``(C,)`` weights.

        >>> MaskedSum(0.6, 1.0).withheld({0: [1.0, 5.0], 1: [1.0, 0.0], 2: [2.0, 1.0]})
        [1]
        """
        # Where there are no more clients, each of them knows of the others anyway.
        least = min(self.class_holders, len(classes))
        found = []
        for place, column in enumerate(zip(*classes.values(), strict=True)):
            held = [weight for weight in column if weight > 0]
            if held and (
                len(held) < least or max(held) > self.class_share * math.fsum(held) * (1 - 1e-9)
            ):
                found.append(place)
        return found
