"""An .npz from anybody is a corpus or a sentence; what it claims costs nothing."""

import io
import os
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmer.data.formats import read_corpus
from fedmer.errors import InputError
from tests.data.test_native import columns, saved
from tests.data.typed import main


def header(shape: str, descr: str = "'<i8'", version: int = 1, more: str = "") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}{more}, }}\n".encode()
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + size + text


def archive(folder: Path, name: str = "turn.npy", content: bytes = b"", **options: Any) -> Path:
    """A valid corpus in which one member is replaced."""
    path = folder / "made.npz"
    with zipfile.ZipFile(path, "w") as file:
        for key, column in columns().items():
            if f"{key}.npy" != name:
                own = io.BytesIO()
                np.save(own, column)
                file.writestr(f"{key}.npy", own.getvalue())
        file.writestr(name, content, **options)
    return path


FOUR = np.arange(4).tobytes()
HEADERS = [
    (header("(1000000000000000000000000000000,)"), "'turn' claims the shape (1000000"),
    (header("(18446744073709551616,)", version=2), "'turn' claims the shape"),
    (header("(True,)", "'m8'", version=3) + FOUR, "'turn' claims the shape (True,)"),
    (header("(None,)") + FOUR, "'turn' claims the shape (None,)"),
    (header("(1.5,)") + FOUR, "'turn' claims the shape (1.5,)"),
    (header("(-4,)") + FOUR, "'turn' claims the shape (-4,)"),
    (header("4") + FOUR, "'turn' claims the shape 4"),
    (header("(5,)") + FOUR, "'turn' claims int64 of shape (5,), but has 32 bytes"),
    (header("(1099511627776, 1099511627776)") + FOUR, "'turn' claims int64 of shape"),
    (header("(1000000000000,)", "'<U0'"), "'turn' holds <U0; expected booleans"),
    (header("(4,)", "[('a', '<i8')]") + FOUR, "'turn' holds [('a', '<i8')]; expected"),
    (header("(4,)", "'|O'") + FOUR, "write it with .astype(str)"),
    (header("(4,)", "'m8'") + FOUR, "'turn' holds m8; expected booleans"),
    (header("(4,)", "'<i3'") + b"\0" * 12, "'turn' holds <i3; expected booleans"),
    (header("(" * 300 + ")" * 300) + FOUR, "'turn' has a header that cannot be read"),
    (header("(4,)", more=", 'x': " + "-" * 3000 + "1") + FOUR, "has a header that cannot be read"),
    (header("(4,)", more=" " * 9000) + FOUR, "'turn' has a header that cannot be read"),
    (b"\x93NUMPY\x04\x00" + b"\0" * 40, "'turn' holds no array"),
    (b"\x80\x02Nr\x00\xc2\xeb\x0b.", "'turn' holds a pickle"),
    (b"", "'turn' holds no array"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), HEADERS)
def test_a_claim_is_measured_before_anything_is_made(
    tmp_path: Path, content: bytes, sentence: str
) -> None:
    with pytest.raises(InputError) as caught:
        read_corpus(archive(tmp_path, content=content))
    assert sentence in str(caught.value)
    assert "made.npz" in str(caught.value)


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_version_and_order_is_read(tmp_path: Path, version: int, order: Any) -> None:
    rows = np.arange(12, dtype=">f8").reshape(4, 3)
    written = io.BytesIO()
    np.lib.format.write_array(written, np.asarray(rows, order=order), version=(version, 0))
    corpus = read_corpus(archive(tmp_path, "text.npy", written.getvalue()))
    assert corpus.conversations[0].features["text"].tolist() == [rows[2].tolist(), rows[0].tolist()]


def test_a_small_file_that_unpacks_to_gigabytes_is_refused_by_its_size(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bomb.npz"
    million = b"\0" * 10**6
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("text.npy", "w", force_zip64=True) as member,
    ):
        member.write(header("(25000000,)", "'<f4'"))
        for _ in range(100):
            member.write(million)
    assert path.stat().st_size < 10**6
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["describe", str(path), "--max_gb", "0.09"]) == 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000, "kilobytes that were taken by what was refused"
    error = capsys.readouterr().err
    assert "unpacks to more than 0.09 GB" in error
    assert "--data.max_gb" in error


def test_a_limit_that_is_none_is_refused(tmp_path: Path) -> None:
    for limit in (0, -1, float("nan")):
        with pytest.raises(InputError, match="expected a number above 0"):
            read_corpus(saved(tmp_path), limit)


def relabelled(path: Path, field: int, size: int) -> Path:
    """Lie about a member's size: field 20 of the list of members is packed, 24 unpacked."""
    raw = bytearray(path.read_bytes())
    entry = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<I", raw, entry + field, size)
    path.write_bytes(raw)
    return path


@pytest.mark.parametrize(("packed", "unpacked"), [(None, 3 * 10**9), (3 * 10**6, 3 * 10**9)])
def test_a_size_that_is_a_lie_costs_nothing(
    tmp_path: Path, packed: int | None, unpacked: int
) -> None:
    path = archive(tmp_path, content=header("(375000000,)") + FOUR)
    relabelled(path, 24, unpacked)
    if packed:
        relabelled(path, 20, packed)
    with pytest.raises(InputError, match="more than its"):
        read_corpus(path, 100)


def test_a_size_that_is_too_small_is_a_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path, content=header("(2,)") + FOUR)
    relabelled(path, 24, len(header("(2,)")) + 16)
    with pytest.raises(InputError, match=r"not a whole \.npz file"):
        read_corpus(path)


def test_a_list_of_members_without_end_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w") as file:
        for number in range(3):
            file.writestr(f"{number}" + "x" * 60_000, b"")
    raw = path.read_bytes()
    start = raw.index(b"PK\x01\x02")
    entries, end = raw[start : raw.rindex(b"PK\x05\x06")], raw[raw.rindex(b"PK\x05\x06") :]
    size = len(entries) * 40
    path.write_bytes(raw[:start] + entries * 40 + end[:12] + struct.pack("<I", size) + end[16:])
    with pytest.raises(InputError, match="its list of members takes megabytes"):
        read_corpus(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_keys_that_occur_twice_are_refused(tmp_path: Path) -> None:
    path = archive(tmp_path, "turn", header("(4,)") + FOUR)
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("turn.npy", header("(4,)") + FOUR)
    with pytest.raises(InputError, match="'turn' occurs twice"):
        read_corpus(path)


def test_other_ways_of_packing_are_refused(tmp_path: Path) -> None:
    content = header("(4,)") + FOUR
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        path = archive(tmp_path, content=content, compress_type=method)
        with pytest.raises(InputError, match=r"'turn' is packed in a way that NumPy does not use"):
            read_corpus(path)
    path = archive(tmp_path, content=content)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match="'turn' is encrypted"):
        read_corpus(path)


def test_a_name_that_is_a_path_is_no_modality(tmp_path: Path) -> None:
    for name in ("../../text", "a.b", "/etc/passwd", "\x1b[31mtext"):
        path = tmp_path / "made.npz"
        np.savez(path, **columns(**{name: np.ones((4, 3), np.float32)}))
        with pytest.raises(InputError, match="a modality is called"):
            read_corpus(path)
    assert [p.name for p in tmp_path.iterdir()] == ["made.npz"]


ELEMENTS = [
    ({"speaker": np.array([0x110000] * 4, "<u4").view("<U1")}, "'speaker' holds characters"),
    ({"speaker": np.array([0xD800] * 4, "<u4").view("<U1")}, "'speaker' holds characters"),
    ({"present_text": np.array([2] * 4, np.uint8).view(np.bool_)}, "neither true nor false"),
    ({"label": np.array([2**64 - 1] * 4, np.uint64)}, "'label' holds 18446744073709551615"),
    ({"text": np.full((4, 3), 1e200)}, "'text' holds 1e+200, which is beyond"),
    ({"text": np.ones((4, 0), np.float32)}, "'text' has no columns"),
    ({"label_names": np.array(["calm", "calm"])}, "names the emotion 'calm' twice"),
    ({"label_names": np.array([["calm", "glad"]])}, "'label_names' holds <U4 of shape (1, 2)"),
    ({"label": np.array(["calm", "glad", "", "cross"])}, "label 'cross' is not among label_names"),
    ({"speaker": np.array(["x", 1, None, "y"], dtype=object)}, "'speaker' is an array of Python"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), ELEMENTS)
def test_wrong_elements_are_named(
    tmp_path: Path, changes: dict[str, Any], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["describe", str(saved(tmp_path, **changes))]) == 2
    assert sentence in capsys.readouterr().err


def test_labels_may_be_names(tmp_path: Path) -> None:
    path = saved(tmp_path, label=np.array(["calm", "glad", "", "calm"]))
    assert read_corpus(path).fingerprint == read_corpus(saved(tmp_path)).fingerprint
    names = np.array(["glad", "calm", "", "glad"])
    corpus = read_corpus(saved(tmp_path, label=names, label_names=None))
    assert list(corpus.label_names) == ["calm", "glad"]
    assert corpus.conversations[0].labels.tolist() == [-1, 1]


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe is not a file"):
        read_corpus(tmp_path / "pipe")


FILES = {
    "a.npy": (b"\x93NUMPY\x01\x00", "is a single array"),
    "a.npz": (b"\x1f\x8b\x08\x00", "is compressed with gzip"),
    "a.txt": (b"Once upon a time\n", "is a text file that starts with 'Once upon a time'"),
    "a.xml": ("<a>,</a>".encode("utf-16"), "is text in UTF-16"),
    "empty.npz": (b"PK\x05\x06" + b"\0" * 18, "is an archive that holds nothing"),
    "bytes": (b"\x00\x01\x02\xff\x1b[31m", r"starts with b'\x00\x01\x02\xff'"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_kind_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    content, sentence = FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_corpus(tmp_path / name)
    assert sentence in str(caught.value)


@pytest.mark.filterwarnings("error")
def test_features_near_1e20_have_a_finite_spread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = np.array([[1e20], [-1e20], [1e38], [-1e38]], np.float32)
    assert main(["describe", str(saved(tmp_path, text=text))]) == 0
    shown = capsys.readouterr().out
    assert "7.071e+37" in shown
    assert "inf" not in shown


def test_a_checksum_that_differs_is_a_sentence(tmp_path: Path) -> None:
    path = archive(tmp_path, content=header("(4,)") + FOUR)
    raw = bytearray(path.read_bytes())
    raw[raw.rindex(FOUR)] ^= 1
    path.write_bytes(raw)
    with pytest.raises(InputError, match=r"not a whole \.npz file"):
        read_corpus(path)
