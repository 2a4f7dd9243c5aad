"""Is ``result.json`` what a report can read? Every entry that one looks at, by its kind."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

_LONGEST = 1000
"""Characters of a name, beyond any."""
_CLASSES = 500
"""Emotions, beyond any; a confusion matrix has their square."""
_MOST = 2**53

Check = Callable[[Any, str], None]


def check_result(result: Any) -> None:
    """See that every entry that a report reads is there and of its kind.

    Args:
        result: What ``result.json`` says.

    Raises:
        ValueError: One is missing or something else; the message names it.
    """
    _is(result, dict, "the whole", "a mapping")
    for key, check in _ENTRIES.items():
        check(_get(result, key, "result"), key)
    _flag(result.get("personal", False), "personal")
    if result.get("privacy") is not None:
        _guarantee(result["privacy"], "privacy")
    classes = len(result["data"]["labels"])
    for key in ("last", "selected"):
        if result[key] is not None:
            _round(result[key], key, classes)
    for name, scores in result["baselines"].items():
        _scores(scores, f"baselines.{name}", classes)
    for name, scores in result["holdouts"].items():
        _text(name, "the name of a holdout")
        _scores(scores, f"holdouts.{name}", classes)
        _whole(_get(scores, "examples", f"holdouts.{name}"), f"holdouts.{name}.examples")
        _texts(scores.get("modalities", []), f"holdouts.{name}.modalities")


def _round(entry: Any, where: str, classes: int) -> None:
    _whole(_get(entry, "round", where), f"{where}.round")
    scores = _get(entry, "scores", where)
    _is(scores, dict, f"{where}.scores", "a mapping")
    if "test" in scores:
        _scores(scores["test"], f"{where}.scores.test", classes)
        if sum(map(sum, _get(scores["test"], "confusion", f"{where}.scores.test"))) == 0:
            raise ValueError(f"{where}.scores.test.confusion counts nothing")


def _scores(scores: Any, where: str, classes: int) -> None:
    for name in ("accuracy", "weighted_f1"):
        value = _get(scores, name, where)
        _number(value, f"{where}.{name}")
        if not 0 <= value <= 1:
            raise ValueError(f"{where}.{name} is {value}, not between 0 and 1")
    if "confusion" in scores:
        matrix = scores["confusion"]
        square = isinstance(matrix, list) and all(
            isinstance(row, list) and len(row) == classes for row in matrix
        )
        if not square or len(matrix) != classes:
            raise ValueError(f"{where}.confusion is no matrix of the {classes} emotions")
        for row in matrix:
            for count in row:
                _whole(count, f"{where}.confusion")


def _guarantee(promised: Any, where: str) -> None:
    for key in ("epsilon", "delta"):
        _number(_get(promised, key, where), f"{where}.{key}")
    _text(_get(promised, "sentence", where), f"{where}.sentence")


def _data(data: Any, where: str) -> None:
    for key in ("name", "fingerprint"):
        _text(_get(data, key, where), f"{where}.{key}")
    labels = _get(data, "labels", where)
    _texts(labels, f"{where}.labels")
    if not 1 <= len(labels) <= _CLASSES:
        raise ValueError(f"{where}.labels has {len(labels)} emotions")
    if len(set(labels)) < len(labels):
        raise ValueError(f"{where}.labels names an emotion twice")


def _get(mapping: Any, key: str, where: str) -> Any:
    _is(mapping, dict, where, "a mapping")
    if key not in mapping:
        raise ValueError(f"{where} has no '{key}'")
    return mapping[key]


def _is(value: Any, kind: type, where: str, what: str) -> None:
    if not isinstance(value, kind):
        raise ValueError(f"{where} is {str(value)[:40]!r}, not {what}")


def _text(value: Any, where: str) -> None:
    _is(value, str, where, "a text")
    if len(value) > _LONGEST or not _is_unicode(value):
        raise ValueError(f"{where} is no name")


def _texts(value: Any, where: str) -> None:
    _is(value, list, where, "a list")
    for text in value:
        _text(text, where)


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(sign) < 0xE000 for sign in text)


def _flag(value: Any, where: str) -> None:
    _is(value, bool, where, "true or false")


def _whole(value: Any, where: str) -> None:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{where} is {str(value)[:40]!r}, not a whole number")


def _number(value: Any, where: str) -> None:
    # Compared, since math.isfinite cannot take a whole number larger than any float.
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{where} is {str(value)[:40]!r}, not a number")


def _mapping(value: Any, where: str) -> None:
    _is(value, dict, where, "a mapping")


def _command(value: Any, where: str) -> None:
    _is(value, str, where, "a text")
    if not _is_unicode(value):
        raise ValueError(f"{where} is no text")


def _anything(value: Any, where: str) -> None:
    """Looked at later, once the emotions are known."""


_ENTRIES: Mapping[str, Check] = {
    "seed": _whole,
    "aggregator": _text,
    "network": _text,
    "partitioner": _text,
    "command": _command,
    "data": _data,
    "rounds": _whole,
    "last": _anything,
    "selected": _anything,
    "baselines": _mapping,
    "holdouts": _mapping,
    "bytes_down": _whole,
    "bytes_up": _whole,
    "seconds": _number,
}
