"""Messages that Flower does not take at once are sent again, and cost no run."""

from typing import Any

import pytest
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError
from flwr.supercore.task_identity import TaskIdentity

from fedmer.flower.server import relay


class BusyGrid:
    """Refuses the first attempts, as Flower's does while a reply with an equal part comes in."""

    def __init__(self, refused: int) -> None:
        self.refused, self.taken = refused, list[Message]()

    def push_messages(self, messages: list[Message]) -> list[str]:
        if self.refused:
            self.refused -= 1
            raise ObjectPushError("part", 1, "session")
        self.taken += messages
        return [f"id {message.metadata.dst_node_id}" for message in messages]


@pytest.mark.parametrize("refused", [0, 1, 2, 3])
def test_a_refused_message_is_sent_again_and_then_lost_alone(
    refused: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "_PAUSE", 0.0)
    for name in ("_task_id", "_run_id", "_node_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)
    content = RecordDict({"round": ConfigRecord({"round": 0})})
    grid: Any = BusyGrid(refused)
    sent = relay.push(grid, [(4, content), (7, content)], "train", "0", 10.0)
    expected = ["id 4", "id 7"] if refused < 3 else [None, None]
    assert [name for name, _ in sent] == expected
    assert [m.metadata.dst_node_id for m in grid.taken] == ([4, 7] if refused < 3 else [])
