"""From clips and words to predictions: extracted as the model's features were, in any process."""

import csv
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fedmer
from fedmer.__main__ import main
from fedmer.data.formats import read_corpus
from tests.data.test_releases import iemocap, meld
from tests.extraction.test_extract import AUDIO, TEXT, clips, write_table

TRAIN = ("--trainer.max_epochs", "2", "--network.hidden", "8", "--network.heads", "2")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen clips, a run on both modalities and one on words alone, two rounds each."""
    folder = tmp_path_factory.mktemp("predict")
    rows = clips(folder)
    write_table(folder / "clips.csv", rows)
    write_table(folder / "new.csv", [{k: v for k, v in r.items() if k != "label"} for r in rows])
    for name, options in (("both", [*TEXT, *AUDIO]), ("text", [*TEXT])):
        corpus = f"{folder}/{name}.npz"
        assert main(["extract", f"{folder}/clips.csv", corpus, *options]) == 0
        words = ["fit", "--data.path", corpus, *TRAIN, "--runs", str(folder), "--name", name]
        assert main([*words, "--partitioner.clients", "2"]) == 0
    return folder


@pytest.mark.parametrize("name", ["both", "text"])
def test_clips_are_predicted_in_a_fresh_process_as_their_corpus_is_here(
    place: Path, tmp_path: Path, name: str
) -> None:
    model = fedmer.load(str(place / name))
    said = model.predict_all(read_corpus(place / f"{name}.npz").conversations)
    expected = np.concatenate([prediction.probabilities for prediction in said])
    out = tmp_path / "said.csv"
    command = [sys.executable, "-m", "fedmer", "predict", str(place / name), f"{place}/new.csv"]
    subprocess.run([*command, "--out", str(out)], check=True, timeout=250)
    with out.open() as file:
        rows = list(csv.DictReader(file))
    found = [[float(row[f"p_{label}"]) for label in model.labels] for row in rows]
    np.testing.assert_allclose(found, expected, atol=6e-5)  # four decimals are written


def test_a_line_on_standard_input_is_predicted(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr("sys.stdin", io.StringIO("A: I can't believe you did that\nB: I won!\n"))
    page = place / "said.html"
    assert main(["predict", str(place / "both"), "-", "--html", str(page)]) == 0
    said = capsys.readouterr().out
    assert "not there, and masked: audio" in said
    assert "I can't believe you did that" in said
    assert "<h1>Standard input</h1>" in page.read_text()
    assert "<h2>Dialogue 1</h2>" in page.read_text()


def test_a_clip_that_fails_is_masked_and_named(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader((place / "new.csv").open()))
    rows[1]["audio"] = "gone.wav"
    table = write_table(place / "broken.csv", rows)
    assert main(["predict", str(place / "both"), str(table)]) == 0
    assert (
        "row 3, dialogue 'd0', utterance 1: no audio: there is no file" in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("", "standard input has no lines; expected one an utterance"),
        ("Hello there\n", "line 1 is 'Hello there'; expected a speaker, a colon and words"),
        ("ann: Hi\nben:  \n", "line 2 is 'ben:'; expected a speaker, a colon and words"),
    ],
)
def test_lines_that_are_none_are_a_sentence(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    lines: str,
    said: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["predict", str(place / "text"), "-"]) == 2
    assert said in capsys.readouterr().err


def test_another_model_of_an_extractor_is_refused(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedmer.extraction.making.digest", lambda files: "0" * 16)
    assert main(["predict", str(place / "text"), f"{place}/new.csv"]) == 2
    assert "but here it has the model 0000000000000000; install what made it" in (
        capsys.readouterr().err
    )


def test_the_folder_of_a_release_is_a_source(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, release in enumerate((iemocap(tmp_path / "iemocap"), meld(tmp_path / "meld"))):
        out = tmp_path / f"{number}.csv"
        words = ["predict", str(place / "text"), str(release), "--part", "test"]
        assert main([*words, "--out", str(out)]) == 0
        with out.open() as file:
            rows = list(csv.DictReader(file))
        assert rows[0]["utterance"] in ("Excuse me.", "Oh, really?")
        assert {row["prediction"] for row in rows} <= set(fedmer.load(place / "text").labels)
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(place / "text"), str(tmp_path / "empty")]) == 2
    assert "is a folder, but of no release: expected IEMOCAP" in capsys.readouterr().err


def test_turns_keep_their_numbers(place: Path, tmp_path: Path) -> None:
    table = tmp_path / "lines.csv"
    table.write_text("dialogue,turn,speaker,utterance\na,30,A,Hello\na,7,B,Hi\n")
    out = tmp_path / "said.csv"
    page = tmp_path / "said.html"
    words = [str(place / "text"), str(table), "--out", str(out), "--html", str(page)]
    assert main(["predict", *words]) == 0
    with out.open() as file:
        assert [(row["turn"], row["speaker"]) for row in csv.DictReader(file)] == [
            ("7", "B"),
            ("30", "A"),
        ]
    assert 'aria-label="Turn 30, A' in page.read_text()
