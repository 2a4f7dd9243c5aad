"""How much memory a file may take once it is unpacked."""

import math
from pathlib import Path

from fedmer.errors import InputError

MAX_GB = 1.0
"""What a corpus may unpack to unless ``--data.max_gb`` says otherwise; the largest published one
has about 0.6 GB."""


class MemoryBudget:
    """Bytes that a file may still take; a file of a few kilobytes can unpack to anything.

    Args:
        path: The file, for the sentence.
        gigabytes: How many 10^9 bytes.
        remedy: What to do about a file that takes more, as the end of a sentence.

    Raises:
        InputError: ``gigabytes`` is no positive number.
    """

    def __init__(
        self,
        path: Path,
        gigabytes: float,
        remedy: str = "if it is meant to be so large, raise --data.max_gb",
    ) -> None:
        if not gigabytes > 0:
            raise InputError(f"data.max_gb is {gigabytes}; expected a number above 0.")
        self._path = path
        self._gigabytes = gigabytes
        self._remedy = remedy
        self.left = gigabytes * 1e9 if math.isfinite(gigabytes) else math.inf

    def take(self, size: int) -> None:
        """Set so many bytes aside, before they are made.

        Raises:
            InputError: There are fewer left.
        """
        if size > self.left:
            raise InputError(
                f"{self._path} unpacks to more than {self._gigabytes:g} GB, which is all that one "
                f"file may take; {self._remedy}."
            )
        self.left -= size
