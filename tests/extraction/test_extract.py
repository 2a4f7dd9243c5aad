"""``fedmer extract``: features of real extractors, whatever stops it, and nothing that is lost."""

import csv
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.data.formats import read_corpus
from fedmer.extraction.making import ChosenExtractor, again
from tests.recordings import record, tone

pytest.importorskip("av", reason="needs pip install 'fedmer[extract]'")
pytest.importorskip("opensmile", reason="needs pip install 'fedmer[extract]'")
pytest.importorskip("wordllama", reason="needs pip install 'fedmer[extract]'")

TEXT, AUDIO = ("--text", "Words"), ("--audio", "OpenSmile", "--audio.features", "eGeMAPSv02")
WORDS = ("I won!", "Leave me alone.", "What a day", "Oh no, not again", "Well, hello", "Stop it")


def write_table(path: Path, rows: list[Mapping[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def clips(folder: Path) -> list[dict[str, object]]:
    """A dozen short clips of four dialogues, in all containers."""
    rows: list[dict[str, object]] = []
    for place in range(12):
        suffix = (".wav", ".flac", ".mp3", ".mp4")[place % 4]
        rate = (8_000, 16_000, 44_100)[place % 3]
        sound = tone(0.6, rate, hertz=110 + 12 * place, seed=place)
        name = record(folder / f"clip{place}{suffix}", sound, rate).name
        rows.append(
            {
                "dialogue": f"d{place // 3}",
                "turn": place % 3,
                "speaker": f"p{place // 3}{place % 2}",
                "label": ("glad", "cross")[place % 2],
                "split": ("train", "train", "train", "test")[place // 3],
                "utterance": WORDS[place % len(WORDS)],
                "audio": name,
                "start": 0.05,
                "end": 0.55,
            }
        )
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, their table, and the corpus of them."""
    made = tmp_path_factory.mktemp("clips")
    write_table(made / "clips.csv", clips(made))
    assert main(["extract", f"{made}/clips.csv", f"{made}/clips.npz", *TEXT, *AUDIO]) == 0
    return made


def test_a_dozen_clips_become_a_corpus_that_knows_what_made_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = read_corpus(folder / "clips.npz")
    assert corpus.shape.features == {"text": 256, "audio": 88}
    assert all(mask.all() for c in corpus.conversations for mask in c.present.values())
    record = corpus.extractors["audio"]
    assert record.class_path == "fedmer.plugins.extractors.open_smile.OpenSmile"
    assert record.init_args == {"features": "eGeMAPSv02"}
    assert set(record.versions) == {"opensmile", "av"}
    assert len(record.digest) == 16
    assert again(record, "audio") == ChosenExtractor(record.class_path, record.init_args)
    assert main(["data", "describe", f"{folder}/clips.npz"]) == 0
    said = capsys.readouterr().out
    assert "'audio' was extracted by OpenSmile(features=eGeMAPSv02), av " in said
    assert not list(folder.glob("*.partial"))


def test_two_rounds_are_fitted_on_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["fit", "--data.path", f"{folder}/clips.npz", "--trainer.max_epochs", "2"]
    assert main([*words, "--network", "LateFusion", "--partitioner", "Speaker"]) == 0


def test_features_depend_neither_on_processes_nor_on_an_earlier_try(
    folder: Path, tmp_path: Path
) -> None:
    # What a stopped extraction leaves: some rows, a torn line, a row without its line.
    partial = tmp_path / "again.npz.partial"
    rows = list(csv.DictReader((folder / "clips.csv").open()))
    for row in rows:
        row["audio"] = str(folder / str(row["audio"]))
    table = write_table(tmp_path / "clips.csv", rows)
    stop = (
        "import sys\n"
        "from fedmer.__main__ import main\n"
        "from fedmer.extraction.journal import Journal\n"
        "add, count = Journal.add, []\n"
        "def stopping(self, key, row):\n"
        "    add(self, key, row); count.append(1)\n"
        "    if len(count) == 9:\n"
        "        self._row_file.write(b'123'); self._row_file.flush()\n"
        "        self._line_file.write(b'{\"key\": '); self._line_file.flush()\n"
        "        sys.stdout.flush(); import os; os._exit(9)\n"
        "Journal.add = stopping\n"
        "main(sys.argv[1:])\n"
    )
    words = ["extract", str(table), f"{tmp_path}/again.npz", *TEXT, *AUDIO]
    assert subprocess.run([sys.executable, "-c", stop, *words], timeout=200).returncode == 9
    left = (partial / "text.jsonl").read_bytes()
    assert left.count(b"\n") >= 5
    assert main([*words, "--jobs", "2"]) == 0
    first, second = (read_corpus(path) for path in (folder / "clips.npz", tmp_path / "again.npz"))
    assert first.fingerprint == second.fingerprint
    assert not partial.exists()


def test_what_is_refused_before_it_began_leaves_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["extract", f"{folder}/clips.csv", f"{tmp_path}/refused.npz", *TEXT]
    assert main([*words, "--jobs", "0"]) == 2
    assert "--jobs is 0" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_what_was_made_is_not_made_again(folder: Path, tmp_path: Path) -> None:
    from fedmer.extraction.run import extract
    from fedmer.extraction.sources import read_source

    table = read_source(folder / "clips.csv")
    chosen = {"text": ChosenExtractor("Words")}
    seen: list[tuple[int, int]] = []
    first = extract(table, chosen, tmp_path)
    second = extract(table, chosen, tmp_path, advance=lambda *counts: seen.append(counts))
    assert seen == [(12, 0)]
    np.testing.assert_array_equal(first.table.features["text"], second.table.features["text"])


def test_failing_clips_are_listed_and_nothing_else_is_lost(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = clips(folder)
    for row in rows:
        row["audio"] = str(folder / str(row["audio"]))
    record(tmp_path / "silent.wav", np.zeros(8_000, dtype=np.float32), 8_000)
    whole = (folder / "clip3.mp4").read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(whole[: len(whole) // 2])
    rows[0]["audio"] = "gone.wav"
    rows[1]["audio"] = "silent.wav"
    rows[2]["audio"] = "damaged.mp4"
    rows[4]["end"] = 0.01
    rows[5]["utterance"] = "  "
    rows[7]["audio"] = ""
    table = write_table(tmp_path / "clips.csv", rows)
    target = tmp_path / "clips.npz"
    assert main(["extract", str(table), str(target), *TEXT, *AUDIO]) == 0
    said = capsys.readouterr().out
    assert "row 2, dialogue 'd0', utterance 0: no audio: there is no file" in said
    assert "row 3, dialogue 'd0', utterance 1: no audio: silent.wav is silent there" in said
    assert "row 4, dialogue 'd0', utterance 2: no audio: damaged.mp4 cannot be read" in said
    assert "row 6, dialogue 'd1', utterance 1: no audio: the end, 0.01 s, is not after" in said
    assert "row 7, dialogue 'd1', utterance 2: no text: the text is empty" in said
    assert "6 failure(s), which count as missing" in said
    listed = list(csv.DictReader((tmp_path / "clips.failures.csv").open()))
    assert [(row["row"], row["modality"]) for row in listed] == [
        *(("2", "audio"), ("3", "audio"), ("4", "audio")),
        *(("6", "audio"), ("7", "text"), ("9", "audio")),
    ]
    corpus, good = read_corpus(target), read_corpus(folder / "clips.npz")
    lacking = 0
    for found, expected in zip(corpus.conversations, good.conversations, strict=True):
        for modality, mask in found.present.items():
            lacking += int((~mask).sum())
            np.testing.assert_array_equal(
                found.features[modality][mask], expected.features[modality][mask]
            )
    assert lacking == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.csv", "x.npz"], "gone.csv does not exist"),
        (["text.csv", "x.csv"], "x.csv does not end in .npz"),
        (["text.csv", "there.npz"], "there.npz exists; choose another name or add --overwrite"),
        (["text.csv", "no/x.npz"], "no is not a folder; make it first"),
        (
            ["text.csv", "x.npz", "--text", "Wrods"],
            "extractor 'Wrods'; did you mean 'Words'?",
        ),
        (["text.csv", "x.npz", "--text", "OpenSmile"], "OpenSmile reads audio, but 'text' is made"),
        (["text.csv", "x.npz", "--audio", "OpenSmile"], "lacks the column 'audio' or 'video'"),
        (["text.csv", "x.npz", "--columns", "{speaker: Who}"], "has no column 'Who'"),
        (["text.csv", "x.npz", "--jobs", "0", *TEXT], "--jobs is 0; expected at least 1"),
        (["text.csv", "x.npz", *AUDIO[:2], "--audio.features", "IS11"], "unknown feature set of"),
        (
            ["empty.csv", "x.npz", *TEXT],
            "no utterance has 'text': row 2, dialogue 'a', utterance 0",
        ),
        (["nothing.csv", "x.npz", *TEXT], "nothing.csv has no rows"),
        (["words.txt", "x.npz", *TEXT], "words.txt is no table; expected a row an utterance"),
        pytest.param(
            *(
                ["text.csv", "x.npz", "--text", "HuggingFaceText", "--text.model", "no/where"],
                "no enc",
            ),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_bad_input_is_a_sentence_and_writes_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    said: str,
) -> None:
    if "HuggingFaceText" in words:
        pytest.importorskip("transformers", reason="needs pip install 'fedmer[extract]'")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    row = {"dialogue": "a", "turn": 0, "speaker": "ann", "label": "glad", "split": "train"}
    said_twice = [{**row, "utterance": "Hello"}, {**row, "turn": 1, "utterance": ""}]
    write_table(Path("text.csv"), said_twice)
    write_table(Path("empty.csv"), [{**row, "utterance": " "}])
    Path("nothing.csv").write_text("dialogue,turn,speaker,label,utterance\n")
    Path("words.txt").write_text("Once upon a time")
    Path("there.npz").write_text("something")
    before = sorted(tmp_path.rglob("*.npz"))
    assert main(["extract", *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*.npz")) == before
    assert Path("there.npz").read_text() == "something"
