"""Features of new clips, made in the way of those that a model was trained on."""

from collections.abc import Mapping
from contextlib import closing

from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats.tables.utterance import UtteranceTable
from fedmer.errors import InputError
from fedmer.extraction.making import MEDIA, again
from fedmer.extraction.run import FIELDS, Extraction, extract
from fedmer.files import TemporaryFolder


def extract_as_recorded(
    table: UtteranceTable, records: Mapping[str, ExtractorRecord]
) -> Extraction:
    """Extract each modality that the table has words or recordings for.

    Args:
        table: Rows without features.
        records: Modality -> what made the model's features.

    Raises:
        InputError: An extractor is not installed here or has another model, or the table has
            nothing that any of them reads.
    """
    chosen = {
        modality: again(record, modality)
        for modality, record in records.items()
        if table.fields.intersection(FIELDS[MEDIA.get(modality, "text")])
    }
    if not chosen:
        made = ", ".join(f"'{modality}' by {record.name}" for modality, record in records.items())
        raise InputError(
            f"{table.path} has neither words nor recordings of what the model was trained on: "
            f"{made}."
        )
    with closing(TemporaryFolder()) as folder:
        return extract(table, chosen, folder.path)
