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


def face(
    smile: float = 0.5, x: float = 0.0, y: float = 0.0, height: int = 240, width: int = 320
) -> NDArray[np.uint8]:
    """A shaded drawing of a frontal face, ``(height, width, 3)``; enough for a face detector.

    Args:
        smile: How far the corners of the mouth are up, or down where negative.
        x: Pixels to the right of the middle.
        y: Pixels below the middle.
        height: Pixels.
        width: Pixels.
    """
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    u = (columns - width / 2 - x) / (0.30 * height)
    v = (rows - height / 2 - y) / (0.40 * height)

    def spot(
        u0: float, v0: float, wide: float, tall: float, sharp: float = 4
    ) -> NDArray[np.float64]:
        return np.clip((1 - ((u - u0) / wide) ** 2 - ((v - v0) / tall) ** 2) * sharp, 0, 1)

    picture = 90 + 20 * np.sin(columns / 37) + 10 * np.cos(rows / 29)
    head = spot(0, 0, 1, 1, 8)
    picture = picture * (1 - head) + (205 - 40 * u**2 - 20 * np.clip(v, 0, 1)) * head
    hair = spot(0, -0.15, 1.06, 1.01, 8) * np.clip((-v - 0.55) * 8, 0, 1)
    picture = picture * (1 - hair) + 40 * hair
    for side in (-1, 1):
        picture -= 45 * spot(side * 0.38, -0.18, 0.30, 0.16, 2)  # socket
        picture += 60 * spot(side * 0.38, -0.16, 0.17, 0.07)  # white
        picture -= 130 * spot(side * 0.38, -0.16, 0.075, 0.075)  # iris
        picture -= 90 * spot(side * 0.38, -0.36, 0.22, 0.05)  # brow
        picture -= 60 * spot(side * 0.1, 0.27, 0.05, 0.035)  # nostril
    picture += 25 * spot(0, 0.02, 0.07, 0.28, 2)  # nose
    curve = 0.55 + 0.12 * smile * (0.09 - u**2) / 0.09
    mouth = np.clip(1 - np.abs(v - curve) / 0.05, 0, 1) * np.clip((0.36 - np.abs(u)) * 10, 0, 1)
    grey = np.clip(picture - 90 * mouth, 0, 255)
    return np.stack([grey, 0.85 * grey, 0.75 * grey], axis=2).astype(np.uint8)
