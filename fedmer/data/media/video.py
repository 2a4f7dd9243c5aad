"""Pictures of a recording between two times."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmer.data.media.container import opened, seek
from fedmer.errors import InputError

_SAME = 1e-4
"""Seconds that a frame's time may be rounded by."""


def read(
    path: Path, per_second: float, start: float = 0.0, end: float | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Frames at ``start``, ``start + 1 / per_second``, ... before ``end``, one at a time.

    Each is the first frame at or after its time. Where there is none from start to end, it is the
    last one before, which is on the screen then.

    Args:
        path: A recording of any kind that FFmpeg reads.
        per_second: How many; a recording with fewer gives each of its frames once.
        start: Seconds from its beginning.
        end: Seconds from its beginning; None is its end.

    Yields:
        ``(height, width, 3)`` red, green and blue.

    Raises:
        InputError: It cannot be read, or has no picture between the two times.
    """
    with opened(path) as container:
        # The picture on a record's cover counts as a video stream too.
        streams = [s for s in container.streams.video if "ATTACHED_PIC" not in str(s.disposition)]
        if not streams:
            raise InputError(f"{path.name} has no picture")
        origin = seek(container, streams[0], start)
        due, found, before, time = start, False, None, 0.0
        for frame in container.decode(streams[0]):
            time = due if frame.pts is None else frame.time - origin
            if end is not None and time >= end:
                break
            if time < due - _SAME:
                before = frame
                continue
            yield frame.to_ndarray(format="rgb24")
            found = True
            due = start + (math.floor((time - start + _SAME) * per_second) + 1) / per_second
        # Without an end, time is that of the last frame, which stays on the screen for a while.
        rate = streams[0].average_rate
        shown = time + (float(1 / rate) if rate else 0.0)
        if not found and before is not None and start < shown:
            found = True
            yield before.to_ndarray(format="rgb24")
        if not found:
            raise InputError(f"{path.name} has no picture after {start:g} s")
