"""Messages as Flower's records: what is put comes back bit for bit, and nothing else comes in."""

import io
import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("flwr")

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedmer.flower import wire
from fedmer.flower.records import portable, put_failure, size, take_failure
from fedmer.flower.wire import RefusedError, put, put_answer, take, take_answer
from fedmer.messages import Broadcast, Summary, Update
from fedmer.weights import FlatWeights, Layout

KINDS = (torch.float32, torch.float64, torch.int64, torch.int32, torch.int8, torch.bool)
NAMES = st.text(min_size=1, max_size=8)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Any finite tensor of a type that crosses, scalars and empty ones among them."""
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    kind = draw(st.sampled_from(KINDS))
    count = math.prod(shape)
    if kind is torch.bool:
        numbers = draw(st.lists(st.booleans(), min_size=count, max_size=count))
    elif kind.is_floating_point:
        width = 8 * kind.itemsize
        finite = st.floats(allow_nan=False, allow_infinity=False, width=width)
        numbers = draw(st.lists(finite, min_size=count, max_size=count))
    else:
        top = 2 ** (8 * kind.itemsize - 1)
        numbers = draw(st.lists(st.integers(-top, top - 1), min_size=count, max_size=count))
    return torch.tensor(numbers, dtype=kind).reshape(shape)


def dictionaries() -> st.SearchStrategy[dict[str, Tensor]]:
    return st.dictionaries(NAMES, tensors(), max_size=5)


def bits(tensor: Tensor) -> tuple[Any, ...]:
    """Type, shape and bytes: unlike ``==`` they tell -0.0 from 0.0."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return list(one) == list(other) and all(bits(one[name]) == bits(other[name]) for name in one)


def written(named: Mapping[str, Tensor]) -> RecordDict:
    content = RecordDict()
    put(content, "w", named)
    return content


def npy(numbers: np.ndarray[Any, Any], allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, numbers, allow_pickle=allow_pickle)
    return buffer.getvalue()


def with_array(data: bytes, parts: list[Any], key: str = "float32") -> RecordDict:
    """A message whose payload and layout are whatever somebody makes them."""
    array = Array(dtype="float32", shape=(2,), stype="numpy.ndarray", data=data)
    text = ConfigRecord({"parts": json.dumps(parts)})
    return RecordDict({"w": ArrayRecord({key: array}), "w.layout": text})


TWO = [["a", [2], "float32"]]
GOOD = {"a": torch.ones(2, 3), "b": torch.zeros(3), "n": torch.tensor(7)}


@given(dictionaries())
def test_any_dictionary_comes_back_bit_for_bit(named: dict[str, Tensor]) -> None:
    found = take(written(named), "w", Layout.of(named))
    assert same(found, named)
    assert same(take(written(named), "w"), named)
    assert same(take(written(FlatWeights.of(named)), "w"), named)


@given(dictionaries())
def test_a_portable_copy_is_equal_and_can_be_pickled(named: dict[str, Tensor]) -> None:
    content = written(named)
    content["more"] = ConfigRecord({"n": 1, "names": ["x"], "raw": b"\0\1"})
    count = size(content)
    copy = pickle.loads(pickle.dumps(portable(content)))
    assert same(take(copy, "w"), named)
    assert dict(copy.config_records["more"]) == dict(content.config_records["more"])
    assert size(copy) == count
    assert size(content) == count


def test_a_type_that_does_not_cross_is_named() -> None:
    with pytest.raises(ValueError, match=r"w holds torch\.bfloat16, which does not cross"):
        written({"a": torch.ones(2, dtype=torch.bfloat16)})


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ({**GOOD, "b": torch.tensor([0, math.nan, 0])}, "hold NaN or infinity"),
        ({**GOOD, "b": torch.tensor([0, math.inf, 0])}, "hold NaN or infinity"),
        ({**GOOD, "a": torch.full((2, 3), -math.inf)}, "hold NaN or infinity"),
        ({"a": GOOD["a"], "b": GOOD["b"]}, "another network: 1 names differ, first 'n'"),
        ({**GOOD, "c": torch.ones(1)}, "another network: 1 names differ, first 'c'"),
        ({**GOOD, "a": torch.ones(3, 2)}, r"have 'a' of shape \(3, 2\), expected \(2, 3\)"),
        ({**GOOD, "n": torch.tensor([7])}, r"have 'n' of shape \(1,\), expected \(\)"),
        ({**GOOD, "a": GOOD["a"].double()}, r"have 'a' of type torch\.float64, expected"),
        (dict(reversed(GOOD.items())), "are in another order than expected"),
    ],
)
def test_what_was_not_expected_is_refused(sent: dict[str, Tensor], said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        take(written(sent), "w", Layout.of(GOOD))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (with_array(npy(np.ones(2, np.float32)), [["a", [3], "float32"]]), r"shape \(2,\), exp"),
        (with_array(npy(np.ones(2000, np.float32)), TWO), "8128 bytes of float32, expected 8"),
        (with_array(npy(np.ones((1, 2), np.float32)), TWO), r"shape \(1, 2\), expected float32"),
        (with_array(npy(np.ones(2, np.float64)), TWO), "are float64 of shape"),
        (with_array(npy(np.ones(2, ">f4")), TWO), "are >f4 of shape"),
        (with_array(npy(np.array([{}, {}]), allow_pickle=True), TWO), "are object of shape"),
        (with_array(npy(np.ones(2, np.float32))[:-3], TWO), "are 5 bytes of float32, expected 8"),
        (with_array(npy(np.ones(2, np.float32))[:20], TWO), "cannot be decoded"),
        (with_array(b"", TWO), "cannot be decoded"),
        (with_array(b"garbage", TWO), "cannot be decoded"),
        (with_array(pickle.dumps([1.0, 2.0]), TWO), "cannot be decoded"),
        (with_array(npy(np.ones(2, np.float32)), TWO, key="float64"), r"of types \['float64'\]"),
        (with_array(npy(np.ones(2, np.float32)), TWO + TWO), "cannot be read"),
        (with_array(b"", [["a", [-2], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [2], "float16"]]), "cannot be read"),
        (with_array(b"", [["a", [2], ["float32"]]]), "cannot be read"),
        (with_array(b"", [[3, [2], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", None, "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [math.inf], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [1.5], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [True], "float32"]]), "cannot be read"),
        (with_array(b"", ["abc"]), "cannot be read"),
        (with_array(b"", [1]), "cannot be read"),
        (with_array(b"", [["a", [2**40, 2**40], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [2**63], "float32"]]), "cannot be read"),
        (with_array(b"", [["a", [2**62, 4, 0], "float32"]]), "cannot be read"),
        (with_array(b"", [["a" * 100, [1], "float32"]] * 20_000), "cannot be read"),
        (with_array(b"", [["a", [1] * 100, "float32"]]), "cannot be read"),
        (RecordDict(), r"missing or cannot be read \(KeyError\)"),
        (RecordDict({"w": ArrayRecord({})}), "missing or cannot be read"),
        (RecordDict({"w.layout": ConfigRecord({"parts": "[]"})}), "its w are missing$"),
        (RecordDict({"w": ArrayRecord({}), "w.layout": ConfigRecord({})}), "missing or cannot"),
        (RecordDict({"w": ConfigRecord({}), "w.layout": ConfigRecord({})}), "missing or cannot"),
    ],
)
def test_a_message_that_lies_is_refused(content: RecordDict, said: str) -> None:
    with pytest.raises(RefusedError, match=said):
        take(content, "w")


@pytest.mark.parametrize(
    "text", ["", "{", "nonsense", "null", "5", '{"a": 1}', "[" * 100_000, "[[[]]]", "1" * 10_000]
)
def test_a_layout_of_garbage_is_refused(text: str) -> None:
    content = written(GOOD)
    content["w.layout"] = ConfigRecord({"parts": text})
    with pytest.raises(RefusedError, match="missing or cannot be read"):
        take(content, "w")


def test_an_archive_or_a_huge_header_instead_of_an_array_is_refused() -> None:
    archive = io.BytesIO()
    np.savez(archive, np.ones(2, np.float32))
    plain = npy(np.ones(2, np.float32))
    # The same length, and a shape for which no machine has the memory.
    huge = plain.replace(b"(2,), }" + b" " * 14, b"(1%s,), }" % (b"0" * 14))
    assert len(huge) == len(plain)
    assert huge != plain
    for data in (archive.getvalue(), archive.getvalue()[:100], b"PK\x03\x04", huge):
        with pytest.raises(RefusedError):
            take(with_array(data, TWO), "w")


def test_a_truth_value_is_zero_or_one() -> None:
    content = written({"a": torch.tensor([True, False])})
    assert same(take(content, "w"), {"a": torch.tensor([True, False])})
    payload = npy(np.array([True, False]))[:-1] + b"\x02"
    with pytest.raises(RefusedError, match="neither true nor false"):
        take(with_array(payload, [["a", [2], "bool"]], key="bool"), "w")


SUMMARY = Summary(3, 12, 0.5, 4, {"p": torch.ones(2, 2)})


@given(
    dictionaries(),
    dictionaries(),
    st.floats(-1e38, 1e38),
    st.integers(1, wire.MOST_EXAMPLES),
    st.integers(1, wire.MOST_EXAMPLES),
    st.booleans(),
)
@settings(max_examples=50)
def test_an_answer_comes_back(
    own: dict[str, Tensor],
    weights: dict[str, Tensor],
    loss: float,
    steps: int,
    examples: int,
    sends: bool,
) -> None:
    summary = Summary(3, examples, loss, steps, own)
    content = RecordDict()
    put_answer(content, summary, Update(3, weights) if sends else None)
    found, update = take_answer(content, 3, Layout.of(own), Layout.of(weights))
    assert (found.client, found.examples) == (3, examples)
    assert (found.train_loss, found.steps) == (loss, steps)
    assert same(found.tensors, own)
    assert (update is None) == (not sends)
    if update is not None:
        assert update.client == 3
        assert same(update.weights, weights)


@pytest.mark.parametrize("round", [0, 7])
@pytest.mark.parametrize("weights", [None, GOOD])
def test_a_broadcast_comes_back(round: int, weights: dict[str, Tensor] | None) -> None:
    content = RecordDict()
    wire.put_broadcast(content, Broadcast(round, weights, {"p": torch.ones(2)}))
    found = wire.take_broadcast(content, round, Layout.of(GOOD))
    assert found.round == round
    assert (found.weights is None) == (weights is None)
    assert found.weights is None or same(found.weights, GOOD)
    assert same(found.tensors, {"p": torch.ones(2)})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"examples": 0}, "claims 0 labelled utterances"),
        ({"examples": wire.MOST_EXAMPLES + 1}, "claims 1000000000001 labelled utterances"),
        ({"examples": True}, "claims True labelled utterances"),
        ({"examples": 3.0}, r"claims 3\.0 labelled utterances"),
        ({"examples": "3"}, "claims 3 labelled utterances"),
        ({"train_loss": math.nan}, "claims a mean loss of nan"),
        ({"train_loss": -math.inf}, "claims a mean loss of -inf"),
        ({"train_loss": 1e39}, "claims a mean loss of"),
        ({"train_loss": 1}, "claims a mean loss of 1"),
        ({"train_loss": "0.5"}, "claims a mean loss of 0.5"),
        ({"steps": 0}, "claims 0 steps"),
        ({"steps": 3.0}, "claims 3.0 steps"),
        ({"steps": 10**15}, "claims 1000000000000000 steps, of at most 1000000000000"),
    ],
)
def test_an_impossible_summary_is_refused(changes: dict[str, Any], said: str) -> None:
    content = RecordDict()
    put_answer(content, SUMMARY, None)
    content["summary"] = ConfigRecord(dict(content.config_records["summary"]) | changes)
    with pytest.raises(RefusedError, match=said):
        take_answer(content, 3)


@pytest.mark.parametrize("name", ["examples", "train_loss", "steps"])
def test_a_summary_that_lacks_a_number_is_refused(name: str) -> None:
    content = RecordDict()
    put_answer(content, SUMMARY, None)
    del content.config_records["summary"][name]
    with pytest.raises(RefusedError, match="summary is missing or cannot be read"):
        take_answer(content, 3)


def answer_of(loss: float, steps: int, examples: Any, counts: list[int]) -> RecordDict:
    """What a client sends that claims all this."""
    tensors = {"prototypes.fused": torch.ones(len(counts), 2)}
    tensors["counts.fused"] = torch.tensor(counts, dtype=torch.int64)
    content = RecordDict()
    put_answer(content, Summary(0, 1, loss, steps, tensors), None)
    content.config_records["summary"]["examples"] = examples
    return content


CLAIMS = st.integers(-3, 40) | st.integers(-(2**63), 2**63 - 1)


@given(
    st.floats(),
    CLAIMS,
    CLAIMS,
    st.lists(CLAIMS, min_size=1, max_size=4),
    st.integers(1, 30),
    st.integers(1, 3),
)
@settings(max_examples=300)
def test_what_a_node_claims_is_within_what_it_described(
    loss: float, steps: int, examples: int, counts: list[int], turns: int, epochs: int
) -> None:
    content = answer_of(loss, steps, examples, counts)
    honest = (
        0 < examples <= turns
        and all(count >= 0 for count in counts)
        and sum(counts) <= turns
        and abs(loss) <= 1e38
        and 0 < steps <= epochs * turns
    )
    if honest:
        found, _ = take_answer(content, 0, most=turns, most_steps=epochs * turns)
        assert found.examples == examples
    else:
        with pytest.raises(RefusedError) as refused:
            take_answer(content, 0, most=turns, most_steps=epochs * turns)
        assert len(str(refused.value)) < 400


def test_a_summary_that_is_missing_is_refused() -> None:
    with pytest.raises(RefusedError, match="summary is missing"):
        take_answer(RecordDict(), 3)
    content = RecordDict()
    put_answer(content, SUMMARY, None)
    del content["summary.tensors"]
    with pytest.raises(RefusedError, match=r"its summary\.tensors are missing"):
        take_answer(content, 3)


def test_a_failure_comes_back_and_is_cut() -> None:
    content = RecordDict()
    assert take_failure(content) is None
    put_failure(content, "it broke" + "x" * 5000)
    assert take_failure(content) == ("it broke" + "x" * 5000)[:2000]
    put_failure(content, "\x1b[2Jgone")
    assert "\x1b" not in str(take_failure(content))
    content["failure"] = ConfigRecord({})
    assert take_failure(content) == "it failed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=12,
)
ENTRY = st.tuples(
    st.sampled_from(["a", "b", "n", "", 3]),
    st.lists(st.integers(-1, 2**66) | st.integers(0, 3) | JSON, max_size=3) | JSON,
    st.sampled_from(["float32", "int64", "bool", "object", None]),
)


@given(st.data())
@settings(max_examples=400)
def test_random_damage_is_refused_or_harmless(data: st.DataObject) -> None:
    """Whatever comes in, it is either the right thing or a RefusedError, and nothing else."""
    content = written(GOOD)
    arrays = content.array_records["w"]
    how = data.draw(st.sampled_from(["bytes", "cut", "replace", "layout", "entries", "types"]))
    key = data.draw(st.sampled_from(sorted(arrays)))
    payload = bytes(arrays[key].data)
    if how == "bytes":
        raw = bytearray(payload)
        for place, value in data.draw(
            st.lists(st.tuples(st.integers(0, len(raw) - 1), st.integers(0, 255)), min_size=1)
        ):
            raw[place] = value
        payload = bytes(raw)
    elif how == "cut":
        payload = payload[: data.draw(st.integers(0, len(payload)))]
    elif how == "replace":
        magic = data.draw(st.sampled_from([b"", b"PK\x03\x04", b"\x93NUMPY", b"\x80\x04"]))
        payload = magic + data.draw(st.binary(max_size=200))
    arrays[key] = Array(dtype=key, shape=(0,), stype="numpy.ndarray", data=payload)
    if how == "types":
        arrays[key] = Array(
            dtype=data.draw(st.text(max_size=5)),
            shape=(data.draw(st.integers(0, 9)),),
            stype=data.draw(st.text(max_size=5)),
            data=payload,
        )
    elif how == "layout":
        text = data.draw(st.text(max_size=50) | JSON.map(json.dumps))
        content["w.layout"] = ConfigRecord({"parts": text})
    elif how == "entries":
        parts = data.draw(st.lists(ENTRY, max_size=4))
        content["w.layout"] = ConfigRecord({"parts": json.dumps(parts)})
    for expected in (Layout.of(GOOD), None):
        try:
            found = take(content, "w", expected)
        except RefusedError:
            continue
        if expected is not None:
            assert Layout.of(found) == expected
        assert all(torch.isfinite(tensor).all() for tensor in found.values())
