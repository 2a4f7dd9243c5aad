"""What a person types either works or ends in a sentence, exit code 2 and no changed file."""

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fedmer.data.formats import native, read_corpus
from fedmer.data.synthetic import synthetic_corpus
from tests.data.typed import main


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_synth_convert_describe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pickled, target = str(tmp_path / "made.pkl"), str(tmp_path / "made.npz")
    assert main(["synth", pickled, "--dialogues", "10", "--format", "sdt-pickle"]) == 0
    assert main(["convert", pickled, target]) == 0
    assert main(["describe", target]) == 0
    said = capsys.readouterr().out
    assert "frustrated" in said
    assert f"fedmer fit --config iemocap_speakers --data.path {target}" in said
    assert sorted(files(tmp_path)) == ["made.npz", "made.pkl"]
    drawn = synthetic_corpus(dialogues=10)
    assert [t.labels.tolist() for t in read_corpus(target).conversations] == [
        t.labels.tolist() for t in drawn.conversations
    ]


def test_synth_writes_the_same_corpus(tmp_path: Path) -> None:
    target = str(tmp_path / "made.npz")
    assert main(["synth", target, "--dialogues", "10", "--seed", "3"]) == 0
    assert read_corpus(target).fingerprint == synthetic_corpus(3, 10).fingerprint


def test_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "made.npz"
    target.write_text("precious")
    assert main(["synth", str(target), "--dialogues", "5"]) == 2
    assert "made.npz exists; choose another name or add --overwrite" in capsys.readouterr().err
    assert target.read_text() == "precious"
    assert main(["synth", str(target), "--dialogues", "5", "--overwrite"]) == 0
    assert len(read_corpus(target)) == 5


def test_a_split_is_shown_and_saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "split.png"
    words = ["--partitioner", "Dirichlet", "--partitioner.clients", "7", "--save", str(picture)]
    assert main(["describe", *words]) == 0
    assert "synthetic split over 7 clients" in capsys.readouterr().out
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert list(files(tmp_path)) == ["split.png"]


class Payload:
    def __reduce__(self) -> object:
        return os.system, ("touch victim",)


def spoil(folder: Path) -> dict[str, str]:
    """One file for everything that can be wrong; name -> what the sentence says."""
    corpus = synthetic_corpus(dialogues=5, features={"text": 3})
    native.write(corpus, folder / "cut.npz")
    content = (folder / "cut.npz").read_bytes()
    (folder / "cut.npz").write_bytes(content[: len(content) // 2])
    (folder / "empty.npz").write_bytes(b"")
    (folder / "prose.npz").write_bytes(b"Once upon a time")
    (folder / "call.pkl").write_bytes(pickle.dumps(Payload(), protocol=2))
    (folder / "eleven.pkl").write_bytes(pickle.dumps(tuple(range(11)), protocol=2))
    ids = ["Ses01_a", "Ses05_b"]
    for name, size, value, label in (
        ("dimension", 3, 0.0, 0),
        ("nan", 2, np.nan, 0),
        ("range", 2, 0.0, 6),
        ("unlabelled", 2, 0.0, -1),
    ):
        rows = {ids[0]: np.zeros((2, 2)), ids[1]: np.full((2, size), value)}
        good = {dialogue: np.zeros((2, 2)) for dialogue in ids}
        parts = (
            {},
            {dialogue: ["M", "F"] for dialogue in ids},
            {ids[0]: [0, 1], ids[1]: [label, label]},
        )
        parts += (rows, rows, rows, rows, good, good, {dialogue: ["", ""] for dialogue in ids})
        parts += (ids[:1], ids[1:])
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(parts, protocol=2))
    return {
        "missing.npz": "does not exist; check the path",
        "cut.npz": "not a whole .npz",
        "empty.npz": "is empty; expected",
        "prose.npz": "starts with 'Once",
        "call.pkl": ".system; a feature file may hold only arrays",
        "eleven.pkl": "is a tuple of 11 parts",
        "dimension.pkl": "'text' has 3 dimensions but the first dialogue has 2",
        "nan.pkl": "dialogue 'Ses05_b': 'text' holds NaN",
        "range.pkl": "dialogue 'Ses05_b': label 6 is out of range",
        "unlabelled.pkl": "dialogue 'Ses05_b' has no labelled utterance",
    }


def test_wrong_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = spoil(tmp_path)
    before = files(tmp_path)
    for name, sentence in wrong.items():
        for words in (["describe", name], ["convert", name, "target.npz"]):
            assert main(words) == 2, name
            error = capsys.readouterr().err
            assert error.startswith("fedmer: error: ")
            assert name in error
            assert sentence in error
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("bogus", "unknown subcommand 'bogus'"),
        ("convert", "is missing; see"),
        ("describe --seed x", "seed"),
        ("synth a.npz --dialogues 3", "at least 5"),
        ("synth nowhere/a.npz --dialogues 5", "nowhere is not a folder"),
        ("synth a.npz --preset huge", "preset"),
        ("describe --save a.png", "name one, such as --partitioner"),
        ("describe --partitioner Speker", "did you mean 'Speaker'?"),
        ("describe --partitioner.clients 3", "without the split; add --partitioner NAME"),
        ("describe --partitioner Dirichlet --partitioner.alpha -1", "alpha is -1"),
        ("describe --partitioner Dirichlet --partitioner.beta 1", "unknown option 'beta'"),
        ("describe --partitioner Session --save a.txt", "does not end in .png"),
    ],
)
def test_wrong_words(
    words: str,
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(words)) == 2
    assert sentence in capsys.readouterr().err
    assert not files(tmp_path)


def test_help_is_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "--help"]) == 0
    assert "corpus file of any kind" in capsys.readouterr().out


def test_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from tests.data.typed import main; main(['describe']); "
        "print([m for m in ('torch', 'pandas', 'lightning', 'pytorch_lightning', 'matplotlib') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
