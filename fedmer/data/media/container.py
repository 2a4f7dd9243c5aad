"""Opening a recording, with whatever PyAV says against it as a sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmer.errors import InputError

BEFORE = 1.0
"""Seconds that are decoded before a start, since decoders need some to settle."""

BEYOND = 0.25
"""Seconds that an end may lie behind the end of a recording."""

_INEXACT = ("mp3", "matroska,webm")
"""Formats in which a jump lands at a guessed or rounded time; they are read from their start."""


def pyav() -> Any:
    """The module ``av``.

    Raises:
        InputError: It is not installed.
    """
    try:
        import av
    except ImportError:
        raise InputError(
            "reading recordings needs PyAV; install it with pip install 'fedmer[extract]'."
        ) from None
    return av


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A recording, open for reading.

    Raises:
        InputError: It is none, or it is damaged.
    """
    av = pyav()
    try:
        with av.open(str(path), metadata_errors="ignore") as container:
            yield container
    # PyAV raises ValueError and IndexError of Python too, where a file promises what it lacks.
    except (av.FFmpegError, ValueError, IndexError, OSError) as error:
        if isinstance(error, InputError):
            raise
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name} cannot be read as a recording ({why})") from None


def seek(container: Any, stream: Any, start: float) -> float:
    """Go to a little before ``start``.

    Args:
        container: An open recording.
        stream: The stream that is going to be decoded.
        start: Seconds from the beginning of the recording.

    Returns:
        The time of the recording's beginning on the clock of its frames, in seconds.
    """
    origin = (container.start_time or 0) / pyav().time_base
    if start > BEFORE and container.format.name not in _INEXACT:
        goal = origin + start - BEFORE
        container.seek(int(goal / stream.time_base), stream=stream, backward=True)
    return float(origin)
