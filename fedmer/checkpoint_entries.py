"""Is a checkpoint what ``fedmer fit`` wrote? Measured before it is loaded, looked through after."""

import traceback
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.trainer.connectors.checkpoint_connector import _CheckpointConnector
from torch import Tensor

from fedmer.data.formats.archive import Measured
from fedmer.errors import InputError
from fedmer.weights import not_finite, tensors_in

_SPEAKERS = 1000
"""In a dialogue, beyond any; a network is built for as many."""

_DEEPEST = 1000
"""Characters of the names of an entry and of all that hold it, beyond any."""

Check = Callable[[Any], bool]


def check_archive(path: Path) -> None:
    """See that a file is an archive as torch writes it, which unpacks to no more than it has.

    Raises:
        ValueError: It is not; or it is packed, as torch's never are.
        OSError: It cannot be read.
        BadZipFile: It is damaged.
    """
    size = path.stat().st_size
    with path.open("rb") as file, zipfile.ZipFile(Measured(file)) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise ValueError("it is packed, as no checkpoint of torch is")
    if sum(member.file_size for member in members) > size:
        raise ValueError("it claims to hold more than it has")


def wrong_entry(content: Any, size: int) -> str | None:
    """What is wrong with a checkpoint, as the end of a sentence; None if nothing is.

    Args:
        content: As torch loaded it.
        size: Bytes of its file. No tensor that was saved has more.
    """
    if not isinstance(content, dict) or "fedmer" not in content or "state_dict" not in content:
        return "is not a checkpoint of fedmer"
    wrong = _wrong_tensor(content, size) or _mismatch(content, _ENTRIES, "")
    if wrong is None:
        # Checkpoints made before 0.1 do not say; their data does.
        people = content["FederatedDataModule"].get("speakers", 0)
        if not _whole(people) or people > _SPEAKERS:
            return "has an entry 'FederatedDataModule.speakers' that is no number of people"
        extractors = content["FederatedDataModule"].get("extractors", {})
        if not isinstance(extractors, dict) or not all(map(_text, extractors.values())):
            return "has an entry 'FederatedDataModule.extractors' that is no records"
        if not isinstance(content["fedmer"].get("remote", False), bool):
            return "has an entry 'fedmer.remote' that is neither true nor false"
        if not _is_average(content["fedmer"].get("average")):
            return "has an entry 'fedmer.average' that is no mean of networks"
        if not _is_guarantee(content["fedmer"].get("spent")):
            return "has an entry 'fedmer.spent' that is no promise of privacy"
        evaluated = content["callbacks"].get("RunRecord", {}).get("evaluated", {})
        for name, entry in evaluated.items() if isinstance(evaluated, dict) else ():
            if not _is_evaluated(entry):
                return f"has an entry 'callbacks.RunRecord.evaluated.{name}' that is no scores"
    return wrong


def check_checkpoint(path: Path) -> dict[str, Any]:
    """Open a checkpoint without executing anything in it, and see that it is one of ours.

    Raises:
        InputError: It is missing, damaged, of another program, or not finite.
    """
    if not path.is_file():
        raise InputError(f"There is no checkpoint {path}; look in the run's checkpoints folder.")
    try:
        check_archive(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise InputError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}); it is damaged or of "
            "another program. Use another one, such as best.ckpt beside it."
        ) from error
    wrong = wrong_entry(content, path.stat().st_size)
    if wrong is not None:
        raise InputError(f"{path} {wrong}; give one that 'fedmer fit' wrote.")
    for name, tensor in tensors_in({k: content[k] for k in ("state_dict", "fedmer")}).items():
        if not_finite({name: tensor}):
            raise InputError(
                f"{path} holds NaN or infinity, first in '{name}', so that nothing can be made of "
                "it; use another one, such as best.ckpt beside it, or train again with a lower "
                "learning rate."
            )
    entries: dict[str, Any] = content
    return entries


def restored(error: BaseException) -> str | None:
    """The checkpoint that Lightning was restoring when this error came up; None otherwise."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        owner = frame.f_locals.get("self")
        if isinstance(owner, _CheckpointConnector) and frame.f_code.co_name.strip("_")[:2] == "re":
            return str(owner.trainer.ckpt_path)
    return None


def _wrong_tensor(content: Any, size: int) -> str | None:
    """Look at every tensor, in containers that may hold one another."""
    waiting: list[tuple[str, Any]] = [("", content)]
    seen: set[int] = set()
    while waiting:
        where, value = waiting.pop()
        if isinstance(value, Tensor):
            plain = value.layout is torch.strided and value.device.type == "cpu"
            if not plain or value.numel() * value.element_size() > size:
                return f"has an entry '{where}' that is no plain tensor, or larger than the file"
        elif isinstance(value, dict | list | tuple) and id(value) not in seen:
            seen.add(id(value))
            if len(where) > _DEEPEST:
                return f"has an entry '{where[:40]}...' that is nested too deeply"
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            waiting += [(f"{where}.{key}".strip("."), part) for key, part in parts]
    return None


def _mismatch(content: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> str | None:
    for key, kind in expected.items():
        name = f"{where}.{key}".strip(".")
        if key not in content:
            return f"lacks the entry '{name}'"
        inner = content[key]
        if isinstance(kind, dict):
            if not isinstance(inner, dict):
                return f"has an entry '{name}' that is {type(inner).__name__}, not dict"
            found = _mismatch(inner, kind, name)
            if found:
                return found
        elif not kind(inner):
            return f"has an entry '{name}' that is of another kind than fedmer writes"
    return None


def _whole(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _tensors(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(part, Tensor) for name, part in value.items()
    )


def _mappings(value: Any) -> bool:
    """Such as what each callback keeps."""
    return isinstance(value, dict) and all(isinstance(part, dict) for part in value.values())


def _list(value: Any) -> bool:
    return isinstance(value, list)


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_whole, value))


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value))


def _features(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_text, value)) and all(map(_whole, value.values()))


def _statistics(value: Any) -> bool:
    return _mappings(value) and all(
        isinstance(one.get(name), Tensor) and one[name].ndim == 1 and one[name].is_floating_point()
        for one in value.values()
        for name in ("mean", "deviation")
    )


def _is_average(value: Any) -> bool:
    """A mean of the last global networks, or none."""
    return value is None or (
        isinstance(value, dict)
        and value.keys() == {"rounds", "total", "weights"}
        and all(isinstance(value[name], float) for name in ("rounds", "total"))
        and _tensors(value["weights"])
    )


def _is_guarantee(value: Any) -> bool:
    """What rounds have told of any client, or none."""
    return value is None or (
        isinstance(value, dict)
        and all(isinstance(value.get(name), float) for name in ("epsilon", "delta"))
        and _text(value.get("sentence"))
    )


def _is_evaluated(entry: Any) -> bool:
    """A round and its scores by part."""
    return (
        isinstance(entry, dict)
        and _whole(entry.get("round"))
        and _mappings(entry.get("scores"))
        and all(map(_is_scores, entry["scores"].values()))
    )


def _is_scores(scores: Mapping[str, Any]) -> bool:
    lists = ("precision", "recall", "f1")
    numbers = ("accuracy", "weighted_f1", "macro_f1", "uar")
    matrix = scores.get("confusion")
    return (
        scores.keys() == {*lists, *numbers, "confusion"}
        and all(isinstance(scores[name], float) for name in numbers)
        and all(isinstance(scores[name], list) for name in lists)
        and isinstance(matrix, list)
        and all(_sizes(row) and len(row) == len(matrix) for row in matrix)
    )


_ENTRIES: Mapping[str, Any] = {
    "epoch": _whole,
    "global_step": _whole,
    "pytorch-lightning_version": _text,
    "state_dict": _tensors,
    "loops": {"fit_loop": {"epoch_progress": {}}},
    "callbacks": _mappings,
    "optimizer_states": _list,
    "lr_schedulers": _list,
    "FederatedDataModule": {"labels": _texts, "features": _features, "statistics": _statistics},
    "fedmer": {
        "aggregator": _text,
        "network": _text,
        "seed": _whole,
        "sizes": _sizes,
        "tensors": _tensors,
        "executor": {},
    },
}
