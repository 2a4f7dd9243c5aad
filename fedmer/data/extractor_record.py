"""What made the features of a modality, so that others can be made in the same way."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedmer.errors import InputError


@dataclass(frozen=True)
class ExtractorRecord:
    """An extractor as it was when it made features.

    Args:
        class_path: The dotted path of its class.
        init_args: Its options, by name; plain values.
        versions: Distribution -> version, of those that decide what the features are.
        digest: 16 hexadecimal digits of its model's files, ``""`` where it has none.
    """

    class_path: str
    init_args: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    digest: str = ""

    @property
    def name(self) -> str:
        """The class's name."""
        return self.class_path.rpartition(".")[2]

    def to_json(self) -> str:
        """One line of JSON, the same for equal records."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str, where: str) -> "ExtractorRecord":
        """The record that :meth:`to_json` wrote; nothing that it names is imported.

        Args:
            text: What was written.
            where: File and key, for the sentence.

        Raises:
            InputError: It is no such text.

        >>> record = ExtractorRecord("package.module.Name", {"size": 2}, {"torch": "2"})
        >>> ExtractorRecord.from_json(record.to_json(), "x.npz") == record
        True
        """
        try:
            found = json.loads(text)
            record = cls(**found)
        except (ValueError, TypeError, RecursionError):
            record = cls("")
        texts = (record.class_path, record.digest)
        tables = (record.init_args, record.versions)
        if (
            not all(isinstance(value, str) for value in texts)
            or not all(isinstance(value, dict) for value in tables)
            or not all(isinstance(value, str) for value in record.versions.values())
            or not all(word.isidentifier() for word in record.class_path.split("."))
        ):
            raise InputError(f"{where} is no record of an extractor; leave it out.")
        return record

    def __str__(self) -> str:
        options = [f"{name}={value}" for name, value in self.init_args.items()]
        versions = [f"{name} {version}" for name, version in self.versions.items()]
        model = [f"model {self.digest}"] if self.digest else []
        return f"{self.name}({', '.join(options)})" + "".join(f", {x}" for x in versions + model)
