"""The numbers that hide a vector in a masked sum.

Flower 1.41 folds a key of 256 bits into 32 and draws masks from NumPy's Mersenne Twister. A server
that has a client's masked vector can try all four thousand million seeds and see which leaves a
vector in range. :func:`harden` puts AES-256 in counter mode in its place, on both ends, and leaves
the protocol around it as it is.
"""

import hashlib
from importlib import import_module
from math import prod

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedmer.errors import InputError

_PLACES = (
    "flwr.client.mod.secure_aggregation.secaggplus_mod",
    "flwr.server.workflow.secure_aggregation.secaggplus_workflow",
)
_NAME = "pseudo_rand_gen"


def mask(seed: bytes, modulus: int, shapes: list[tuple[int, ...]]) -> list[NDArray[np.int64]]:
    """Integers in ``[0, modulus)``, one array a shape, that nobody tells from random without seed.

    Args:
        seed: A key, of any length; all of it counts.
        modulus: A power of two, at most 2**32: cutting off bits leaves all values as likely.
        shapes: Of the arrays.

    >>> [part.shape for part in mask(b"key", 2**32, [(2,), ()])]
    [(2,), ()]
    """
    key = hashlib.sha256(b"fedmer mask" + seed).digest()
    # A key makes one stream and no more, so the counter may start at nought.
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    arrays = []
    for shape in shapes:
        words = np.frombuffer(stream.update(bytes(4 * prod(shape))), dtype="<u4")
        arrays.append((words.astype(np.int64) & (modulus - 1)).reshape(shape))
    return arrays


def harden() -> None:
    """Let Flower's protocol draw its masks from :func:`mask`, in this process.

    Raises:
        InputError: This version of Flower keeps them elsewhere.
    """
    for name in _PLACES:
        place = import_module(name)
        if not hasattr(place, _NAME):
            raise InputError(
                "This version of Flower draws the masks of its secure aggregation elsewhere than "
                "1.41 does, so fedmer cannot make them strong; use flwr 1.41 for SecureSum."
            )
        setattr(place, _NAME, mask)
