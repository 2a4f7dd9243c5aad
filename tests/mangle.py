"""Changes that mangle a file: of its bytes, of its entries, of its text."""

import contextlib
import copy
import io
import random
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

ODD: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 7, 2**31, 2**63, 2**70, -(2**70), 10**400),
    *(0.5, -0.0, 1e39, 1e308, float("nan"), float("inf")),
    *("", "x", "M", "\x1b[2J", "\ud800", "9" * 5000, b"", b"\x00\xff"),
    *([], [0], [[]], [1.0, "a", None], {}, {"a": 1}, {1: 2}, (), ("a",), [[0] * 6] * 6),
    *(np.float32(1), np.int64(-1), np.zeros(0), np.zeros((3, 0)), np.ones(3), np.ones((3, 4))),
    *(np.full((2, 2), np.nan), np.array(["a"]), np.array([None, "a"], dtype=object), np.array(1)),
)
"""Values that no reader expects."""


def bytes_changed(draw: random.Random, content: bytes, others: Sequence[bytes] = ()) -> bytes:
    """One change of a file's bytes."""
    if not content:
        return bytes(draw.randrange(256) for _ in range(8))
    raw = bytearray(content)
    at = draw.randrange(len(raw))
    end = min(len(raw), at + draw.choice((1, 2, 4, 8, 64, 1024)))
    what = draw.randrange(8)
    if what == 0:
        raw[at] ^= 1 << draw.randrange(8)
    elif what == 1:
        raw[at] = draw.randrange(256)
    elif what == 2:
        del raw[at:]
    elif what == 3:
        del raw[at:end]
    elif what == 4:
        raw[at:at] = raw[at:end] * draw.choice((1, 2, 50))
    elif what == 5:
        number = draw.choice((0, 1, 2**7, 2**15, 2**31 - 1, 2**32 - 1, 2**63, 2**64 - 1))
        size = draw.choice((1, 2, 4, 8))
        raw[at : at + size] = (number % 2 ** (8 * size)).to_bytes(size, "little")
    elif what == 6 and others:
        other = draw.choice(others)
        cut = draw.randrange(len(other) + 1)
        raw[at:end] = other[cut : cut + draw.choice((8, 64, 4096))]
    else:
        raw[at:end] = bytes(draw.randrange(256) for _ in range(end - at))
    return bytes(raw)


def entries_changed(draw: random.Random, content: Any, odd: Sequence[Any] = ODD) -> Any:
    """A copy in which some entries, at any depth, are odd, doubled or gone."""
    content = copy.deepcopy(content)
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        holder: Any = [content]
        key: Any = 0
        while isinstance(holder[key], dict | list) and holder[key] and draw.random() < 0.8:
            holder = holder[key]
            key = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if holder[key] is content:
            continue
        what = draw.randrange(6)
        if what == 0 and isinstance(holder, dict):
            del holder[key]
        elif what == 1 and isinstance(holder, dict):
            with contextlib.suppress(TypeError):
                holder[draw.choice(odd)] = holder[key]
        elif what == 2 and isinstance(holder, list):
            holder.insert(key, holder[key])
        else:
            holder[key] = copy.deepcopy(draw.choice(odd))
    return content


def text_changed(draw: random.Random, text: str) -> str:
    """A cell, a line or a word of a text is replaced, doubled or left out."""
    rows = [row.split(",") for row in text.split("\n")]
    for _ in range(draw.choice((1, 1, 2, 4))):
        row = draw.choice(rows)
        place = draw.randrange(len(row))
        words = (
            "",
            "x",
            "-1",
            "nan",
            "inf",
            "1e999",
            "9" * 400,
            '"',
            "\0",
            "\r",
            "1,2",
            "0x1",
            "²",
        )
        what = draw.randrange(4)
        if what == 0:
            row[place] = draw.choice(words)
        elif what == 1:
            del row[place]
            row or row.append("")  # type: ignore[func-returns-value]
        elif what == 2:
            rows.insert(draw.randrange(len(rows)), list(row))
        else:
            row.insert(place, draw.choice(words))
    return "\n".join(",".join(row) for row in rows)


def npz_changed(draw: random.Random, content: bytes) -> bytes:
    """Headers, arrays and bytes of an archive of arrays."""
    if draw.random() < 0.4:
        return bytes_changed(draw, content)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = draw.choice(list(members))
    what = draw.randrange(4)
    if what == 0:
        members[name] = bytes_changed(draw, members[name])
    elif what == 1:
        entry = io.BytesIO()
        value = draw.choice(ODD)
        with contextlib.suppress(ValueError, OverflowError):
            np.save(entry, np.array(value), allow_pickle=True)
        members[name] = entry.getvalue()
    elif what == 2:
        members[draw.choice(("x.npy", "x", "../x.npy", "present_x.npy", ".npy"))] = members.pop(
            name
        )
    else:
        shapes = ("(None,)", "(1.5,)", "(10**30,)", "(-1,)", "()", "(0,)", "(2,2,2)", "((1,),)")
        kinds = ("'|O'", "'<U0'", "'<U9'", "'<f4'", "'>c8'", "[('a','<f4')]", "'V8'", "'m8'", "'?'")
        text = f"{{'descr': {draw.choice(kinds)}, 'fortran_order': {draw.choice(('True', '2'))}, "
        text += f"'shape': {draw.choice(shapes)}, }}\n"
        members[name] = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()
        members[name] += bytes(draw.choice((0, 1, 8, 64)))
    packed = io.BytesIO()
    method = draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for key, value in members.items():
            archive.writestr(key, value)
    return packed.getvalue()
