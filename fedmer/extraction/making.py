"""Extractors out of their names and options, and records of them."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fedmer.contracts.extractor import Extractor
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.errors import InputError
from fedmer.plugins import registry

MEDIA = {"text": "text", "audio": "audio", "visual": "video"}
"""Modality -> what an extractor of it reads."""

_BLOCK = 1 << 20


@dataclass(frozen=True)
class ChosenExtractor:
    """A class and its options; small, so that every process makes the extractor itself.

    Args:
        class_path: Its dotted path, or the name of an installed extractor.
        init_args: Its options.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The dotted path.

        Raises:
            InputError: There is no extractor of that name.
        """
        if "." in self.class_path:
            return self.class_path
        known = {plugin.name: plugin.path for plugin in registry.plugins("extractors")}
        if self.class_path not in known:
            raise InputError(registry.unknown("extractor", self.class_path, known))
        return known[self.class_path]

    def make(self, modality: str) -> Extractor:
        """The extractor.

        Args:
            modality: What its features are called.

        Raises:
            InputError: It cannot be made, or reads something else than the modality is made of.
        """
        module, _, name = self.path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise InputError(f"--{modality} {self.class_path} cannot be used: {error}.") from error
        made: Extractor = found(**self.init_args)
        medium = MEDIA.get(modality, found.reads)
        if found.reads != medium:
            raise InputError(
                f"--{modality} {name}: {name} reads {found.reads}, but '{modality}' is made of "
                f"{medium}; choose another extractor."
            )
        return made

    def record(self, made: Extractor) -> ExtractorRecord:
        """What is to be known of an extractor that this has made."""
        return ExtractorRecord(
            self.path,
            dict(self.init_args),
            {name: _version(name) for name in sorted(made.packages)},
            digest(made.model_files()),
        )


def digest(files: "list[Path] | tuple[Path, ...] | Any") -> str:
    """16 hexadecimal digits of files' names and bytes, ``""`` of none.

    >>> digest([])
    ''
    """
    found = hashlib.sha256()
    for path in files:
        found.update(path.name.encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                found.update(block)
    return found.hexdigest()[:16] if files else ""


def again(record: ExtractorRecord, modality: str) -> ChosenExtractor:
    """The choice that makes the features of a record again.

    Raises:
        InputError: The record names a class that is no extractor that is installed here, or the
            extractor's model is another one here.
    """
    known = {plugin.path for plugin in registry.plugins("extractors")}
    if record.class_path not in known:
        raise InputError(
            f"'{modality}' was extracted by {record.class_path}, which is not installed here."
        )
    chosen = ChosenExtractor(record.class_path, record.init_args)
    here = chosen.record(chosen.make(modality))
    if here.digest != record.digest:
        raise InputError(
            f"'{modality}' was extracted by {record.name} with the model {record.digest}, but here "
            f"it has the model {here.digest}; install what made it: {record}."
        )
    return chosen


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
