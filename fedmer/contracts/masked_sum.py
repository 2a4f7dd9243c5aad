"""What a mechanism asks for if the server shall see the sum of a cohort's updates and no part."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskedSum:
    """A weighted sum of updates that only the whole cohort can unmask.

    Args:
        threshold: Share of the cohort, in (0.5, 1], that has to stay to the end of a round.
        clip: The largest size of a number in a weighted update, above 0.
    """

    threshold: float
    clip: float
