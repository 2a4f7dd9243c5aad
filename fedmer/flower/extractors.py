"""What made the features of nodes, as records that cross in text and are measured on arrival."""

from collections.abc import Iterable, Mapping, Sequence

from fedmer.data.extractor_record import ExtractorRecord
from fedmer.errors import InputError
from fedmer.flower.wire import RefusedError
from fedmer.printable import printable

_LONGEST = 4000
"""Characters of one record; those of fedmer's extractors have a few hundred."""


def put_extractors(records: Mapping[str, ExtractorRecord], modalities: Iterable[str]) -> list[str]:
    """One text a modality, ``""`` where it is not known what made its features.

    Raises:
        InputError: A record is longer than any that is read, or not what a terminal may have.
    """
    texts = [records[name].to_json() if name in records else "" for name in modalities]
    try:
        take_extractors(texts, list(modalities))
    except RefusedError as error:
        raise InputError(f"its corpus says what made its features, but {error}") from error
    return texts


def take_extractors(texts: object, modalities: Sequence[str]) -> dict[str, ExtractorRecord]:
    """What :func:`put_extractors` wrote, from anybody; nothing that it names is imported.

    Raises:
        RefusedError: It is not that.

    >>> record = ExtractorRecord("package.module.Name", {"size": 2})
    >>> texts = put_extractors({"text": record}, ["text", "audio"])
    >>> take_extractors(texts, ["text", "audio"]) == {"text": record}
    True
    """
    if not isinstance(texts, list) or len(texts) != len(modalities):
        raise RefusedError(f"it does not say of {len(modalities)} modalities what made them")
    return {name: _record(text, name) for name, text in zip(modalities, texts, strict=True) if text}


def unlike(one: Mapping[str, ExtractorRecord], other: Mapping[str, ExtractorRecord]) -> str | None:
    """The first modality that two were made by different extractors of, as far as both say.

    >>> made, again = ExtractorRecord("a.Voice", digest="f0"), ExtractorRecord("a.Voice")
    >>> unlike({"audio": made}, {"audio": again}), unlike({"audio": made}, {})
    ('audio', None)
    """
    both = (name for name in one if name in other)
    return next((name for name in both if one[name] != other[name]), None)


def _record(text: object, modality: str) -> ExtractorRecord:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise RefusedError(f"the record of '{modality}' has over {_LONGEST} characters, or none")
    try:
        record = ExtractorRecord.from_json(text, f"the record of '{modality}'")
        shown = str(record)
    except (InputError, RecursionError) as error:
        raise RefusedError(f"the record of '{modality}' cannot be read") from error
    if printable(shown) != shown:
        raise RefusedError(f"the record of '{modality}' holds characters that steer a terminal")
    return record
