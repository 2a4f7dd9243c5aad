"""Which extractors a federation's nodes use, in a file that travels in each node's folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmer import safe_yaml
from fedmer.errors import InputError
from fedmer.extraction.making import MEDIA, ChosenExtractor
from fedmer.plugins import registry


@dataclass(frozen=True)
class ExtractionSettings:
    """What the clips of all nodes have in common.

    Args:
        chosen: Modality -> extractor; at least one.
        labels: The emotions in their order, the same on every node.
    """

    chosen: Mapping[str, ChosenExtractor]
    labels: Sequence[str]

    @classmethod
    def read(cls, path: Path) -> "ExtractionSettings":
        """Read a file of the same form as ``fedmer extract --config``.

        It names installed extractors only, since it comes from whoever made the federation.

        Args:
            path: YAML: ``text``, ``audio``, ``visual``, each a name or ``class_path`` and
                ``init_args``; and ``labels``.

        Raises:
            InputError: It cannot be read, has another key, or names no installed extractor.
        """
        content = safe_yaml.read(path)
        if not isinstance(content, dict) or not content.keys() - {"labels"}:
            raise InputError(f"{path} names no extractors; expected text, audio or visual.")
        unknown = sorted(content.keys() - {*MEDIA, "labels"})
        if unknown:
            raise InputError(f"{path}: {registry.unknown('key', unknown[0], [*MEDIA, 'labels'])}")
        labels = content.pop("labels", None)
        if not isinstance(labels, list) or not all(isinstance(x, str) for x in labels):
            raise InputError(
                f"{path} lacks 'labels', a list of the emotions in their order, which has to be "
                "the same on every node."
            )
        return cls({m: _chosen(m, said, path) for m, said in content.items()}, labels)


def _chosen(modality: str, said: Any, path: Path) -> ChosenExtractor:
    found = {"class_path": said} if isinstance(said, str) else said
    plugins = registry.plugins("extractors")
    known = {plugin.name for plugin in plugins} | {plugin.path for plugin in plugins}
    if not isinstance(found, dict) or found.keys() - {"class_path", "init_args"}:
        raise InputError(f"{path}: '{modality}' is no name, nor class_path and init_args.")
    name, options = found.get("class_path"), found.get("init_args") or {}
    if name not in known:
        raise InputError(f"{path}: {registry.unknown('extractor', str(name), known)}")
    if not isinstance(options, dict):
        raise InputError(f"{path}: init_args of '{modality}' are no options by name.")
    return ChosenExtractor(name, options)
