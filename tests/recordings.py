"""Recordings that tests make: tones, noise and moving pictures, in any container."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

CODECS = {".wav": "pcm_s16le", ".flac": "flac", ".mp3": "libmp3lame", ".mp4": "aac", ".mkv": "aac"}


def tone(seconds: float, rate: int, hertz: float = 150.0, seed: int = 0) -> NDArray[np.float32]:
    """A voice-like sound: harmonics that swell three times a second, and a little noise."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    harmonics = sum(np.sin(2 * np.pi * hertz * k * time + k) / k for k in range(1, 12))
    swelling = 0.1 * (1 + np.sin(2 * np.pi * 3 * time)) * harmonics
    return (swelling + 0.01 * random.standard_normal(len(time))).astype(np.float32)


def record(
    path: Path,
    samples: NDArray[np.float32] | None = None,
    rate: int = 16_000,
    frames: Sequence[NDArray[np.uint8]] = (),
    per_second: int = 10,
) -> Path:
    """Write a recording.

    Args:
        path: Its ending chooses the container and the codec.
        samples: ``(n,)`` or ``(n, channels)`` sound, none for a film without.
        rate: Samples a second.
        frames: ``(height, width, 3)`` pictures.
        per_second: How many of them.
    """
    import av

    with av.open(str(path), "w") as container:
        if frames:
            height, width, _ = frames[0].shape
            video = container.add_stream("mpeg4", rate=per_second)
            video.width, video.height, video.pix_fmt = width, height, "yuv420p"
            video.bit_rate = 2_000_000
        if samples is not None:
            values = samples.reshape(len(samples), -1)
            layout = "mono" if values.shape[1] == 1 else "stereo"
            audio = container.add_stream(CODECS[path.suffix], rate=rate, layout=layout)
            whole = (np.clip(values, -1, 1) * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout=layout)
            frame.sample_rate, frame.pts = rate, 0
            for one in (frame, None):
                for packet in audio.encode(one):
                    container.mux(packet)
        for picture in frames:
            for packet in video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        if frames:
            for packet in video.encode(None):
                container.mux(packet)
    return path
