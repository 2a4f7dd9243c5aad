"""Records of Flower as they cross a process's border; imports nothing heavy."""

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects


def portable(content: RecordDict) -> RecordDict:
    """A copy that can be pickled: what Flower has sent or measured holds views of buffers."""
    copy = RecordDict()
    for name, record in content.items():
        if isinstance(record, ArrayRecord):
            record = ArrayRecord(
                {key: Array(a.dtype, a.shape, a.stype, bytes(a.data)) for key, a in record.items()}
            )
        copy[name] = record
    return copy


def size(content: RecordDict) -> int:
    """Bytes of a message's content as Flower serialises it."""
    return sum(len(part.deflate()) for part in get_all_nested_objects(content).values())


def put_failure(content: RecordDict, sentence: str) -> None:
    """Say that it went wrong."""
    content["failure"] = ConfigRecord({"sentence": sentence})


def take_failure(content: RecordDict) -> str | None:
    """What went wrong at the sender, or None."""
    if "failure" not in content:
        return None
    return str(content.config_records["failure"].get("sentence", "it failed"))[:2000]
