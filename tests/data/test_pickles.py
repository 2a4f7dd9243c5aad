"""Published pickles are read; a pickle that asks for anything to be run is not."""

import collections
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmer.data.formats import read_corpus, safe_pickle, sdt_pickle
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def dumped(folder: Path, content: Any, protocol: int = 2) -> Path:
    path = folder / "features.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def published(length: int, letters: bool, visual: bool = True) -> list[Any]:
    """A tuple of a published order with three dialogues of two utterances."""
    dialogues = ["Ses01F_impro01", "Ses01M_impro02", "Ses05F_script01"] if letters else [0, 1, 2]
    one_hot = [np.eye(9)[0].tolist(), np.eye(9)[3].tolist()]
    rows = {dialogue: [np.full(3, 0.5), np.full(3, 2.0)] for dialogue in dialogues}
    names = {dialogue: ["M", "F"] if letters else one_hot for dialogue in dialogues}
    parts: list[Any] = [{dialogue: ["a", "b"] for dialogue in dialogues}, names]
    parts += [{dialogue: [0, 5] for dialogue in dialogues}, rows]
    parts += [rows] * (3 if length > 10 else 0)
    parts += [{dialogue: np.ones((2, 4)) for dialogue in dialogues}]
    parts += [{dialogue: np.zeros((2, 5)) for dialogue in dialogues}] if visual else []
    parts += [
        {dialogue: ["well", "no"] for dialogue in dialogues},
        set(dialogues[:2]),
        dialogues[2:],
    ]
    return parts + [None] * (length - len(parts))


KINDS = [(12, True, True), (13, False, True), (9, True, True), (10, False, True), (9, False, False)]


@pytest.mark.parametrize(("length", "letters", "visual"), KINDS)
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_published_orders(
    tmp_path: Path, length: int, letters: bool, visual: bool, protocol: int
) -> None:
    corpus = read_corpus(
        dumped(tmp_path, tuple(published(length, letters, visual)), protocol=protocol)
    )
    assert list(corpus.shape.features.values()) == [3, 4, 5][: 2 + visual]
    assert [dialogue.split for dialogue in corpus.conversations] == ["train", "train", "test"]
    first = corpus.conversations[0]
    assert first.speakers.tolist() == (
        ["Ses01M", "Ses01F"] if letters else ["0/speaker0", "0/speaker3"]
    )
    assert first.session == ("Ses01" if letters else "")
    assert first.utterances == ["well", "no"]
    assert len(corpus.label_names) == (6 if letters else 7)


def test_a_synthetic_corpus_survives_the_published_format(tmp_path: Path) -> None:
    corpus = synthetic_corpus(dialogues=10)
    path = tmp_path / "iemocap.pkl"
    sdt_pickle.write(corpus, path)
    # What the published loader does: twelve parts, dictionaries of rows.
    parts = safe_pickle.load(path)
    assert isinstance(parts, tuple)
    assert len(parts) == 12
    again = read_corpus(path)
    for dialogue, read in zip(corpus.conversations, again.conversations, strict=True):
        assert (read.id, read.split, read.session) == (
            dialogue.id,
            dialogue.split,
            dialogue.session,
        )
        assert read.speakers.tolist() == dialogue.speakers.tolist()
        assert read.labels.tolist() == dialogue.labels.tolist()
        for name in dialogue.features:
            np.testing.assert_array_equal(read.features[name], dialogue.features[name])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_call_is_refused_and_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    victim = tmp_path / "victim"
    parts = [*published(12, True)[:-1], Call(os.system, f"touch {victim}")]
    path = dumped(tmp_path, tuple(parts), protocol)
    if protocol == 0:
        path.write_bytes(pickle.dumps(tuple(parts), protocol=1))
    with pytest.raises(InputError, match=r"tries to load \w+\.system") as caught:
        read_corpus(path)
    assert "nothing of it was" in str(caught.value)
    assert not victim.exists()


@pytest.mark.parametrize(
    "function",
    [eval, exec, getattr, open, __import__, print, os.remove, np.load, np.fromfile, pickle.loads],
)
def test_no_function_can_be_reached(tmp_path: Path, function: Any) -> None:
    with pytest.raises(InputError, match="tries to load"):
        safe_pickle.load(dumped(tmp_path, Call(function, "1")))


def forged(element: str, state: tuple[Any, ...], raw: Any) -> bytes:
    """A pickled array whose description of its elements is a lie."""

    class Lie:
        def __reduce__(self) -> Any:
            return np.dtype, (element, False, True), state

    class Forgery:
        def __reduce__(self) -> Any:
            rebuild = np.zeros(1).__reduce__()[0]
            return rebuild, (np.ndarray, (0,), b"b"), (1, (1,), Lie(), False, raw)

    return pickle.dumps(Forgery(), protocol=2)


@pytest.mark.parametrize(
    ("element", "state", "raw"),
    [
        ("O8", (3, "|", None, None, None, -1, -1, 0), b"\x41" * 8),
        ("V8", (3, "|", None, ("a",), {"a": (np.dtype("O"), 0)}, 8, 1, 0), b"\x41" * 8),
        ("f8", (3, "<", None, None, None, -1, -1, 0), b"\x41" * 4),
        ("M8", (3, "<", None, None, None, -1, -1, 0), b"\x41" * 8),
    ],
)
def test_bytes_are_never_taken_for_pointers(
    tmp_path: Path, element: str, state: tuple[Any, ...], raw: bytes
) -> None:
    path = tmp_path / "forged.pkl"
    path.write_bytes(forged(element, state, raw))
    with pytest.raises(InputError):
        safe_pickle.load(path)


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(max_codepoint=255), max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(st.characters(max_codepoint=255), max_size=3), inner, max_size=3)
        | st.dictionaries(st.integers(-(2**59), 2**59), inner, max_size=2).map(
            lambda d: collections.defaultdict(list, d)
        )
        | st.sets(st.integers(-(2**59), 2**59), max_size=3)
    ),
    max_leaves=8,
)


@given(plain, st.integers(0, 5))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_plain_things_come_back(
    tmp_path_factory: pytest.TempPathFactory, content: Any, protocol: int
) -> None:
    path = tmp_path_factory.mktemp("plain") / "x.pkl"
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    assert safe_pickle.load(path) == content


kinds = st.sampled_from(["<f4", ">f8", "<i8", "|b1", "<U3", "|S4", "<c8", "|O"])


@given(st.data(), kinds, st.integers(0, 5), st.sampled_from("CF"))
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_arrays_come_back(
    tmp_path_factory: pytest.TempPathFactory,
    data: st.DataObject,
    kind: str,
    protocol: int,
    order: Any,
) -> None:
    shape = data.draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    content = np.asarray(np.arange(int(np.prod(shape))).reshape(shape).astype(kind), order=order)
    scalars = [] if kind == "|O" else list(content.ravel()[:2])
    path = tmp_path_factory.mktemp("array") / "x.pkl"
    path.write_bytes(pickle.dumps([content, scalars], protocol=protocol))
    again, others = safe_pickle.load(path)
    assert again.dtype.newbyteorder("=") == content.dtype.newbyteorder("=")
    np.testing.assert_array_equal(again, content)
    assert others == scalars


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_pickle_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = dumped(tmp_path_factory.mktemp("damaged"), tuple(published(12, True)))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut short"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read_corpus(path)
    except InputError as error:
        assert "features" in str(error)  # noqa: PT017 - many changes of a byte do no harm


def test_other_tuples_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"tuple of 11 parts; .* have 9, 10, 12, 13"):
        read_corpus(dumped(tmp_path, tuple(range(11))))
    with pytest.raises(InputError, match="not of a published order"):
        read_corpus(dumped(tmp_path, tuple(range(12))))
    with pytest.raises(InputError, match="pickle of a dict"):
        read_corpus(dumped(tmp_path, {"a": 1}))


def change(place: int, dialogue: str, value: Any) -> tuple[Any, ...]:
    parts = published(12, True)
    parts[place] = {**parts[place], dialogue: value}
    return tuple(parts)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (change(7, "Ses01M_impro02", np.ones((2, 3))), "'audio' has 3 dimensions but the first"),
        (change(7, "Ses01M_impro02", [[1.0], [1.0, 2.0]]), "cannot be read as numbers"),
        (change(7, "Ses01M_impro02", np.ones((3, 4))), "expected float32 of (2, 4)"),
        (change(3, "Ses01M_impro02", np.full((2, 3), np.nan)), "'text' holds NaN"),
        (change(3, "Ses01M_impro02", np.full((2, 3), 1e300)), "'text' holds 1e+300, which is"),
        (change(2, "Ses01M_impro02", [0, 6]), "label 6 is out of range"),
        (change(2, "Ses01M_impro02", [-1, -1]), "has no labelled utterance"),
        (change(2, "Ses01M_impro02", ["a", "b"]), "labels must be whole numbers"),
        (change(1, "Ses01M_impro02", ["M", "X"]), "has speakers M, X"),
        ((*published(12, True)[:-1], ["Ses02F_x"]), "'Ses02F_x' is listed under test but has no"),
        ((*published(12, True)[:-1], ["Ses01M_impro02"]), "occurs twice"),
    ],
)
def test_a_wrong_file_is_explained(tmp_path: Path, parts: tuple[Any, ...], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_corpus(dumped(tmp_path, parts))
    assert sentence in str(caught.value)
    assert "features.pkl" in str(caught.value)
