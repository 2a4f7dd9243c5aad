"""Messages as records of Flower, and back without trusting the sender.

A dictionary of tensors crosses as one vector for each type of number, with names and shapes as
text beside them: a message of two hundred tensors is then two or three objects of Flower's instead
of four hundred. Nothing is unpickled. What comes in is measured before it is decoded.
"""

import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update
from fedmer.weights import FlatWeights, Layout

FIT = "train.fit"
SCORE = "evaluate"
DESCRIBE = "query"
"""Types of messages; a masked sum takes plain ``train``, as Flower's protocol wants it."""
CPU = torch.device("cpu")
_KINDS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "int64": torch.int64,
    "int32": torch.int32,
    "int8": torch.int8,
    "bool": torch.bool,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_FRAMING = 1024
"""Bytes that a vector may have besides its numbers."""
MOST_EXAMPLES = 10**12
"""Labelled utterances beyond any corpus."""
_MOST_NUMBERS = 2**40
"""Numbers in a tensor beyond any network."""
_MOST_TEXT = 2**20
"""Characters of a layout beyond any network's; one of two hundred tensors has ten thousand."""
_MOST_AXES = 16
_COUNTS = "counts."
"""How names of tensors begin that count the utterances behind prototypes; see fedmer.prototypes."""
_LARGEST_LOSS = 1e38
"""Above what a loss in single precision can be, and far from where sums of many overflow."""


def header(round: int, client: int, keep: bool = False) -> ConfigRecord:
    """The head of every message of a round.

    Args:
        round: From 0.
        client: The id that the node has in this run.
        keep: Leave the update with the node, for a masked sum.
    """
    return ConfigRecord({"round": round, "client": client, "keep": keep})


class RefusedError(InputError):
    """A message that cannot be used; the sentence says why."""


def put(content: RecordDict, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Write a dictionary of tensors into a message under ``name``.

    Raises:
        ValueError: A tensor is of a type that does not cross, such as bfloat16.
    """
    flat = tensors if isinstance(tensors, FlatWeights) else FlatWeights.of(tensors)
    vectors = {}
    for kind, vector in flat.vectors.items():
        if kind not in _NAMES:
            raise ValueError(f"{name} holds {kind}, which does not cross; use {', '.join(_KINDS)}.")
        vectors[_NAMES[kind]] = Array(vector.detach().cpu().numpy())
    content[name] = ArrayRecord(vectors)
    parts = [(part, list(shape), _NAMES[kind]) for part, shape, kind in flat.layout.parts]
    content[f"{name}.layout"] = ConfigRecord({"parts": json.dumps(parts, separators=(",", ":"))})


def layout_of(content: RecordDict, name: str) -> Layout:
    """Names, shapes and types of what :func:`put` wrote under ``name``, by its own account.

    Raises:
        RefusedError: The account is missing, or cannot be read.
    """
    try:
        text = str(content.config_records[f"{name}.layout"]["parts"])
        if len(text) > _MOST_TEXT:
            raise ValueError("too long")
        return _layout(json.loads(text))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise RefusedError(
            f"its {name} are missing or cannot be read ({type(error).__name__})"
        ) from error


def take(
    content: RecordDict, name: str, expected: Layout | None = None, device: torch.device = CPU
) -> FlatWeights:
    """Read the dictionary of tensors that :func:`put` wrote under ``name``.

    Args:
        content: A message from anybody.
        name: Which.
        expected: The names, shapes and types it has to have.
        device: Where the tensors go.

    Raises:
        RefusedError: It is missing, too large, of other names or shapes, or not finite.
    """
    layout = layout_of(content, name)
    vectors = content.array_records.get(name)
    if vectors is None:
        raise RefusedError(f"its {name} are missing")
    if expected is not None and layout != expected:
        raise RefusedError(f"its {name} {difference(layout, expected)}")
    sizes = {_NAMES[kind]: (kind, sum(counts)) for kind, counts in layout.sizes.items()}
    if sizes.keys() != vectors.keys():
        raise RefusedError(
            f"its {name} are of types {sorted(vectors)}, but it names {sorted(sizes)}"
        )
    found = {}
    for key, (kind, size) in sizes.items():
        array = vectors[key]
        if len(array.data) > size * kind.itemsize + _FRAMING:
            raise RefusedError(
                f"its {name} are {len(array.data)} bytes of {key}, expected {size * kind.itemsize}"
            )
        found[kind] = _vector(array, name, key, size).to(device)
    return FlatWeights(layout, found)


def difference(layout: Layout, expected: Layout) -> str:
    """How names and shapes differ, as the end of a sentence.

    >>> difference(Layout.of({"w": torch.ones(2)}), Layout.of({"w": torch.ones(3)}))
    "have 'w' of shape (2,), expected (3,)"
    """
    found = {name: (tuple(shape), kind) for name, shape, kind in layout.parts}
    wanted = {name: (tuple(shape), kind) for name, shape, kind in expected.parts}
    if found.keys() != wanted.keys():
        odd = sorted(found.keys() ^ wanted.keys())
        return f"are of another network: {len(odd)} names differ, first '{odd[0]}'"
    for name, (shape, kind) in found.items():
        if shape != wanted[name][0]:
            return f"have '{name}' of shape {shape}, expected {wanted[name][0]}"
        if kind != wanted[name][1]:
            return f"have '{name}' of type {kind}, expected {wanted[name][1]}"
    return "are in another order than expected"


def put_broadcast(content: RecordDict, received: Broadcast) -> None:
    """Write what clients may know."""
    if received.weights is not None:
        put(content, "weights", received.weights)
    put(content, "tensors", received.tensors)


def take_broadcast(
    content: RecordDict, round: int, expected: Layout | None = None, device: torch.device = CPU
) -> Broadcast:
    """Read what clients may know.

    Args:
        content: From the server.
        round: From 0.
        expected: What its weights have to be.
        device: The receiver's.

    Raises:
        RefusedError: As :func:`take`.
    """
    weights = take(content, "weights", expected, device) if "weights" in content else None
    return Broadcast(round, weights, take(content, "tensors", device=device))


def put_answer(content: RecordDict, summary: Summary, update: Update | None) -> None:
    """Write what a client sends: its summary, and its update if there is one."""
    content["summary"] = ConfigRecord(
        {
            "examples": summary.examples,
            "train_loss": float(summary.train_loss),
            "steps": summary.steps,
        }
    )
    put(content, "summary.tensors", summary.tensors)
    if update is not None:
        put(content, "update", update.weights)


def take_answer(
    content: RecordDict,
    client: int,
    summary_layout: Layout | None = None,
    update_layout: Layout | None = None,
    device: torch.device = CPU,
    most: int = MOST_EXAMPLES,
    most_steps: int = MOST_EXAMPLES,
) -> tuple[Summary, Update | None]:
    """Read what a client sends.

    Args:
        content: From anybody.
        client: Who it is from, as the server knows and not as the message says.
        summary_layout: What its tensors have to be.
        update_layout: What its update has to be.
        device: The receiver's.
        most: Labelled utterances that it can have learnt from, by its own description.
        most_steps: Optimizer steps that it can have made with them; 0 if it has to make none.

    Raises:
        RefusedError: As :func:`take`, or its numbers are impossible.
    """
    try:
        numbers: Any = content.config_records["summary"]
        examples, loss, steps = numbers["examples"], numbers["train_loss"], numbers["steps"]
    except (KeyError, TypeError) as error:
        raise RefusedError("its summary is missing or cannot be read") from error
    if type(examples) is not int or not 0 < examples <= most:
        raise RefusedError(f"it claims {_short(examples)} labelled utterances, of at most {most}")
    if type(loss) is not float or not abs(loss) <= _LARGEST_LOSS:
        raise RefusedError(f"it claims a mean loss of {_short(loss)}")
    if type(steps) is not int or not min(1, most_steps) <= steps <= most_steps:
        raise RefusedError(f"it claims {_short(steps)} steps, of at most {most_steps}")
    tensors = take(content, "summary.tensors", summary_layout, device)
    _check_counts(tensors, most)
    update = None
    if "update" in content:
        update = Update(client, take(content, "update", update_layout, device))
    return Summary(client, examples, loss, steps, tensors), update


def _check_counts(tensors: Mapping[str, Tensor], most: int) -> None:
    """An utterance is behind one prototype of a site at most."""
    for name, counts in tensors.items():
        if not name.startswith(_COUNTS) or counts.is_floating_point() or not counts.numel():
            continue
        least, largest = int(counts.min()), int(counts.max())
        if least < 0 or largest > most or sum(map(int, counts.flatten().tolist())) > most:
            raise RefusedError(f"its {name} are {least} to {largest} utterances, of {most} in all")


def _short(value: object) -> str:
    """What somebody claims, as far as it fits into a sentence."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _layout(parts: Any) -> Layout:
    """A layout, out of whatever JSON can hold."""
    found = {}
    for name, shape, kind in parts:
        if not isinstance(name, str) or kind not in _KINDS or not isinstance(shape, list):
            raise ValueError("not a layout")
        if len(shape) > _MOST_AXES or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError("not a shape")
        # Beyond this the count of its numbers wraps around.
        if math.prod(max(n, 1) for n in shape) > _MOST_NUMBERS:
            raise ValueError("too large")
        if name in found:
            raise ValueError("a name occurs twice")
        found[name] = (name, torch.Size(shape), _KINDS[kind])
    return Layout(tuple(found.values()))


def _vector(array: Array, name: str, key: str, size: int) -> Tensor:
    data = bytes(array.data)
    try:
        shape, kind, start = _header(data)
    except Exception as error:
        raise RefusedError(f"its {name} cannot be decoded ({type(error).__name__})") from error
    if kind != np.dtype(key) or shape != (size,):
        raise RefusedError(f"its {name} are {kind} of shape {shape}, expected {key} of ({size},)")
    if len(data) - start != size * kind.itemsize:
        raise RefusedError(
            f"its {name} are {len(data) - start} bytes of {key}, expected {size * kind.itemsize}"
        )
    numbers = np.frombuffer(data, kind, offset=start)
    if kind.kind == "f" and not np.isfinite(numbers).all():
        raise RefusedError(f"its {name} hold NaN or infinity")
    if kind.kind == "b" and (numbers.view(np.uint8) > 1).any():
        raise RefusedError(f"its {name} hold what is neither true nor false")
    return torch.from_numpy(numbers.copy())


def _header(data: bytes) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Shape, type and where the numbers begin, of a file as ``numpy.save`` writes it.

    ``numpy.load`` would make room for whatever shape the header claims, and open archives.
    """
    file = io.BytesIO(data)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not what numpy.save writes for numbers")
    shape, _, kind = np.lib.format.read_array_header_1_0(file)
    return shape, kind, file.tell()
