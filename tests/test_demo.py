"""A first model: made-up dialogues in words, trained, asked, and ready to be asked more."""

import io
import re
import shlex
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.bundle.model import load
from fedmer.commands import demo
from fedmer.data.formats.tables.read import read_table
from fedmer.demo import dialogues
from fedmer.demo.dialogues import EMOTIONS, SPEAKERS, patterns, spoken_table, write_table
from fedmer.demo.everyday import EVERYDAY
from fedmer.demo.phrases import PATTERNS, WORDS
from fedmer.demo.quiz import answers

pytest.importorskip("wordllama", reason="the demo makes features with it")
FEW = {"train": 40, "val": 6, "test": 6}
TINY = ("--partitioner", "Central", "--network", "Window", "--network.window", "0")
ROUNDS = ("--trainer.max_epochs", "6", "--trainer.accelerator", "cpu")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a small demo ran; ``said.txt`` is what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(dialogues, "DIALOGUES", FEW)
        patch.setattr(demo, "TRAINING", (*TINY, *ROUNDS))
        out = io.StringIO()
        patch.setattr("sys.stdout", out)
        assert main(["demo"]) == 0
    (folder / "said.txt").write_text(out.getvalue(), encoding="utf-8")
    return folder


def test_no_part_says_what_another_can_say() -> None:
    for emotion, known in PATTERNS.items():
        parts = [set(patterns(emotion, part)) for part in dialogues.DIALOGUES]
        assert sum(map(len, parts)) == len(set(known)) == len(known)
        assert all(parts)
    people = [name for names in SPEAKERS.values() for name in names]
    assert len(people) == len(set(people))
    rows = spoken_table().utterances
    assert {(u.split, u.speaker) for u in rows} == {
        (part, name) for part, names in SPEAKERS.items() for name in names
    }


def test_dialogues_are_a_function_of_the_seed() -> None:
    said = [[u.text for u in spoken_table(seed).utterances] for seed in (0, 0, 1)]
    assert said[0] == said[1] != said[2]


def test_every_sentence_is_whole() -> None:
    for row in spoken_table(3).utterances:
        assert not re.search(r"[{}()|]", row.text), row.text
        assert row.text[0].isupper()
        assert row.text[-1] in ".!?"
    names = {n for ps in PATTERNS.values() for p in ps for n in re.findall(r"\{(\w+)\}", p)}
    assert names <= set(WORDS)


def test_dialogues_survive_a_file(tmp_path: Path) -> None:
    table = spoken_table(1)
    write_table(table, tmp_path / "words.csv")
    assert read_table(tmp_path / "words.csv").utterances == table.utterances


def test_questions_are_of_the_emotions_and_none_is_learnt() -> None:
    assert tuple(EVERYDAY) == EMOTIONS
    learnt = {u.text.lower() for u in spoken_table().utterances}
    assert not learnt & {words.lower() for group in EVERYDAY.values() for words in group}


def test_it_says_commands_that_do_the_same(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (done / "said.txt").read_text(encoding="utf-8")
    steps = [shlex.split(line)[2:] for line in said.splitlines() if line.startswith("$ fedmer ")]
    assert [words[0] for words in steps] == ["extract", "fit"]
    monkeypatch.chdir(done)
    assert main([*steps[1], "--name", "again"]) == 0
    first, again = (load(f"runs/{name}") for name in ("demo", "again"))
    assert answers(first, EVERYDAY) == answers(again, EVERYDAY)


def test_the_last_line_asks_the_model(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = (done / "said.txt").read_text(encoding="utf-8")
    (line,) = [line for line in said.splitlines() if line.startswith("  echo ")]
    echo, _, command = line.strip().partition(" | ")
    monkeypatch.chdir(done)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stdin", io.StringIO(shlex.split(echo)[1] + "\n"))
    assert main(shlex.split(command)[1:]) == 0
    shown = capsys.readouterr().out
    assert "I can't believe you did that" in shown
    assert any(emotion in shown for emotion in EMOTIONS)


def test_it_says_what_the_model_is_worth(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = (done / "said.txt").read_text(encoding="utf-8")
    monkeypatch.chdir(done)
    right = sum(answer.right for answer in answers(load("runs/demo"), EVERYDAY))
    assert f"{right} of 60 such sentences are named as they were meant" in said
    # Six rounds on forty dialogues; guessing is right for 10.
    assert right > 20


def test_nothing_is_replaced_unasked(
    done: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(done)
    before = (done / "runs" / "demo.csv").stat().st_mtime_ns
    assert main(["demo"]) == 2
    assert "runs/demo exists; choose another --name" in capsys.readouterr().err
    (done / "runs" / "mine.npz").write_bytes(b"mine")
    assert main(["demo", "--name", "mine"]) == 2
    assert "runs/mine.npz exists; choose another --name or add" in capsys.readouterr().err
    assert not (done / "runs" / "mine.csv").exists()
    assert main(["demo", "--name", "x", "--seed", "-1"]) == 2
    assert "--seed is -1" in capsys.readouterr().err
    assert (done / "runs" / "demo.csv").stat().st_mtime_ns == before


@pytest.mark.slow
def test_the_whole_of_it_is_sensible(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["demo"]) == 0
    assert sum(answer.right for answer in answers(load("runs/demo"), EVERYDAY)) >= 33
    monkeypatch.setattr("sys.stdin", io.StringIO("A: I can't believe you did that\n"))
    assert main(["predict", "runs/demo/model", "-"]) == 0
    assert "angry" in capsys.readouterr().out
