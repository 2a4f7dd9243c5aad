"""Every command in the documents is one that fedmer understands, and does what it is there for."""

import os
import re
import runpy
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.commands import audit, data, demo, deploy, doctor, export, extract, predict, report
from fedmer.data.formats import native, sdt_pickle
from fedmer.data.synthetic import synthetic_corpus
from fedmer.sweep.check import FitParser, fit_parser, problem
from fedmer.sweep.command import of_fedmer
from fedmer.sweep.file import read
from fedmer.sweep.run import Sweep
from tests.documented import ROOT, SWEEPS, Command, commands

COMMANDS = commands()
OF_MAKE = [command for command in COMMANDS if "make" in command.text.split()]
OF_FEDMER = [command for command in COMMANDS if command not in OF_MAKE]

REFUSED = {
    "fedmer fit --aggregator FedAvgg": "did you mean 'FedAvg'?",
}
"""Commands that show how a mistake is told, with what is said."""

ELSEWHERE = {
    r"SquareRoot": "needs the package of the page, which tests/test_third_party.py installs",
    r"deploy (server|node)": "runs until Ctrl-C; tests/flower/test_deploy_processes.py does it",
    r"--executor.federation|/srv/fedmer": "needs a server and nodes; tests/flower does it",
    r"RAY_ADDRESS=": "needs a cluster of machines",
    r"clips\.|extractors\.yaml": "reads recordings; tests/extraction does it",
    r"--executor Flower": "starts Ray; tests/executors/test_flower.py does it",
}
"""What a test cannot run as it stands, as patterns, and why. All but the first are still parsed."""

FILES = (
    *("my_corpus.npz", "corpus.npz", "meld_dev.npz", "meld_text.npz", "mosi.npz"),
    *("iemocap_multimodal_features.pkl", "meld_multimodal_features.pkl"),
)


def elsewhere(command: Command) -> bool:
    return any(re.search(pattern, command.text) for pattern in ELSEWHERE)


def named(command: Command) -> str:
    return f"{command.place}: {command.text}"


@pytest.fixture(scope="module")
def fit() -> FitParser:
    return fit_parser()


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder in which files that commands name are there, though empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    for run in ("runs/a", "runs/long", "runs/first"):
        (tmp_path / run).mkdir(parents=True)
        (tmp_path / run / "config.yaml").write_text("seed_everything: 1\n")
    (tmp_path / "prox.yaml").write_text(prox())
    return tmp_path


def prox() -> str:
    page = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    block = re.search(r"^```yaml\n(# prox.yaml\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert block is not None
    return block[1]


def test_there_are_commands_and_sweeps_and_no_reason_is_left_over() -> None:
    assert len(COMMANDS) > 80
    assert len(SWEEPS) >= 14
    assert {Path(c.place).name for c in COMMANDS} >= {"README.md", "sweeps.md", "ablation.yaml"}
    for pattern in (*ELSEWHERE, *map(re.escape, REFUSED)):
        assert any(re.search(pattern, command.text) for command in COMMANDS), pattern


@pytest.mark.parametrize("command", OF_MAKE, ids=named)
def test_a_target_is_in_the_makefile(command: Command) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert {word for word in command.text.split()[1:] if "=" not in word} <= set(targets)


@pytest.mark.parametrize("command", [c for c in OF_FEDMER if c.text not in REFUSED], ids=named)
def test_a_command_is_understood(
    command: Command, desk: Path, fit: FitParser, capsys: pytest.CaptureFixture[str]
) -> None:
    subcommand, *more = (word.replace("/srv/fedmer/", "") for word in command.words)
    if "SquareRoot" in command.text:
        return
    try:
        if subcommand == "predict" and "--config" not in more:
            predict.parser().parse_args(more)
        elif subcommand in ("fit", "validate", "test", "predict"):
            # The others have the options of fit that they are given here.
            fit.parse(["fit", *more])
        elif subcommand == "export":
            export.parser().parse_args(more)
        elif subcommand == "data":
            data.parser(more).parse_args(more)
        elif subcommand == "extract":
            extract.parser(more).parse_args(more)
        elif subcommand == "demo":
            demo.parser().parse_args(more)
        elif subcommand == "doctor":
            doctor.parser().parse_args(more)
        elif subcommand == "audit":
            audit.parser().parse_args(more)
        elif subcommand == "report":
            report.parser().parse_args(more)
        elif subcommand == "deploy":
            deploy.parser().parse_args(more)
        elif subcommand == "sweep":
            assert main(["sweep", "--list", *more]) == 0
        else:
            assert main(command.words) == 0
    except SystemExit as end:
        if end.code != 0:
            pytest.fail(capsys.readouterr().err)


@pytest.mark.parametrize(("text", "said"), REFUSED.items(), ids=str)
def test_a_mistake_is_told_as_the_document_has_it(
    text: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(text.split()[1:]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("file", SWEEPS, ids=lambda f: str(f.relative_to(ROOT)))
def test_fit_takes_the_trials_of_a_sweep(file: Path, desk: Path, fit: FitParser) -> None:
    sweep = Sweep(read(file.relative_to(ROOT)), Path("nowhere"))
    sweep.settle()
    # All of them take minutes; tests/sweep/test_fedmer_trials.py asks about all.
    assert problem(fit, [sweep.questions()[0], sweep.questions()[-1]]) is None


SMALL = ("--trainer.max_epochs=1", "--local.epochs=1", "--network.hidden=16")
"""What makes a run of a document a short one."""


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder in which the files that commands name are real, if small."""
    folder = tmp_path_factory.mktemp("documents")
    before = Path.cwd()
    os.chdir(folder)
    patch = pytest.MonkeyPatch()
    patch.setenv("WANDB_MODE", "offline")
    (folder / "experiments").symlink_to(ROOT / "experiments")
    (folder / "prox.yaml").write_text(prox())
    corpus = synthetic_corpus(dialogues=30)
    for name in FILES:
        writer = native if name.endswith(".npz") else sdt_pickle
        writer.write(corpus, folder / name)
    runpy.run_path(str(ROOT / "docs" / "make_corpus.py"))
    assert native.read(folder / "my_corpus.npz").name
    native.write(corpus, folder / "my_corpus.npz")
    (folder / "table.csv").write_text(
        "row,accuracy,weighted_f1,support_a,accuracy_a,f1_a\nx,1,1,3,1,1\n"
    )
    (folder / "TABLE.csv").write_bytes((folder / "table.csv").read_bytes())
    native.write(corpus, folder / "small.npz")
    for seed, name in enumerate(("a", "b", "c", "long")):
        words = ["--name", name, "--seed_everything", str(seed), "--data.path", "small.npz"]
        # Two clients are large enough to keep dialogues back, so that a round is selected.
        assert main(["fit", *words, *SMALL, "--partitioner.clients", "2"]) == 0
        shutil.copytree(folder / "runs" / name, folder / "runs" / "ablation" / name)
    yield folder
    patch.undo()
    os.chdir(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [c for c in OF_FEDMER if not elsewhere(c) and c.text not in REFUSED and c.words[0] != "sweep"],
    ids=named,
)
def test_a_command_runs(command: Command, workplace: Path) -> None:
    subcommand, *more = command.words
    if subcommand == "fit":
        more += SMALL
        if "--name" in more:
            more += ["--overwrite"]
        if "--ckpt_path" in more:
            more += ["--trainer.max_epochs=2"]
        if "--data.path" not in more:
            # Not corpus.npz, which commands write.
            more += ["--data.path=small.npz"]
    if subcommand == "data" and more[0] in ("synth", "convert"):
        more += ["--overwrite"]
    if subcommand == "data" and more[0] == "split":
        shutil.rmtree(workplace / more[2], ignore_errors=True)  # where two pages write
    assert main([subcommand, *more]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("file", SWEEPS, ids=lambda f: str(f.relative_to(ROOT)))
def test_a_trial_of_a_sweep_runs(file: Path, workplace: Path) -> None:
    sweep = Sweep(read(file.relative_to(ROOT)), Path("runs"), ["--data.path=small.npz", *SMALL])
    sweep.settle()
    words = of_fedmer(sweep.words(sweep.trials[0]))
    assert words is not None
    assert main(words) == 0
