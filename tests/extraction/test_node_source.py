"""``fedmer deploy node FOLDER --source TABLE``: a node makes its features itself."""

import csv
from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.data.formats import read_corpus
from tests.recordings import record, tone

for needed in ("flwr", "av", "opensmile", "wordllama"):
    pytest.importorskip(needed, reason="needs pip install 'fedmer[extract,flower]'")

SETTINGS = """\
labels: [glad, cross]
text: Words
audio:
  class_path: OpenSmile
  init_args: {features: eGeMAPSv02}
"""


@pytest.fixture
def federation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A federation whose nodes know their extractors, and a table of clips beside it."""
    monkeypatch.chdir(tmp_path)
    Path("extractors.yaml").write_text(SETTINGS)
    words = ["deploy", "init", "federation", "--nodes", "2", "--extractors", "extractors.yaml"]
    assert main(words) == 0
    with Path("clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dialogue", "turn", "speaker", "label", "utterance", "audio"))
        for turn in range(4):
            name = record(Path(f"{turn}.wav"), tone(0.5, 16_000, seed=turn)).name
            # Nobody here is glad; the federation's emotions are there all the same.
            writer.writerow((f"d{turn // 2}", turn % 2, "ann", "cross", f"Words {turn}", name))
    return Path("federation")


def test_a_node_extracts_into_its_folder_and_serves_that(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served: list[Path] = []
    monkeypatch.setattr(
        "fedmer.flower.node.serve.serve", lambda node, data, metrics: served.append(data) or 0
    )
    folder = federation / "node-1"
    assert (folder / "extractors.yaml").read_text() == SETTINGS
    assert main(["deploy", "node", str(folder), "--source", "clips.csv"]) == 0
    assert served == [folder.absolute() / "corpus.npz"]
    corpus = read_corpus(served[0])
    assert list(corpus.label_names) == ["glad", "cross"]
    assert corpus.shape.features == {"text": 256, "audio": 88}
    assert corpus.part("train") == [0, 1]
    assert corpus.extractors["audio"].init_args == {"features": "eGeMAPSv02"}
    assert np.concatenate([c.labels for c in corpus.conversations]).tolist() == [1] * 4
    assert sorted(p.name for p in federation.parent.glob("*.npz*")) == []


@pytest.mark.parametrize(
    ("settings", "words", "said"),
    [
        (SETTINGS, [], "either --data FILE or --source TABLE; give one of them"),
        (SETTINGS, ["--source", "clips.csv", "--data", "x.npz"], "either --data FILE or --source"),
        (None, ["--source", "clips.csv"], "extractors.yaml is missing, which says how features"),
        ("labels: [a, b]\ntext: os.system\n", ["--source", "clips.csv"], "extractor 'os.system'"),
        ("labels: [a, b]\ntetx: Words\n", ["--source", "clips.csv"], "unknown key 'tetx'; did you"),
        ("text: Words\n", ["--source", "clips.csv"], "lacks 'labels', a list of the emotions"),
        ("labels: [a, b]\n", ["--source", "clips.csv"], "names no extractors; expected text"),
    ],
)
def test_what_a_node_cannot_use_is_a_sentence(
    federation: Path,
    capsys: pytest.CaptureFixture[str],
    settings: str | None,
    words: list[str],
    said: str,
) -> None:
    file = federation / "node-0" / "extractors.yaml"
    file.unlink()
    if settings is not None:
        file.write_text(settings)
    assert main(["deploy", "node", str(federation / "node-0"), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (federation / "node-0" / "corpus.npz").exists()


def test_a_configuration_file_names_installed_extractors_only(
    federation: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad_module.py").write_text("raise SystemExit('imported')\n")
    Path("bad.yaml").write_text("text: {class_path: bad_module.Thing}\n")
    assert main(["extract", "--config", "bad.yaml", "clips.csv", "x.npz"]) == 2
    assert "imported" not in capsys.readouterr().err
    Path("good.yaml").write_text("text: {class_path: Words}\nlabels: [glad, cross]\n")
    assert main(["extract", "--config", "good.yaml", "clips.csv", "x.npz"]) == 0
    assert list(read_corpus("x.npz").label_names) == ["glad", "cross"]
