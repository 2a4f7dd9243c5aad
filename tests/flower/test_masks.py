"""The masks of a masked sum: whole keys, all values alike, and nothing of Flower's own left."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

from flwr.client.mod.secure_aggregation import secaggplus_mod
from flwr.server.workflow.secure_aggregation import secaggplus_workflow

from fedmer.errors import InputError
from fedmer.flower import masks
from fedmer.flower.masks import harden, mask

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


def test_harden_replaces_both_places(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (secaggplus_mod, secaggplus_workflow):
        monkeypatch.setattr(place, "pseudo_rand_gen", lambda *arguments: [])
    harden()
    for place in (secaggplus_mod, secaggplus_workflow):
        assert place.pseudo_rand_gen is mask
    harden()
    assert secaggplus_mod.pseudo_rand_gen is mask


def test_flower_uses_what_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions that draw masks look the name up in the module that harden changes."""
    for place in (secaggplus_mod, secaggplus_workflow):
        used = {
            name
            for value in vars(place).values()
            for code in _codes(value, place.__name__)
            for name in code.co_names
        }
        assert "pseudo_rand_gen" in used, place.__name__


def test_another_flower_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_PLACES", (SimpleNamespace(),))
    with pytest.raises(InputError, match=r"use flwr 1\.41 for SecureSum"):
        harden()


def _codes(value: object, module: str) -> list:
    if getattr(value, "__module__", None) != module:
        return []
    members = [value, *vars(value).values()] if isinstance(value, type) else [value]
    return [member.__code__ for member in members if hasattr(member, "__code__")]
