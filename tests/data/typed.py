"""``fedmer data`` as it is typed."""

from collections.abc import Sequence

from fedmer.__main__ import main as fedmer


def main(words: Sequence[str]) -> int:
    """Run ``fedmer data WORDS``; returns the exit code."""
    return fedmer(["data", *words])
