"""A pickle that claims, repeats or nests as it likes is a sentence, and takes little memory."""

import pickle
import resource
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmer.data.formats import read_corpus, safe_pickle
from fedmer.errors import InputError
from tests.data.test_pickles import Call, dumped, published
from tests.data.typed import main

MANY, MILLION = 100_000, 1_000_000
HUGE = struct.pack("<I", 200_000_000)
HUGE8 = struct.pack("<Q", 2**40)


def nested(open_one: bytes, close_one: bytes, depth: int) -> bytes:
    return b"\x80\x02" + open_one * depth + b"N" + close_one * depth + b"."


def doubling(step: bytes, times: int) -> bytes:
    """Every step holds the one before it twice: 2**times leaves of a hundred bytes."""
    return b"\x80\x02]" + step * times + b"."


PROGRAMS = {
    "a place in the memory of two hundred million": b"\x80\x02Nr" + HUGE + b".",
    "text of claimed length": b"\x80\x02X" + HUGE + b"abc.",
    "long text of claimed length": b"\x80\x04\x8d" + HUGE8 + b"abc.",
    "bytes of claimed length": b"\x80\x03B" + HUGE + b"abc.",
    "long bytes of claimed length": b"\x80\x04\x8e" + HUGE8 + b"abc.",
    "a bytearray of claimed length": b"\x80\x05\x96" + HUGE8 + b"abc.",
    "a string of claimed length": b"\x80\x02T" + HUGE + b"abc.",
    "a string of negative length": b"\x80\x02T" + struct.pack("<i", -1) + b"abc.",
    "a number of claimed length": b"\x80\x02\x8b" + HUGE + b"abc.",
    "a number of negative length": b"\x80\x02\x8b" + struct.pack("<i", -5) + b"abc.",
    "a number of many digits": b"I" + b"9" * 10_000 + b"\n.",
    "a frame of claimed length": b"\x80\x04\x95" + HUGE8 + b"N.",
    "nested lists": nested(b"(", b"l", MANY),
    "nested tuples": nested(b"(", b"t", MANY),
    "nested dictionaries": nested(b"(K\x01", b"d", MANY),
    "lists of the same two lists": doubling(b"q\x00]h\x00ah\x00a", 5_000),
    "tuples of the same two tuples": doubling(b"2\x86", 5_000),
    "a set of such tuples": b"\x80\x04)" + b"2\x86" * 5_000 + b"\x94(h\x00\x91.",
    "a list in itself": b"\x80\x02]q\x00h\x00a.",
    "many marks": b"\x80\x02" + b"(" * MANY + b".",
    "many empty sets": b"\x80\x04]" + b"(" + b"\x8f" * MANY + b"e.",
    "many copies of the top": b"\x80\x02N" + b"2" * MANY + b".",
    "more popped than there is": b"\x80\x02N00.",
    "no end": b"\x80\x02N",
    "an extension": b"\x80\x02\x82\x01.",
    "a buffer from outside": b"\x80\x05\x97.",
    "an identifier from outside": b"\x80\x02K\x01Q.",
    "an array of 2**60 elements of no size": b"",
    "one text turned to bytes ten thousand times": b"",
    "one array built ten thousand times of the same text": b"",
    "an array that is built, seen, and built again": b"",
}


def described(kind: str, shape: bytes, raw: bytes, again: bytes = b"") -> bytes:
    """An array: what rebuilds it, its element type, its shape, its bytes."""
    element = b"cnumpy\ndtype\n(U" + bytes([len(kind)]) + kind.encode() + b"K\x00K\x01tR"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btRq\x01"
    state = b"(K\x01" + shape + element + b"\x89" + raw + b"tb"
    return b"\x80\x02" + array + state + again


PROGRAMS["an array of 2**60 elements of no size"] = (
    described("U0", b"(\x8a\x08" + struct.pack("<q", 2**60) + b"t", b"U\x00") + b"."
)
_text = b"X" + struct.pack("<I", MILLION) + b"a" * MILLION + b"q\x00"
PROGRAMS["one text turned to bytes ten thousand times"] = (
    b"\x80\x02" + _text + b"0c_codecs\nencode\nq\x01](" + b"h\x01h\x00\x85R" * 10_000 + b"e."
)
_element = b"cnumpy\ndtype\n(U\x02f4K\x00K\x01tR"
_element += b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x02"
_one = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR(K\x01J"
_one += struct.pack("<i", MILLION // 4) + b"\x85h\x02\x89h\x00tb"
PROGRAMS["one array built ten thousand times of the same text"] = (
    b"\x80\x02" + _text + b"0" + _element + b"0](" + _one * 10_000 + b"e."
)
_rows = b"U\x20" + b"\x01" * 32
PROGRAMS["an array that is built, seen, and built again"] = described(
    "u1",
    b"K\x20\x85",
    _rows,
    b"(K\x01K\x20\x85cnumpy\ndtype\n(U\x02u1K\x00K\x01tR\x89" + _rows + b"tb.",
)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_that_claims_or_repeats_is_a_sentence(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "features.pkl"
    path.write_bytes(PROGRAMS[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if PROGRAMS[name].startswith(b"I"):
        with pytest.raises(InputError):
            safe_pickle.load(path)
    else:
        assert main(["describe", str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("fedmer: error: ")
        assert "features.pkl" in error
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000


def test_views_of_an_array_outlive_nothing(tmp_path: Path) -> None:
    """NumPy's _frombuffer of an array, which a second description would free below it."""
    view = b"cnumpy.core.numeric\n_frombuffer\n(h\x01cnumpy\ndtype\n(U\x02u1K\x00K\x01tR"
    view += b"K\x20\x85U\x01CtR"
    path = tmp_path / "seen.pkl"
    path.write_bytes(described("u1", b"K\x20\x85", _rows, view + b"."))
    with pytest.raises(InputError, match="not made of bytes"):
        safe_pickle.load(path)


def test_what_is_unpacked_has_a_limit(tmp_path: Path) -> None:
    path = dumped(tmp_path, tuple(published(12, True)), protocol=4)
    read_corpus(path, 0.001)
    with pytest.raises(InputError, match=r"unpacks to more than 1e-06 GB.*--data.max_gb"):
        read_corpus(path, 1e-6)


def one_for_all(parts: list[Any]) -> None:
    """Ten thousand rows that are the same row."""
    row = np.ones(100_000, np.float32)
    for place in (3, 4, 5, 6, 7, 8):
        parts[place] = {dialogue: [row] * 10_000 for dialogue in parts[0]}


def odd(place: int, value: Any) -> Callable[[list[Any]], None]:
    def change(parts: list[Any]) -> None:
        parts[place] = dict.fromkeys(parts[0], value)

    return change


def ids(value: Any) -> Callable[[list[Any]], None]:
    def change(parts: list[Any]) -> None:
        parts[-1] = value

    return change


def lists(depth: int) -> Any:
    inner: Any = [1.0] * 10
    for _ in range(depth):
        inner = [inner] * 10
    return inner


ODD = {
    "rows": (one_for_all, "unpacks to more than 1 GB"),
    "lists of lists": (odd(3, [lists(8)] * 2), "'text' cannot be read as numbers"),
    "labels of lists": (odd(2, lists(8)), "labels must be whole numbers"),
    "labels of huge numbers": (odd(2, [2**70, 1]), "labels must be small whole numbers"),
    "rows of texts": (odd(3, [["a"], ["b"]]), "'text' cannot be read as numbers"),
    "rows of complex numbers": (odd(3, [[1j], [2j]]), "'text' cannot be read as numbers"),
    "rows of huge numbers": (odd(3, [[10**400], [1]]), "'text' holds a number of hundreds"),
    "no rows": (odd(3, None), "'text' has no rows"),
    "rows of no width": (odd(3, np.ones((2, 0))), "'text' has no columns"),
    "a million rows of no width": (odd(3, np.ones((10**6, 0))), "'text' has no columns"),
    "speakers of lists": (odd(1, [lists(3), lists(3)]), "speakers cannot be read as numbers"),
    "speakers of nine": (odd(1, np.eye(9)[:2]), "speakers that are vectors of 9 numbers"),
    "speakers that are one text": (odd(1, "MF"), "speakers has no rows"),
    "ids that are lists": (ids([["a"]]), "must be lists of ids"),
    "ids of two kinds": (ids({1, "a"}), "must be lists of ids"),
    "ids that are a dictionary": (ids({"a": 1}), "not of a published order"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_parts_that_are_something_else_are_named(tmp_path: Path, name: str) -> None:
    parts = published(12, True)
    change, sentence = ODD[name]
    change(parts)
    with pytest.raises(InputError) as caught:
        read_corpus(dumped(tmp_path, tuple(parts), protocol=4))
    assert sentence in str(caught.value)
    assert "features.pkl" in str(caught.value)


def test_utterances_are_texts_or_left_out(tmp_path: Path) -> None:
    parts = published(12, True)
    odd(9, [lists(8), "no"])(parts)
    corpus = read_corpus(dumped(tmp_path, tuple(parts)))
    assert [dialogue.utterances for dialogue in corpus.conversations] == [(), (), ()]


@pytest.mark.parametrize(("length", "visual"), [(9, True), (12, True)])
def test_speakers_of_iemocap_may_be_vectors_of_two(
    tmp_path: Path, length: int, visual: bool
) -> None:
    parts = published(length, True, visual)
    letters = read_corpus(dumped(tmp_path, tuple(parts))).fingerprint
    odd(1, [[1, 0], [0, 1]])(parts)
    assert read_corpus(dumped(tmp_path, tuple(parts))).fingerprint == letters


def test_speakers_of_meld_are_somebody(tmp_path: Path) -> None:
    parts = published(13, False)
    odd(1, np.ones((2, 0)))(parts)
    with pytest.raises(InputError, match="speakers that are vectors of no numbers"):
        read_corpus(dumped(tmp_path, tuple(parts)))


def test_letters_in_meld_are_a_sentence(tmp_path: Path) -> None:
    parts = published(13, False)
    odd(1, ["M", "F"])(parts)
    with pytest.raises(InputError, match="has speakers F, M; expected MELD's"):
        read_corpus(dumped(tmp_path, tuple(parts)))


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("kind", [int, str, list, tuple, dict, bytes, bytearray, set, complex])
def test_no_constructor_makes_room_for_a_number(tmp_path: Path, kind: Any, protocol: int) -> None:
    with pytest.raises(InputError):
        safe_pickle.load(dumped(tmp_path, Call(kind, 10**9), protocol))


@pytest.mark.parametrize("protocol", range(6))
def test_references_are_kept(tmp_path: Path, protocol: int) -> None:
    row = np.arange(300.0)
    found = safe_pickle.load(dumped(tmp_path, [row, row, [row]], protocol))
    assert found[0] is found[1] is found[2][0]
    np.testing.assert_array_equal(found[0], row)
    assert pickle.loads(pickle.dumps(np.asarray(found[0]))).sum() == row.sum()
