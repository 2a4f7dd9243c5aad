"""A model out of a run's own files: its configuration and one of its checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fedmer import safe_yaml
from fedmer.bundle.contents import PARTS, Contents
from fedmer.checkpoint_entries import check_checkpoint
from fedmer.data.corpus import CorpusShape
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.standardise import Statistics
from fedmer.errors import InputError
from fedmer.plugins.aggregators._closed_form import MARK
from fedmer.record.reading import read_json
from fedmer.report.result import check_result
from fedmer.runs import CHECKPOINTS, CONFIG, LAST

RESULT = "result.json"
BEST = "best.ckpt"


def of_run(path: Path) -> Contents:
    """The model of a run.

    Args:
        path: The run's folder, which stands for the round selected by validation, or the last one
            where none was; or one of its checkpoints.

    Raises:
        InputError: It is no run, or a file is damaged.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a run, a checkpoint or a bundle.")
    run = path if path.is_dir() else path.resolve().parent.parent
    if not (run / CONFIG).is_file():
        raise InputError(
            f"{path} is no model: neither a bundle nor a run with a {CONFIG}; expected one of "
            "them, such as runs/NAME, or a checkpoint in its folder."
        )
    checkpoint = _checkpoint(run) if path.is_dir() else path
    return _contents(run, check_checkpoint(checkpoint), checkpoint.name)


def _checkpoint(run: Path) -> Path:
    for name in (BEST, LAST):
        if (run / CHECKPOINTS / name).is_file():
            return run / CHECKPOINTS / name
    raise InputError(
        f"{run} has no checkpoint, so that no model can be made of it; train it again."
    )


def _contents(run: Path, saved: Mapping[str, Any], name: str) -> Contents:
    config = safe_yaml.read(run / CONFIG)
    parts = {part: _spec(config, part, run) for part in PARTS}
    result = _result(run / RESULT)
    data = saved["FederatedDataModule"]
    given = config.get("data") if isinstance(config.get("data"), dict) else {}
    statistics = {
        modality: Statistics(own["mean"].float().numpy(), own["deviation"].float().numpy())
        for modality, own in data["statistics"].items()
    }
    which = "selected" if name == BEST else "last"
    evaluated = saved["callbacks"].get("RunRecord", {}).get("evaluated", {}).get(which)
    holdouts = result.get("holdouts")
    start = "network."
    return Contents(
        parts=parts,
        # Checkpoints made before 0.1 do not say how many people.
        shape=CorpusShape(data["features"], len(data["labels"]), data.get("speakers", 2)),
        labels=tuple(data["labels"]),
        weights={
            key.removeprefix(start): value
            for key, value in saved["state_dict"].items()
            if key.startswith(start)
        },
        tensors=_tensors(saved["fedmer"]),
        statistics=statistics if given.get("standardise") != "none" and statistics else None,
        extractors={
            modality: ExtractorRecord.from_json(made, f"{run}: what made '{modality}'")
            for modality, made in data.get("extractors", {}).items()
        },
        about={
            "name": run.resolve().name,
            "checkpoint": name,
            "which": which,
            "round": evaluated["round"] if evaluated else saved["epoch"] + 1,
            "seed": saved["fedmer"]["seed"],
            "privacy": config.get("privacy"),
            # Of the whole run: which round is kept was chosen in knowledge of all.
            "guarantee": (result.get("privacy") or saved["fedmer"].get("spent") or {}).get(
                "sentence"
            ),
            "scores": evaluated["scores"] if evaluated else {},
            "clients": len(saved["fedmer"]["sizes"]),
            "versions": result.get("versions", {}),
            "data": result.get("data", {}),
            # Without their names, which may be those of people.
            "holdouts": list(holdouts.values()) if isinstance(holdouts, dict) else [],
        },
    )


def _tensors(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """What the rule keeps; the mark of a round in closed form only after that round itself."""
    round = saved.get("round", 0)
    return {n: v for n, v in saved["tensors"].items() if n != MARK or int(v) == round}


def _result(path: Path) -> dict[str, Any]:
    """What ``result.json`` says; nothing for a run that is not finished."""
    if not path.is_file():
        return {}
    result = read_json(path)
    try:
        check_result(result)
    except ValueError as error:
        raise InputError(f"{path} cannot be read as the result of a run ({error}).") from None
    found: dict[str, Any] = result
    return found


def _spec(config: Any, part: str, run: Path) -> dict[str, Any]:
    spec = config.get(part) if isinstance(config, dict) else None
    if not isinstance(spec, dict) or not isinstance(spec.get("class_path"), str):
        raise InputError(f"{run / CONFIG} names no {part}; give the configuration of the run.")
    return spec
