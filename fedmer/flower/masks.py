"""The numbers that hide a vector in a masked sum.

Flower 1.41 folds a key of 256 bits into 32 and draws masks from NumPy's Mersenne Twister. A server
that has a client's masked vector can try all four thousand million seeds and see which leaves a
vector in range. :func:`harden` puts AES-256 in counter mode in its place, on both ends, and leaves
the protocol around it as it is. The stream depends on the terms of the sum as well, so that masks
of nodes that were told different terms do not cancel.
"""

import hashlib
from functools import partial
from importlib import import_module
from math import prod

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

from fedmer.errors import InputError

CLIENT = "flwr.client.mod.secure_aggregation.secaggplus_mod"
SERVER = "flwr.server.workflow.secure_aggregation.secaggplus_workflow"
"""Where Flower keeps the two ends of its protocol."""
_NAME = "pseudo_rand_gen"


def mask(
    seed: bytes, modulus: int, shapes: list[tuple[int, ...]], terms: bytes = b""
) -> list[NDArray[np.int64]]:
    """Integers in ``[0, modulus)``, one array a shape, that nobody tells from random without seed.

    Args:
        seed: A key, of any length; all of it counts.
        modulus: A power of two, at most 2**32: cutting off bits leaves all values as likely.
        shapes: Of the arrays.
        terms: What the sum is about, of any length; all of it counts.

    >>> [part.shape for part in mask(b"key", 2**32, [(2,), ()])]
    [(2,), ()]
    """
    agreed = hashlib.sha256(terms).digest()
    key = hashlib.sha256(b"fedmer mask" + agreed + seed).digest()
    # A key makes one stream and no more, so the counter may start at nought.
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    arrays = []
    for shape in shapes:
        words = np.frombuffer(stream.update(bytes(4 * prod(shape))), dtype="<u4")
        arrays.append((words.astype(np.int64) & (modulus - 1)).reshape(shape))
    return arrays


def harden(end: str, terms: bytes = b"") -> None:
    """Let one end of Flower's protocol draw its masks from :func:`mask`, in this process.

    Args:
        end: :data:`CLIENT` or :data:`SERVER`.
        terms: Of the sum that comes next.

    Raises:
        InputError: This version of Flower keeps them elsewhere.
    """
    place = import_module(end)
    if not hasattr(place, _NAME):
        raise InputError(
            "This version of Flower draws the masks of its secure aggregation elsewhere than "
            "1.41 does, so fedmer cannot make them strong; use flwr 1.41 for SecureSum."
        )
    setattr(place, _NAME, partial(mask, terms=terms))
