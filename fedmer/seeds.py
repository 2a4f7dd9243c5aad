"""Randomness as a pure function of what it is for."""

import hashlib

import numpy as np


def derive(seed: int, *purpose: int | str) -> int:
    """A 63-bit seed for one purpose, such as ``derive(seed, "dropout", client, epoch)``.

    Every random choice in fedmer takes its seed from here and none from a global generator, so
    a result depends neither on the order in which clients run nor on where a run was interrupted.

    >>> derive(0, "order", 3) == derive(0, "order", 3)
    True
    >>> derive(0, "order", 3) == derive(0, "order", 4)
    False
    """
    words = "\x1f".join(repr(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *purpose: int | str) -> np.random.Generator:
    """A NumPy generator seeded by :func:`derive`."""
    return np.random.default_rng(derive(seed, *purpose))
