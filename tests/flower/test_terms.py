"""What all nodes of a masked sum receive: its weights as text, and its digest."""

import json
import math

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.errors import InputError
from fedmer.flower.terms import digest_of, read_weights, written


@given(st.dictionaries(st.integers(0, 2**64), st.floats(0, 1e300), min_size=1))
def test_weights_come_back(weights: dict[int, float]) -> None:
    if sum(weights.values()) > 0:
        assert read_weights(written(weights)) == weights


@given(
    st.text(max_size=20)
    | st.lists(st.lists(st.integers() | st.floats() | st.text(max_size=2), max_size=3)).map(
        json.dumps
    )
)
@settings(max_examples=200)
def test_weights_of_garbage_are_refused(text: str) -> None:
    try:
        found = read_weights(text)
    except InputError:
        return
    assert all(0 <= weight < math.inf for weight in found.values())


def test_a_digest_is_of_all_but_what_is_for_one_node() -> None:
    def message(
        client: int = 0, round: int = 0, lr: str = "0.1", memory: bytes = b""
    ) -> RecordDict:
        return RecordDict(
            {
                "round": ConfigRecord({"round": round, "client": client, "keep": True}),
                "run": ConfigRecord({"settings": lr}),
                "memory": ConfigRecord({"bytes": memory}),
            }
        )

    assert digest_of(message()) == digest_of(message(client=3, memory=b"x"))
    assert len({digest_of(message()), digest_of(message(round=1)), digest_of(message(lr="0"))}) == 3
