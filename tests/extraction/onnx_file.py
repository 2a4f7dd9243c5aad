"""A tiny ONNX network, written by its format's definition, since nothing here can export one."""

import struct
from pathlib import Path


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes | str) -> bytes:
    raw = content.encode() if isinstance(content, str) else content
    return _varint(field << 3 | 2) + _varint(len(raw)) + raw


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out, value = out + bytes([value & 127 | 128]), value >> 7
    return out + bytes([value])


def _tensor_type(name: str, sides: tuple[int, ...]) -> bytes:
    """``ValueInfoProto`` of float32."""
    shape = b"".join(_bytes(1, _number(1, side)) for side in sides)
    return _bytes(1, name) + _bytes(2, _bytes(1, _number(1, 1) + _bytes(2, shape)))


def write_means(path: Path, height: int = 8, width: int = 12) -> Path:
    """A network of two outputs: the mean of each colour of ``(1, 3, H, W)``, and twice of it.

    Outputs are ``means``, ``(1, 3, 1, 1)``, and ``doubled``, the same times two.
    """
    pool = _bytes(1, "picture") + _bytes(2, "means") + _bytes(4, "GlobalAveragePool")
    add = _bytes(1, "means") + _bytes(1, "two") + _bytes(2, "doubled") + _bytes(4, "Mul")
    two = _number(1, 1) + _number(2, 1) + _bytes(9, struct.pack("<f", 2.0)) + _bytes(8, "two")
    graph = (
        _bytes(1, pool)
        + _bytes(1, add)
        + _bytes(2, "means")
        + _bytes(5, two)
        + _bytes(11, _tensor_type("picture", (1, 3, height, width)))
        + _bytes(12, _tensor_type("means", (1, 3, 1, 1)))
        + _bytes(12, _tensor_type("doubled", (1, 3, 1, 1)))
    )
    model = _number(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _number(2, 13))
    path.write_bytes(model)
    return path
