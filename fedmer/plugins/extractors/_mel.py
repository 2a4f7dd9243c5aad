"""Power in bands of the mel scale."""

import functools

import numpy as np
from numpy.typing import NDArray

_LINEAR, _BREAK, _LOG = 200 / 3, 1000.0, np.log(6.4) / 27
"""Hertz a mel below 1 kHz; where it ends; growth of the logarithm a mel above it."""


def mel_spectrogram(
    samples: NDArray[np.float32], rate: int, window: int, hop: int, bands: int
) -> NDArray[np.float32]:
    """Power in mel bands, of Hann windows whose middles are ``hop`` samples apart.

    The scale is Slaney's (Auditory Toolbox, 1998): linear below 1 kHz, logarithmic above. Bands are
    triangles of equal area.

    Args:
        samples: ``(n,)``.
        rate: Samples a second.
        window: Samples of a window.
        hop: Samples from one to the next.
        bands: How many, from 0 to ``rate / 2``.

    Returns:
        ``(1 + n // hop, bands)``.
    """
    padded = np.pad(samples, window // 2)
    pieces = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(window) / window)
    power = np.abs(np.fft.rfft(pieces * hann, axis=1)) ** 2
    return (power @ _filters(rate, window, bands).T).astype(np.float32)


@functools.cache
def _filters(rate: int, window: int, bands: int) -> NDArray[np.float64]:
    """``(bands, window // 2 + 1)`` weights of frequencies."""
    edges = _hertz(np.linspace(0, _mel(rate / 2), bands + 2))
    frequencies = np.arange(window // 2 + 1) * rate / window
    rising = (frequencies - edges[:-2, None]) / np.diff(edges)[:-1, None]
    falling = (edges[2:, None] - frequencies) / np.diff(edges)[1:, None]
    area = 2 / (edges[2:] - edges[:-2])
    found: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling)) * area[:, None]
    return found


def _mel(hertz: float) -> float:
    if hertz < _BREAK:
        return hertz / _LINEAR
    return float(_BREAK / _LINEAR + np.log(hertz / _BREAK) / _LOG)


def _hertz(mel: NDArray[np.float64]) -> NDArray[np.float64]:
    turning = _BREAK / _LINEAR
    return np.where(
        mel < turning, mel * _LINEAR, _BREAK * np.exp(_LOG * (np.maximum(mel, turning) - turning))
    )
