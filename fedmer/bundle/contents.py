"""What a bundle holds, in memory: a description in plain values, and tensors."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from fedmer.data.corpus import CorpusShape
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.standardise import Statistics
from fedmer.messages import Weights

FORMAT = 1
"""The version of the files that this fedmer writes, and the newest that it reads."""
PARTS = ("network", "aggregator", "partitioner")
_PEOPLE, _CLASSES, _WIDTH = 1000, 500, 2**20
"""Beyond any corpus: people in a dialogue, emotions, dimensions of a modality."""


@dataclass(frozen=True, eq=False)
class Contents:
    """Everything that a prediction needs.

    Args:
        parts: ``network``, ``aggregator`` (the rule may predict in a way of its own) and
            ``partitioner`` (from whose side a dialogue is seen): class paths and options.
        shape: What the network is built for.
        labels: The emotions, in the order of the network's classes.
        weights: The global network's.
        tensors: What the rule keeps besides, such as prototypes.
        statistics: Modality -> what its features are standardised by; None where they are not.
        extractors: Modality -> what made its features, where the corpus said so.
        temperature: What logits are divided by before they become probabilities, if calibrated
            ones are asked for; None where there was nothing to fit it on.
        about: What a model card says: data, scores, round, privacy, versions.
    """

    parts: Mapping[str, Mapping[str, Any]]
    shape: CorpusShape
    labels: tuple[str, ...]
    weights: Weights
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    statistics: Mapping[str, Statistics] | None = None
    extractors: Mapping[str, ExtractorRecord] = field(default_factory=dict)
    temperature: float | None = None
    about: Mapping[str, Any] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """All but the tensors, as JSON has it."""
        return {
            "format": FORMAT,
            **{name: self.parts[name] for name in PARTS},
            "features": dict(self.shape.features),
            "speakers": self.shape.speakers,
            "labels": list(self.labels),
            "standardised": self.statistics is not None,
            "extractors": {name: asdict(made) for name, made in self.extractors.items()},
            "temperature": self.temperature,
            "about": dict(self.about),
        }

    def named_tensors(self) -> dict[str, Tensor]:
        """All tensors by the names that they have in the file."""
        import torch

        named = {f"network/{name}": value for name, value in self.weights.items()}
        named |= {f"rule/{name}": value for name, value in self.tensors.items()}
        for modality, own in (self.statistics or {}).items():
            named[f"mean/{modality}"] = torch.from_numpy(own.mean)
            named[f"deviation/{modality}"] = torch.from_numpy(own.deviation)
        return named

    @classmethod
    def of(cls, description: Any, named: Mapping[str, Tensor]) -> "Contents":
        """The same again, from what stands in files, which may be anybody's.

        Raises:
            ValueError: Something is missing or of another kind; the message names it.
        """
        found = _checked(description)

        def below(place: str) -> dict[str, Tensor]:
            start = f"{place}/"
            return {k.removeprefix(start): v for k, v in named.items() if k.startswith(start)}

        statistics = None
        if found["standardised"]:
            means, deviations = below("mean"), below("deviation")
            statistics = {}
            for modality, width in found["features"].items():
                own = means.get(modality), deviations.get(modality)
                if any(part is None or part.shape != (width,) for part in own):
                    raise ValueError(f"it has no mean and deviation of '{modality}' of {width}")
                mean, deviation = (part.float().numpy() for part in own if part is not None)
                statistics[modality] = Statistics(mean, deviation)
        return cls(
            parts={name: found[name] for name in PARTS},
            shape=CorpusShape(found["features"], len(found["labels"]), found["speakers"]),
            labels=tuple(found["labels"]),
            weights=below("network"),
            tensors=below("rule"),
            statistics=statistics,
            extractors={
                name: ExtractorRecord.from_json(json.dumps(made), f"what made '{name}'")
                for name, made in found["extractors"].items()
            },
            temperature=found["temperature"],
            about=found["about"],
        )


def _checked(description: Any) -> dict[str, Any]:
    if not isinstance(description, dict):
        raise ValueError("it is no description of a model")
    _check_version(description.get("format"))
    for name, kind in _KINDS.items():
        if not isinstance(description.get(name), kind):
            raise ValueError(f"its '{name}' is missing or of another kind")
    for name in PARTS:
        if not isinstance(description[name].get("class_path"), str):
            raise ValueError(f"its '{name}' names no class")
    features, labels = description["features"], description["labels"]
    if not features or not all(_is_whole(width, _WIDTH) for width in features.values()):
        raise ValueError("its 'features' are no dimensions of modalities")
    if not 2 <= len(labels) <= _CLASSES or not all(isinstance(name, str) for name in labels):
        raise ValueError("its 'labels' are no names of emotions")
    if not _is_whole(description["speakers"], _PEOPLE):
        raise ValueError("its 'speakers' is no number of people")
    temperature = description["temperature"]
    if temperature is not None and not 1e-3 <= temperature <= 1e3:
        raise ValueError("its 'temperature' is out of range")
    return description


def _check_version(version: Any) -> None:
    if not _is_whole(version, 2**31):
        raise ValueError("its 'format' is no version")
    if version > FORMAT:
        raise ValueError(
            f"it is of format {version}, which a newer fedmer wrote; this one reads up to "
            f"{FORMAT}, so upgrade it"
        )


def _is_whole(value: Any, most: int) -> bool:
    return type(value) is int and 1 <= value <= most


_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys((*PARTS, "features", "extractors", "about"), dict),
    "labels": list,
    "standardised": bool,
    "temperature": (float, type(None)),
}
