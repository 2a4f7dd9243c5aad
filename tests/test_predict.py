"""``fedmer predict``: files, a page and a terminal say what the model says."""

import csv
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.bundle.files import write_bundle
from fedmer.bundle.model import load
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats import native
from fedmer.data.formats.tables.write import write
from fedmer.errors import InputError
from fedmer.extraction.spoken import read_lines
from tests.bundles import contents_of
from tests.federations import small_corpus


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights, and its corpus as a native file and as a table."""
    folder = tmp_path_factory.mktemp("predict")
    corpus = small_corpus()
    first = replace(corpus.conversations[0], utterances=_words(len(corpus.conversations[0])))
    corpus = replace(corpus, conversations=[first, *corpus.conversations[1:]])
    write_bundle(contents_of(corpus, hidden=8, heads=2), "A card.", folder / "model")
    native.write(corpus, folder / "corpus.npz")
    write(corpus, folder / "corpus.csv")
    return folder


def _words(turns: int) -> list[str]:
    return ['<script>alert("1")</script>', *["words"] * (turns - 1)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_kind_of_file_has_every_turn(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source = str(place / "model"), str(place / "corpus.npz")
    assert main(["predict", model, source, "--out", str(tmp_path / "a.csv")]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\d+\.\d % right of \d+ labelled utterances", said)
    assert "more utterances; --out FILE has them all" in said
    rows = rows_of(tmp_path / "a.csv")
    corpus = small_corpus()
    assert len(rows) == sum(map(len, corpus.conversations))
    predictions = load(place / "model").predict_all(corpus.conversations)
    assert [row["prediction"] for row in rows] == [e for p in predictions for e in p.emotions]
    first = rows[0]
    assert first["dialogue"] == corpus.conversations[0].id
    chances = [float(first[f"p_{name}"]) for name in corpus.label_names]
    np.testing.assert_allclose(chances, predictions[0].probabilities[0], atol=1e-4)
    assert {"student_text", "student_audio", "weight_text", "weight_audio"} <= first.keys()
    assert main(["predict", model, source, "--out", str(tmp_path / "a.jsonl")]) == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [{k: str(v) for k, v in line.items()} for line in lines] == rows


def test_a_table_may_lack_labels_split_and_a_modality(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = [
        {k: v for k, v in row.items() if k in ("dialogue", "turn", "speaker") or k[:5] == "text_"}
        for row in rows_of(place / "corpus.csv")
    ]
    with (tmp_path / "bare.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept)
    words = ["predict", str(place / "model"), str(tmp_path / "bare.csv")]
    assert main([*words, "--out", str(tmp_path / "a.csv"), "--abstain", "0.9"]) == 0
    said = capsys.readouterr().out
    assert "not there, and masked: audio" in said
    assert "% right" not in said
    rows = rows_of(tmp_path / "a.csv")
    assert {row["truth"] for row in rows} == {""}
    silent = [row for row in rows if row["prediction"] == ""]
    assert f"{len(silent)} of {len(rows)} utterances have no prediction" in said
    top = {row["prediction"] == "": [] for row in rows}
    for row in rows:
        top[row["prediction"] == ""].append(
            max(float(v) for k, v in row.items() if k.startswith("p_"))
        )
    assert all(chance < 0.9001 for chance in top[True])
    assert all(chance > 0.8999 for chance in top.get(False, []))


def test_labels_the_model_never_learnt_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (place / "corpus.csv").read_text().replace(",frustrated,", ",puzzled,")
    (tmp_path / "other.csv").write_text(text)
    assert main(["predict", str(place / "model"), str(tmp_path / "other.csv")]) == 0
    assert "labels that the model never learnt: puzzled" in capsys.readouterr().out


def test_a_line_that_is_no_utf_8_is_named() -> None:
    lines = [b"ann: Hello.\n", b"ben: caf\xe9\n"]
    with pytest.raises(InputError, match="line 2 is no UTF-8"):
        read_lines(line.decode(errors="surrogateescape") for line in lines)


def test_utterances_without_any_modality_are_named(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(place / "corpus.csv")
    for row in rows[:2]:
        row |= {name: "" for name in row if name[:5] in ("text_", "audio")}
    with (tmp_path / "gaps.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["predict", str(place / "model"), str(tmp_path / "gaps.csv")]) == 0
    assert "2 utterances have no modality that the model knows" in capsys.readouterr().out


def test_a_folder_that_is_not_there_is_named_before_anything_else(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "nowhere" / "a.html"
    words = ["predict", str(place / "model"), str(place / "corpus.csv"), "--html", str(page)]
    assert main(words) == 2
    said = capsys.readouterr()
    assert "its folder does not exist" in said.err
    assert not said.out


def test_a_temperature_of_few_labels_says_so(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (place / "corpus.csv").read_text().splitlines(keepends=True)
    (tmp_path / "few.csv").write_text("".join(lines[:8]))
    source = str(place / "corpus.csv")
    words = ["predict", str(place / "model"), source, "--calibrate", str(tmp_path / "few.csv")]
    assert main(words) == 0
    assert "fitted on 7 labels" in capsys.readouterr().out


class Page(HTMLParser):
    """Tags and texts of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_is_whole_by_itself_and_escapes_every_word(place: Path, tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    words = [str(place / "model"), str(place / "corpus.npz"), "--part", "train"]
    (tmp_path / "one").mkdir()
    corpus = native.read(place / "corpus.npz")
    one = [replace(c, utterances=_words(len(c))) for c in corpus.conversations[:2]]
    native.write(replace(corpus, conversations=one), tmp_path / "one" / "<i>.npz")
    words[1] = str(tmp_path / "one" / "<i>.npz")
    assert main(["predict", *words, "--html", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    read = Page()
    read.feed(text)
    assert [tag for tag, _ in read.tags].count("script") == 1
    assert "&lt;script&gt;alert" in text
    assert not re.search(r"""(src|href)=|url\(|@import""", text)
    turns = [own for tag, own in read.tags if "turn" in str(own.get("class")).split()]
    assert len(turns) == sum(map(len, one))
    assert [own["tabindex"] for own in turns].count("0") == len(one)
    assert all("--lane:" in str(own["style"]) and own["aria-label"] for own in turns)
    for name in ("prefers-color-scheme: dark", "max-width: 40rem", "ArrowRight"):
        assert name in text


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["predict", *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("fedmer: error: ")
    assert said.count("\n") == 1
    return said


def test_what_does_not_fit_is_refused_by_name(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source = str(place / "model"), str(place / "corpus.npz")
    corpus = small_corpus()
    made = {"text": ExtractorRecord("fedmer.plugins.extractors.words.Words", {"size": 64})}
    theirs = {"text": ExtractorRecord("fedmer.plugins.extractors.words.Words", {"size": 256})}
    write_bundle(replace(contents_of(corpus), extractors=theirs), "", tmp_path / "m")
    native.write(replace(corpus, extractors=made), tmp_path / "made.npz")
    said = refused(capsys, str(tmp_path / "m"), str(tmp_path / "made.npz"))
    assert (
        "'text' was made by Words(size=64), but the model was trained on what Words(size=256"
        in said
    )
    narrow = small_corpus()
    write(narrow, tmp_path / "n.csv")
    text = (tmp_path / "n.csv").read_text().replace("text_5", "unused_0")
    (tmp_path / "n.csv").write_text(text)
    assert "'text' has 5 dimensions, but" in refused(capsys, model, str(tmp_path / "n.csv"))
    (tmp_path / "w.csv").write_text("dialogue,turn,speaker,text\na,0,x,hello\n")
    said = refused(capsys, model, str(tmp_path / "w.csv"))
    assert "has no features, but the model was trained on text (6), audio (4)" in said
    assert "name a SOURCE" in refused(capsys, model)
    assert "ends in none of" in refused(capsys, model, source, "--out", "a.txt")
    assert "--abstain is 2.0" in refused(capsys, model, source, "--abstain", "2")
    assert "has no temperature" in refused(capsys, model, source, "--calibrate")
    assert "does not exist" in refused(capsys, model, "nowhere.csv")
    assert not (place / "a.txt").exists()


def test_a_part_of_a_table_without_parts_is_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = rows_of(place / "corpus.csv")
    with (tmp_path / "whole.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [name for name in rows[0] if name != "split"])
        writer.writeheader()
        writer.writerows({name: row[name] for name in writer.fieldnames} for row in rows)
    model, table = str(place / "model"), str(tmp_path / "whole.csv")
    assert main(["predict", model, table]) == 0
    assert "has no column 'split'" in refused(capsys, model, table, "--part", "test")


def test_a_temperature_may_be_fitted_on_a_corpus(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, source = str(place / "model"), str(place / "corpus.npz")
    words = ["predict", model, source, "--part", "test", "--calibrate", str(place / "corpus.csv")]
    assert main([*words, "--out", str(tmp_path / "a.csv")]) == 0
    assert re.search(r"temperature \d", capsys.readouterr().out)
    assert main(["predict", model, source, "--part", "test", "--out", str(tmp_path / "b.csv")]) == 0
    one, other = (rows_of(tmp_path / name) for name in ("a.csv", "b.csv"))
    assert [row["prediction"] for row in one] == [row["prediction"] for row in other]
    assert one != other


def test_without_a_source_it_is_the_test_part_of_the_run(
    tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.path", str(corpus_file), "--network.hidden", "8", "--network.heads", "2"]
    more = ["--partitioner.clients", "3", "--trainer.max_epochs", "1", "--runs", str(tmp_path)]
    assert main(["fit", *words, *more, "--name", "a"]) == 0
    capsys.readouterr()
    assert main(["predict", str(tmp_path / "a"), "--out", str(tmp_path / "a.csv")]) == 0
    result = json.loads((tmp_path / "a" / "result.json").read_text())
    counted = (result["selected"] or result["last"])["scores"]["test"]["confusion"]
    labelled = [row for row in rows_of(tmp_path / "a.csv") if row["truth"]]
    assert len(labelled) == np.sum(counted)
    right = sum(row["truth"] == row["prediction"] for row in labelled)
    assert right == np.trace(counted)
    assert f"{100 * right / len(labelled):.1f} % right" in capsys.readouterr().out
