"""How well each group of speakers is served, by a file that says who is of which group."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.record.votes import FILE, read_votes
from fedmer.report.collect import collect
from tests.report.made import CORPUS, make_run, predictions

PEOPLE = sorted({name for i in CORPUS.part("test") for name in CORPUS.conversations[i].people})


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        make_run(tmp_path / f"avg{seed}", seed)
        networks = [predictions(0.7, 10 * seed + i) for i in range(3)]
        make_run(tmp_path / f"own{seed}", seed, "FedProto", networks=networks)
    return tmp_path


def groups_file(folder: Path, groups: dict[str, str]) -> Path:
    path = folder / "speakers.csv"
    rows = [f"{speaker},{group}" for speaker, group in groups.items()]
    path.write_text("\n".join(["\ufeffspeaker,group", *rows]) + "\n", encoding="utf-8")
    return path


def test_votes_say_who_spoke(runs: Path) -> None:
    votes = read_votes(runs / "avg0" / FILE, "last")
    assert votes is not None
    assert votes.speaker is not None
    dialogues = {dialogue.id: dialogue for dialogue in CORPUS.conversations}
    for dialogue, turn, speaker in zip(votes.dialogue, votes.turn, votes.speaker, strict=True):
        assert dialogues[str(dialogue)].speakers[turn] == speaker


def test_scores_of_a_group_are_those_of_its_speakers_utterances(runs: Path) -> None:
    groups = {name: "odd" if place % 2 else "even" for place, name in enumerate(PEOPLE)}
    path = groups_file(runs, groups)
    assert main(["report", str(runs), "--groups", str(path), "--out", str(runs / "out")]) == 0
    with (runs / "out" / "groups.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["group"]) for row in rows] == [
        (name, group) for name in ("FedAvg", "FedProto") for group in ("even", "odd")
    ]
    for row in rows:
        own = [run for run in collect([runs]).runs if run.result["aggregator"] == row["row"]]
        accuracies = []
        for run in own:
            votes = run.votes
            assert votes is not None
            assert votes.speaker is not None
            inside = np.array([groups.get(str(name)) == row["group"] for name in votes.speaker])
            right = votes.counts[np.arange(len(votes.truth)), votes.truth][inside].sum()
            accuracies.append(100 * right / votes.counts[inside].sum())
            assert int(row["utterances"]) == inside.sum()
            assert int(row["speakers"]) == len(set(votes.speaker[inside].tolist()))
        assert float(row["accuracy"]) == pytest.approx(np.mean(accuracies), abs=1e-4)
    for one, other in (rows[:2], rows[2:]):
        # Of two groups each is the other's others.
        gap = float(one["weighted_f1"]) - float(other["weighted_f1"])
        assert float(one["difference"]) == pytest.approx(gap, abs=2e-4)
        assert float(other["difference"]) == pytest.approx(-gap, abs=2e-4)
    page = (runs / "out" / "index.html").read_text()
    assert 'href="groups.csv"' in page
    # Without groups a later report has none of an older one's.
    assert main(["report", str(runs), "--out", str(runs / "out")]) == 0
    assert not (runs / "out" / "groups.csv").exists()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("speaker,sex\na,f\n", "names no groups; expected a CSV file with the columns"),
        ("", "names no groups"),
        ("speaker,group\na,f\na,m\n", "puts 'a' into 'f' and into 'm'; keep one."),
        ("speaker,group\nnobody,f\n", "There are no groups to compare."),
        ("speaker,group\na,f,m\n", "cannot be read"),
    ],
)
def test_what_says_nothing_of_groups_is_a_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], content: str, sentence: str
) -> None:
    path = runs / "speakers.csv"
    path.write_text(content)
    assert main(["report", str(runs), "--groups", str(path)]) == 2
    assert sentence in capsys.readouterr().err
    assert not (runs / "report").exists()


def test_who_has_no_group_is_named(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = groups_file(runs, {PEOPLE[0]: "a", PEOPLE[1]: ""})
    assert main(["report", str(runs), "--groups", str(path)]) == 0
    assert f"Without a group, and left out there: {PEOPLE[1]}." in capsys.readouterr().out


def test_runs_without_speakers_say_so(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run in ("own0", "own1"):
        with np.load(runs / run / FILE) as votes:
            kept = {name: votes[name] for name in votes.files if name != "speaker"}
        np.savez(runs / run / FILE, **kept)
    path = groups_file(runs, dict.fromkeys(PEOPLE, "all"))
    assert main(["report", str(runs), "--groups", str(path)]) == 0
    assert "FedProto kept no speakers with its votes" in capsys.readouterr().out
    table = (runs / "report" / "groups.csv").read_text()
    assert "FedProto" not in table
    assert "FedAvg,all" in table
