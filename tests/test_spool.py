"""A spool gives back what was put in, wherever it lies."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.errors import InputError
from fedmer.spool import Spool
from fedmer.weights import FlatWeights, copy_weights

values = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=12)


def thing(number: int, size: int) -> dict[str, Any]:
    return {
        "weights": FlatWeights.of({"w": torch.empty(0)}),
        "state": [torch.full((size,), number)],
    }


@settings(max_examples=40, deadline=None)
@given(puts=values, limit=st.sampled_from([0, 100, 400, 10**9]), taken=st.integers(0, 5))
def test_a_spool_is_a_dictionary(puts: list[tuple[int, int]], limit: int, taken: int) -> None:
    spool, plain = Spool(limit), {}
    for number, (client, size) in enumerate(puts):
        spool[client] = thing(number, size)
        plain[client] = thing(number, size)
        assert spool.held <= limit
    if taken in plain:
        del plain[taken]
        del spool[taken]
    assert list(spool) == sorted(plain)
    assert len(spool) == len(plain)
    assert (taken in spool) == (taken in plain)
    for client, expected in plain.items():
        assert torch.equal(spool[client]["state"][0], expected["state"][0])


def test_what_somebody_still_reads_may_be_replaced() -> None:
    spool = Spool(limit=0)
    spool[1] = {"w": torch.zeros(3)}
    before = spool[1]["w"]
    spool[1] = {"w": torch.ones(3)}
    assert before.tolist() == [0, 0, 0]
    assert spool[1]["w"].tolist() == [1, 1, 1]
    before += 5
    spool[1]["w"] += 5
    assert spool[1]["w"].tolist() == [1, 1, 1]


def test_a_limit_below_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="expected 0 or more"):
        Spool(limit=-1)


def test_flat_weights_are_one_vector_and_keep_their_order() -> None:
    named = {"a": torch.ones(2, 2), "n": torch.tensor(3), "b": torch.zeros(1)}
    flat = FlatWeights.of(named)
    assert list(flat) == list(named)
    flat.vectors[torch.float32].fill_(7)
    assert flat["a"].tolist() == [[7, 7], [7, 7]]
    assert flat["b"].tolist() == [7]
    twin = flat.clone()
    flat["a"].zero_()
    assert twin["a"].sum() == 28
    copy_weights(flat, twin)
    assert flat["a"].sum() == 28
    assert not flat.fits({**named, "b": torch.zeros(2)})
