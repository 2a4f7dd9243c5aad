"""``pip install fedmer``: the wheel, in an environment that has nothing but what it asks for."""

import csv
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.documented import ROOT
from tests.test_container import copied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

NETWORK = ["--network", "EarlyFusion", "--network.hidden", "8"]


class Installed:
    """An environment with the wheel in it.

    Args:
        folder: An empty one, in which commands run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        source = folder / "source"
        source.mkdir()
        for name in copied():
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, source / name)
            else:
                shutil.copy(ROOT / name, source)
        pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
        subprocess.run([*pip, "-w", str(folder), str(source)], check=True)
        (self.wheel,) = folder.glob("fedmer-*.whl")
        subprocess.run([sys.executable, "-m", "venv", str(folder / "venv")], check=True)
        self.bin = folder / "venv" / "bin"
        words = ["install", "-q", "-c", str(ROOT / "constraints.txt"), str(self.wheel)]
        subprocess.run([str(self.bin / "python"), "-m", "pip", *words], check=True)

    def run(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """``fedmer ...`` as somebody types it who has no copy of the repository."""
        left = {key: own for key, own in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [str(self.bin / "fedmer"), *words],
            cwd=self.folder,
            env=left,
            capture_output=True,
            text=True,
            check=False,
        )

    def says(self, *words: str) -> str:
        """What a command prints that has to succeed."""
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    found = Installed(tmp_path_factory.mktemp("installed"))
    found.says("data", "synth", "small.npz", "--dialogues", "24")
    fit = ["fit", "--data.path", "small.npz", *NETWORK, "--partitioner.clients", "3"]
    found.says(*fit, "--trainer.max_epochs", "2", "--name", "first")
    return found


def test_only_what_the_core_needs_is_there(installed: Installed) -> None:
    listed = subprocess.run(
        [str(installed.bin / "python"), "-m", "pip", "list", "--format", "freeze"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.lower()
    names = {line.partition("==")[0].replace("_", "-") for line in listed.splitlines()}
    assert "torch" in names
    assert not names & {
        "flwr",
        "ray",
        "pyarrow",
        "pytest",
        "av",
        "onnxruntime",
        "prometheus-client",
    }


def test_help_and_plugins_are_those_of_the_repository(installed: Installed) -> None:
    assert "usage: fedmer SUBCOMMAND" in installed.says("--help")
    said = installed.says("plugins")
    for name in ("FedAvg", "SDT", "Dialogue", "SecureSum", "Flower"):
        assert name in said
    assert "fedmer" in installed.says("deploy", "--help")


def test_recipes_come_with_the_wheel(installed: Installed) -> None:
    shown = installed.run("fit", "--config", "iemocap_paper", "--print_config")
    assert shown.returncode == 0, shown.stderr


def test_a_run_leaves_a_model_that_predicts(installed: Installed) -> None:
    assert (installed.folder / "runs" / "first" / "result.json").is_file()
    installed.says("predict", "runs/first", "small.npz", "--out", "predicted.csv")
    with (installed.folder / "predicted.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) > 24
    assert all(row["prediction"] for row in rows)


NEEDS = {
    "flower": (
        ("fit", "--executor", "Flower"),
        ("deploy", "init", "federation", "--nodes", "1"),
        ("deploy", "status", "federation"),
    ),
    "tables": (
        ("data", "convert", "small.npz", "small.parquet"),
        ("predict", "runs/first", "small.npz", "--out", "predicted.parquet"),
    ),
    "extract": (
        ("extract", "words.csv", "words.npz", "--text", "Words"),
        ("extract", "words.csv", "words.npz", "--text", "MiniLM"),
        ("extract", "clips.csv", "clips.npz", "--audio", "OpenSmile"),
        ("extract", "clips.csv", "clips.npz", "--visual", "Expression"),
    ),
    "onnxscript": (("export", "runs/first", "model.onnx", "--format", "onnx"),),
    "huggingface_hub": (("export", "runs/first", "hf://somebody/something"),),
}
"""What is installed for it -> commands that need it."""


@pytest.mark.parametrize(
    ("extra", "words"), [(key, words) for key, all in NEEDS.items() for words in all], ids=str
)
def test_what_needs_more_says_how_to_install_it(
    installed: Installed, extra: str, words: Sequence[str]
) -> None:
    head = "dialogue,turn,speaker,label,split"
    rows = [f"d{d},{t},{'ab'[t % 2]},{['happy', 'sad'][t % 2]},train" for d in "xy" for t in (0, 1)]
    for name, column, cell in (("words", "text", "hello"), ("clips", "audio,video", "x.wav,x.mp4")):
        lines = [f"{head},{column}", *(f"{row},{cell}" for row in rows)]
        (installed.folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
    before = {path.name for path in installed.folder.iterdir()}
    done = installed.run(*words)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "pip install" in done.stderr
    assert extra in done.stderr
    assert {path.name for path in installed.folder.iterdir()} == before
