"""What servers and nodes write of each other: counted once, by several processes at a time."""

import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

from fedmer.errors import InputError
from fedmer.flower.deploy.activity import Activity, Contact, note_contact, note_messages

NAMES = ("node-0", "node-1", "node-2")
BYTES = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 2**40))


@given(st.lists(st.tuples(BYTES, BYTES, st.integers(0, 9), st.sets(st.sampled_from(NAMES)))))
def test_bytes_add_up_and_rounds_are_the_last(tmp_path_factory, rounds) -> None:
    path = tmp_path_factory.mktemp("activity") / "activity.json"
    for down, up, number, finished in rounds:
        note_messages(path, down, up, number, finished)
    known = Activity.read(path)
    assert known.round == next((n for *_, n, _ in reversed(rounds) if n), 0)
    for name in NAMES:
        own = known.of(name)
        assert own.down == sum(down.get(name, 0) for down, *_ in rounds)
        assert own.up == sum(up.get(name, 0) for _, up, *_ in rounds)
        assert own.round == next((n for *_, n, f in reversed(rounds) if n and name in f), 0)


def test_a_node_is_seen_last_when_it_was_heard_of_last(tmp_path: Path) -> None:
    path = tmp_path / "activity.json"
    note_messages(path, {"node-0": 1}, {"node-0": 2}, 3, {"node-0"})
    note_contact(path, {"node-0": (True, 50.0)})
    note_contact(path, {"node-0": (False, 0.0)})
    assert Activity.read(path) == Activity(3, {"node-0": Contact(False, 50.0, 3, 1, 2)})


def _add(path: Path) -> None:
    os.fsync = lambda descriptor: None  # type: ignore[assignment]
    for _ in range(100):
        note_messages(path, {"node-0": 1}, {"node-0": 2})


def test_two_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "activity.json"
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_add, args=(path,)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert Activity.read(path).of("node-0") == Contact(down=200, up=400)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"round": -1, "nodes": {}}',
        '{"round": 1, "nodes": {"a": {}}}',
        '{"round": 1, "nodes": {"a": {"connected": 1, "seen": 0, "round": 0, "down": 0, "up": 0}}}',
        '{"round": 0, "nodes": {"a": '
        '{"connected": true, "seen": 1e300, "round": 0, "down": 0, "up": 0}}}',
        '{"round": 0, "nodes": {"a": '
        '{"connected": true, "seen": NaN, "round": 0, "down": 0, "up": 0}}}',
    ],
)
def test_a_damaged_file_is_told_and_stops_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "activity.json"
    path.write_text(content)
    with pytest.raises(InputError, match="delete it, and counting begins anew"):
        Activity.read(path)
    note_messages(path, {"node-0": 5}, {})
    assert Activity.read(path).of("node-0").down == 5


def test_a_folder_that_is_gone_stops_nobody(tmp_path: Path) -> None:
    note_contact(tmp_path / "gone" / "activity.json", {"node-0": (True, 1.0)})
    assert not (tmp_path / "gone").exists()
