"""Pictures in another size, the same on every machine."""

import numpy as np
from numpy.typing import NDArray


def fitted(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.float32]:
    """The middle of a picture, in the proportions and the size that are asked for.

    Args:
        picture: ``(h, w, 3)``.
        height: Pixels.
        width: Pixels.

    Returns:
        ``(height, width, 3)`` in [0, 255]: means over areas where it shrinks, and interpolated
        between pixels where it grows.

    >>> fitted(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), 2, 1)[..., 0].tolist()
    [[10.5], [34.5]]
    """
    h, w, _ = picture.shape
    scale = min(h / height, w / width)
    tall, wide = max(1, round(height * scale)), max(1, round(width * scale))
    top, left = (h - tall) // 2, (w - wide) // 2
    cut = picture[top : top + tall, left : left + wide].astype(np.float32)
    across: NDArray[np.float32] = np.einsum("yxc,Xx->yXc", cut, _weights(wide, width))
    found: NDArray[np.float32] = np.einsum("yxc,Yy->Yxc", across, _weights(tall, height))
    return found


def _weights(old: int, new: int) -> NDArray[np.float32]:
    """``(new, old)`` weights of a tent that is as wide as the larger of the two pixels."""
    middles = (np.arange(new) + 0.5) * old / new - 0.5
    reach = max(1.0, old / new)
    if old >= new:
        low, high = middles + 0.5 - reach / 2, middles + 0.5 + reach / 2
        edges = np.arange(old)
        raw = np.minimum(high[:, None], edges + 1) - np.maximum(low[:, None], edges)
    else:
        near = np.clip(middles, 0, old - 1)
        raw = 1 - np.abs(near[:, None] - np.arange(old))
    raw = np.maximum(raw, 0)
    found: NDArray[np.float32] = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    return found
