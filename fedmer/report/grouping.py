"""Runs that differ in nothing but their seed are one row, and rows get names."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from fedmer.report.collect import Run

_PARTS = ("aggregator", "network", "partitioner")

# What cannot change a result, or is checked otherwise (the corpus by its fingerprint).
_IGNORED = (
    *("seed_everything", "name", "runs", "overwrite", "ckpt_path", "weights_only", "config"),
    *("executor", "data.path", "model.evaluate_clients"),
)
_TRAINER = (
    *("max_epochs", "max_steps", "precision", "check_val_every_n_epoch", "overfit_batches"),
    *("limit_train_batches", "limit_val_batches"),
)
"""The Trainer's options that can; the others say where and how it runs."""

_CIRCUMSTANCES = ("conditions", "privacy", "partitioner")
"""What makes the task of a run another one, so that a name says it even where a rule's would do."""


@dataclass(frozen=True, eq=False)
class Row:
    """Runs of one configuration, one a seed.

    Args:
        name: Unique in a report.
        runs: By ascending seed.
    """

    name: str
    runs: Sequence[Run]

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @property
    def personal(self) -> bool:
        return any(run.personal for run in self.runs)

    def of(self, seed: int) -> Run:
        return self.runs[self.seeds.index(seed)]


def rows_of(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """Group runs into rows, in the order in which they first come.

    Returns:
        The rows, and sentences on runs that repeat another one's seed and are left out.
    """
    groups: dict[str, dict[int, Run]] = {}
    notes = []
    for run in runs:
        group = groups.setdefault(json.dumps(_settings(run), sort_keys=True, default=str), {})
        if run.seed in group:
            notes.append(
                f"{run.path.name} has the configuration and seed of {group[run.seed].path.name} "
                "and is left out."
            )
        else:
            group[run.seed] = run
    members = [[group[seed] for seed in sorted(group)] for group in groups.values()]
    names = _names([group[0] for group in members])
    return [Row(name, group) for name, group in zip(names, members, strict=True)], notes


def constant_parts(rows: Sequence[Row]) -> dict[str, str]:
    """Rule, network and split, where all rows have the same; row names leave these out."""
    first = rows[0].runs[0].result
    return {
        part: first[part]
        for part in _PARTS
        if all(row.runs[0].result[part] == first[part] for row in rows)
    }


def _settings(run: Run) -> dict[str, Any]:
    """Everything that a result follows from besides corpus and seed, by dotted option."""
    flat = _flatten(run.config)
    kept = {
        name: value
        for name, value in flat.items()
        if not any(f"{name}.".startswith(f"{option}.") for option in ("trainer", *_IGNORED))
    }
    for name in _TRAINER:
        if f"trainer.{name}" in flat:
            kept[f"trainer.{name}"] = flat[f"trainer.{name}"]
    return kept | {part: run.result[part] for part in _PARTS}


def _flatten(tree: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A configuration by dotted option; a class stands under what it was chosen for.

    >>> _flatten({"selector": {"class_path": "fedmer.Uniform", "init_args": {"fraction": 0.5}}})
    {'selector': 'Uniform', 'selector.fraction': 0.5}
    >>> _flatten({"privacy": [{"class_path": "a.ClipNorm", "init_args": {"norm": 1.0}}]})
    {'privacy': 'ClipNorm', 'privacy.ClipNorm.norm': 1.0}
    """
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        name = above if key == "init_args" else f"{above}.{key}" if above else str(key)
        if isinstance(value, Mapping):
            flat |= _flatten(value, name)
        elif key == "class_path":
            flat[above] = str(value).rpartition(".")[2]
        elif isinstance(value, list) and value and all(map(_is_class, value)):
            chosen = [str(one["class_path"]).rpartition(".")[2] for one in value]
            flat[name] = "+".join(chosen)
            for one, called in zip(value, chosen, strict=True):
                flat |= _flatten(one.get("init_args") or {}, f"{name}.{called}")
        else:
            flat[name] = value
    return flat


def _is_class(value: object) -> bool:
    return isinstance(value, Mapping) and "class_path" in value


def _names(runs: Sequence[Run]) -> list[str]:
    """What distinguishes rows: a sweep's values, else rule, network, split and circumstances."""
    names = _given_names(runs)
    if names is not None and len(set(names)) == len(names):
        return names
    settings = [_settings(run) for run in runs]
    names = _differing(_part_names(runs), settings, range(len(runs)), _CIRCUMSTANCES)
    for name in {name for name in names if names.count(name) > 1}:
        group = [i for i, other in enumerate(names) if other == name]
        names = _differing(names, settings, group)
    # Two configurations can differ in an option that only another version of fedmer has.
    again: Counter[str] = Counter()
    unique = []
    for name in names:
        again[name] += 1
        unique.append(name if again[name] == 1 else f"{name} ({again[name]})")
    return unique


def _given_names(runs: Sequence[Run]) -> list[str] | None:
    """What a sweep varied besides the seed; None unless all runs are trials of one sweep."""
    if len({run.path.parent.resolve() for run in runs}) != 1 or not all(r.given for r in runs):
        return None
    varied = [
        name
        for name in runs[0].given
        if name != "seed_everything" and len({run.given.get(name) for run in runs}) > 1
    ]
    if not varied:
        return None
    return [
        ", ".join(_given_value(name, run.given.get(name, "")) for name in varied) for run in runs
    ]


def _given_value(name: str, value: str) -> str:
    """A file is known by its stem, a name or a path by its last part, a number by its option.

    >>> _given_value("config", "ablation/no_scores.yaml"), _given_value("aggregator.mu", "0.1")
    ('no_scores', 'mu=0.1')
    """
    if value.endswith((".yaml", ".yml")):
        return PurePath(value).stem
    if name in _PARTS or name == "network":
        return value.rpartition(".")[2]
    return f"{name.rpartition('.')[2]}={value}"


def _part_names(runs: Sequence[Run]) -> list[str]:
    varied = [part for part in _PARTS if len({run.result[part] for run in runs}) > 1]
    return [", ".join(str(run.result[part]) for part in varied or ["aggregator"]) for run in runs]


def _differing(
    names: Sequence[str],
    settings: Sequence[Mapping[str, Any]],
    group: Sequence[int],
    of: Sequence[str] = (),
) -> list[str]:
    """Add to the names of a group of rows the options in which they differ.

    An option that most of them agree on only stands in the names of those that do not.

    Args:
        names: Of all rows.
        settings: Likewise.
        group: Which of them.
        of: What the options are of; everything if empty. An option that names a part already says
            (the class of a partitioner) is not said twice.
    """
    options = sorted(
        option
        for option in {option for i in group for option in settings[i]}
        if not of or (option.partition(".")[0] in of and option not in _PARTS)
    )
    words: dict[int, list[str]] = {i: [names[i]] for i in group}
    for option in options:
        # An option that a row lacks is of a class that it did not choose, which its name says.
        values = {i: _shown(settings[i][option]) for i in group if option in settings[i]}
        commonest, count = Counter(values.values()).most_common(1)[0]
        for i, value in values.items():
            if of and value == "null":
                continue  # who has no conditions and no protection is called by the rest
            if len(set(values.values())) > 1 and (value != commonest or 2 * count <= len(group)):
                words[i].append(f"{_short(option, options)}={value}")
    return [", ".join(words.get(i, [name])) for i, name in enumerate(names)]


def _short(option: str, options: Sequence[str]) -> str:
    """``aggregator.mu`` as ``mu``, unless another option ends so too."""
    last = option.rpartition(".")[2]
    alone = sum(other.rpartition(".")[2] == last for other in options) == 1
    return last if alone else option


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)
