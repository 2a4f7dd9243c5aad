"""The masks of a masked sum: whole keys, all values alike, and nothing of Flower's own left."""

from importlib import import_module
from types import FunctionType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

from fedmer.errors import InputError
from fedmer.flower.masks import CLIENT, SERVER, harden, mask

# By name: the packages export functions that are called as their modules are.
PLACES = [import_module(CLIENT), import_module(SERVER)]
WHOLE = 2**32
SHAPES = st.lists(st.lists(st.integers(0, 4), max_size=3).map(tuple), max_size=4)


@given(st.binary(min_size=1, max_size=64), st.integers(0, 255), st.data())
def test_every_byte_of_the_seed_counts(seed: bytes, change: int, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(seed) - 1))
    other = seed[:place] + bytes([change]) + seed[place + 1 :]
    (one,) = mask(seed, WHOLE, [(8,)])
    (two,) = mask(other, WHOLE, [(8,)])
    assert np.array_equal(one, two) == (seed == other)
    (longer,) = mask(seed + b"\0", WHOLE, [(8,)])
    assert not np.array_equal(one, longer)


@given(st.binary(max_size=40), st.integers(0, 32), SHAPES)
def test_masks_have_the_shapes_and_stay_below_the_modulus(
    seed: bytes, bits: int, shapes: list[tuple[int, ...]]
) -> None:
    found = mask(seed, 2**bits, shapes)
    assert [part.shape for part in found] == shapes
    for part in found:
        assert part.dtype == np.int64
        assert ((part >= 0) & (part < 2**bits)).all()
    again = mask(seed, 2**bits, shapes)
    assert all(np.array_equal(one, two) for one, two in zip(found, again, strict=True))


def test_arrays_of_one_key_are_parts_of_one_stream() -> None:
    one, two = mask(b"key", WHOLE, [(5,), (3, 2)])
    (whole,) = mask(b"key", WHOLE, [(11,)])
    assert np.array_equal(np.concatenate([one, two.ravel()]), whole)


@pytest.mark.parametrize("bits", [8, 20, 32])
def test_all_values_are_as_likely(bits: int) -> None:
    count = 1_000_000
    (drawn,) = mask(b"a key of some length", 2**bits, [(count,)])
    for low in range(0, bits, 4):
        seen = np.bincount((drawn >> low) & 15, minlength=16)
        expected = count / 16
        # 15 degrees of freedom: above 60 once in four million draws.
        assert ((seen - expected) ** 2 / expected).sum() < 60
    # Neighbours are not alike, either.
    bit = (drawn[:-1] ^ drawn[1:]) & 1
    assert abs(bit.mean() - 0.5) < 0.005


@given(st.lists(st.binary(min_size=4, max_size=32), min_size=2, max_size=6, unique=True))
def test_masks_of_pairs_cancel(keys: list[bytes]) -> None:
    """As in the protocol: of each pair one adds the mask and the other takes it off."""
    vectors = [np.arange(7, dtype=np.int64) * (i + 1) for i in range(len(keys))]
    sent = []
    for i, vector in enumerate(vectors):
        total = vector.copy()
        for j in range(len(keys)):
            if i != j:
                shared = min(keys[i], keys[j]) + max(keys[i], keys[j])
                (own,) = mask(shared, WHOLE, [(7,)])
                total += own if i < j else -own
        sent.append(total % WHOLE)
    assert np.array_equal(sum(sent) % WHOLE, sum(vectors) % WHOLE)
    assert not np.array_equal(sent[0], vectors[0])


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_masks_of_other_terms_are_others(one: bytes, other: bytes) -> None:
    (first,) = mask(b"key", WHOLE, [(8,)], one)
    (second,) = mask(b"key", WHOLE, [(8,)], other)
    assert np.array_equal(first, second) == (one == other)


@pytest.mark.parametrize("end", [CLIENT, SERVER])
def test_harden_replaces_what_flower_draws(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = import_module(end)
    monkeypatch.setattr(place, "pseudo_rand_gen", lambda *arguments: [])
    for terms in (b"these", b"those"):
        harden(end, terms)
        (found,) = place.pseudo_rand_gen(b"key", WHOLE, [(8,)])
        assert np.array_equal(found, mask(b"key", WHOLE, [(8,)], terms)[0])


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__.rpartition(".")[2])
def test_flower_looks_the_name_up_where_it_was_replaced(place: object) -> None:
    values = list(vars(place).values())
    members = [m for v in values if isinstance(v, type) for m in vars(v).values()]
    codes = [v.__code__ for v in values + members if isinstance(v, FunctionType)]
    own = [code for code in codes if code.co_filename == place.__file__]  # type: ignore[attr-defined]
    assert any("pseudo_rand_gen" in code.co_names for code in own)


def test_another_flower_is_refused() -> None:
    with pytest.raises(InputError, match=r"use flwr 1\.41 for SecureSum"):
        harden("fedmer.errors")
