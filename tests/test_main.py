"""What every subcommand does alike: complain in one sentence, and end quietly in a closed pipe."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedmer.__main__ import main

ROOT = Path(__file__).parent.parent


@contextmanager
def closed_pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The standard output as ``| head -0`` leaves it."""
    kept = os.dup(1)
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)
    os.close(writer)
    try:
        with open(1, "w", closefd=False) as out, monkeypatch.context() as patch:
            patch.setattr("sys.stdout", out)
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@pytest.mark.parametrize(
    "words",
    [
        ["plugins"],
        ["--help"],
        ["data", "describe", "--partitioner", "Dialogue"],
        ["data", "--help"],
        ["sweep", "experiments/sweeps/ablation.yaml", "--list"],
        ["report", "--audit", "TABLE"],
        ["fit", "--print_config"],
    ],
    ids=" ".join,
)
def test_a_reader_that_has_left_is_no_error(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(ROOT)
    table = tmp_path / "table.csv"
    table.write_text("row,accuracy,weighted_f1,support_a,accuracy_a,f1_a\nx,1,1,3,1,1\n")
    given = [str(table) if word == "TABLE" else word for word in words]
    with closed_pipe(monkeypatch):
        code = main(given)
    assert code == 141
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_inside_is_not_taken_for_the_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    def dispatch(_: list[str]) -> int:
        raise BrokenPipeError

    monkeypatch.setattr("fedmer.__main__._dispatch", dispatch)
    with pytest.raises(BrokenPipeError):
        main(["fit"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("data describ", "unknown subcommand 'describ'; did you mean 'describe'?"),
        ("data describe --sed 3", "unknown option '--sed'; did you mean '--seed'?"),
        ("data describe --seed x", "--seed is 'x'; expected a whole number."),
        ("data synth x --preset smal", "unknown --preset 'smal'; did you mean 'small'?"),
        ("data convert a b --overwrit", "unknown option '--overwrit'; did you mean '--overwrite'?"),
        ("data describe a b", "unexpected argument 'b'; see 'fedmer data describe --help'."),
        ("data", "a subcommand is missing, one of describe, convert, split, synth; see"),
        ("report r --rond last", "unknown option '--rond'; did you mean '--round'?"),
        ("report r --round lst", "unknown --round 'lst'; did you mean 'last'?"),
        ("sweep", "FILE is missing; see 'fedmer sweep --help'."),
        ("sweep f --job 2", "did you mean '--jobs'?"),
        ("sweep f --job 2", "options of the trials stand behind --."),
        ("deploy node a", "A node needs either --data FILE or --source TABLE"),
        ("plugins networks x", "unexpected argument 'x'; see 'fedmer plugins --help'."),
        ("sweep f --jobs two", "--jobs is 'two'; expected a whole number."),
        ("deploy srver", "unknown subcommand 'srver'; did you mean 'server'?"),
        ("deploy node a --data b --lg c", "unknown option '--lg'"),
        ("swep", "unknown subcommand 'swep'; did you mean 'sweep'?"),
        ("data describe ~/no.npz", "HOME/no.npz does not exist"),
        ("report ~/no", "HOME/no"),
        ("sweep ~/no.yaml", "HOME/no.yaml does not exist"),
        ("data describe \x1b[31m.npz", r"\x1b[31m.npz does not exist"),
    ],
)
def test_what_is_typed_wrong_is_one_sentence(
    words: str,
    said: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HOME", str(here))
    assert main(words.split(" ")) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("fedmer: error: ")
    assert error.count("\n") == 1
    assert said.replace("HOME", str(here)) in error
    assert not list(here.iterdir())
