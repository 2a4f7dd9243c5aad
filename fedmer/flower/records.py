"""Records of Flower as they cross a process's border; imports nothing heavy."""

from flwr.app import Array, ArrayRecord, ConfigRecord, Error, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedmer.printable import printable

_LONGEST = 2000
"""Characters of a sentence from another machine."""
_BROKE_DOWN = "broke down at its work; its node.log says why"
_WHY = {
    ErrorCode.LOAD_CLIENT_APP_EXCEPTION: _BROKE_DOWN,
    ErrorCode.CLIENT_APP_RAISED_EXCEPTION: _BROKE_DOWN,
    ErrorCode.CLIENT_APP_CRASHED: _BROKE_DOWN,
    ErrorCode.MESSAGE_UNAVAILABLE: "was not reached in time",
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE: "answered too late",
    ErrorCode.INVALID_FAB: "could not use what the server sent; install the same version on both",
}


def lost(seconds: float) -> str:
    """The end of a sentence about a node that is not connected any more.

    Args:
        seconds: Since it was last asked.
    """
    return f"has not answered for {seconds:.0f} s; it may be off or cut off"


def why(error: Error, seconds: float) -> str:
    """What Flower says of a message that got no answer, as the end of a sentence about the node.

    Args:
        error: Flower's.
        seconds: Since the node was asked.
    """
    if error.code == ErrorCode.NODE_UNAVAILABLE:
        return lost(seconds)
    return _WHY.get(error.code, f"failed: {_shown(error.reason or 'it did not say why')}")


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
    return _shown(content.config_records["failure"].get("sentence", "it failed"))


def _shown(words: object) -> str:
    """Somebody else's words, as much of them as is shown and nothing that a terminal obeys."""
    return printable(str(words)[:_LONGEST])
