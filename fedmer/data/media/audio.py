"""Samples of a recording between two times, exact to the sample of the recording's own rate."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.media.container import BEYOND, opened, pyav, seek
from fedmer.errors import InputError

_RATES = (4000, 384_000)
"""Samples a second that sound is recorded at; a header that says others is damaged."""


def read(
    path: Path, rate: int, start: float = 0.0, end: float | None = None
) -> NDArray[np.float32]:
    """Sound of one channel, the mean of the recording's.

    The cut is made at the recording's own rate, at the samples nearest to ``start`` and ``end``;
    what is cut out is resampled then, so that nothing outside of it has an influence.

    Args:
        path: A recording of any kind that FFmpeg reads: wav, flac, mp3, mp4, ...
        rate: Samples a second to give back.
        start: Seconds from its beginning.
        end: Seconds from its beginning; None is its end.

    Returns:
        Samples in [-1, 1].

    Raises:
        InputError: It cannot be read, has no sound, or ends before ``end``.
    """
    with opened(path) as container:
        stream = next(iter(container.streams.audio), None)
        if stream is None:
            raise InputError(f"{path.name} has no sound")
        recorded = int(stream.rate or 0)
        if not _RATES[0] <= recorded <= _RATES[1]:
            raise InputError(
                f"{path.name} claims {recorded} samples a second; expected {_RATES[0]} to "
                f"{_RATES[1]}"
            )
        first = round(start * recorded)
        last = None if end is None else round(end * recorded)
        pieces, seen = [], 0
        for place, samples in _blocks(container, stream, recorded, start):
            seen = place + len(samples)
            low, high = max(first - place, 0), len(samples) if last is None else last - place
            if low < high and low < len(samples):
                pieces.append(samples[low:high])
            if last is not None and seen >= last:
                break
    _check_length(path, recorded, seen, first, last)
    return _resampled(np.concatenate(pieces), recorded, rate)


def _blocks(
    container: Any, stream: Any, recorded: int, start: float
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Place of the first sample in the recording, and samples, from before ``start`` on."""
    origin = seek(container, stream, start)
    following = 0
    for frame in container.decode(stream):
        place = following if frame.pts is None else round((frame.time - origin) * recorded)
        # Times in some containers are rounded to milliseconds; what follows on has no gap.
        if abs(place - following) <= recorded // 500:
            place = following
        samples = _mono(frame)
        following = place + len(samples)
        yield place, samples


def _mono(frame: Any) -> NDArray[np.float32]:
    """``(n,)`` mean over channels, of samples of any kind."""
    values = frame.to_ndarray()
    if values.dtype.kind == "u":
        values = (values.astype(np.float32) - 128) / 128
    elif values.dtype.kind == "i":
        values = values.astype(np.float32) / -float(np.iinfo(values.dtype).min)
    channels = frame.layout.nb_channels
    by_channel = values if frame.format.is_planar else values.reshape(-1, channels).T
    return np.asarray(by_channel.mean(axis=0), dtype=np.float32)


def _check_length(path: Path, recorded: int, seen: int, first: int, last: int | None) -> None:
    if first >= seen:
        raise InputError(f"{path.name} has no sound after {first / recorded:g} s")
    if last is not None and last > seen + BEYOND * recorded:
        raise InputError(
            f"{path.name} is {seen / recorded:.2f} s long, so nothing ends at {last / recorded:g} s"
        )


def _resampled(samples: NDArray[np.float32], recorded: int, rate: int) -> NDArray[np.float32]:
    if recorded == rate:
        return samples
    av = pyav()
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = recorded
    resampler = av.AudioResampler(format="flt", layout="mono", rate=rate)
    pieces = [piece.to_ndarray()[0] for one in (frame, None) for piece in resampler.resample(one)]
    found = np.concatenate(pieces) if pieces else np.empty(0, dtype=np.float32)
    return np.asarray(found, dtype=np.float32)
