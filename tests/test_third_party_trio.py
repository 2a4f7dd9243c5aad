"""A network, a split and a privacy mechanism of somebody else's: each one class, found by name."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from fedmer import contracts
from fedmer.data.formats import native
from fedmer.data.synthetic import synthetic_corpus

PACKAGE = Path(__file__).parent.parent / "examples" / "fedmer-plugin-example"
THREE = ("--network", "OneLayer", "--partitioner", "Pairs", "--aggregator", "SquareRoot")
DRIVER = """
import json, sys
from fedmer.__main__ import main
for words in json.loads(sys.argv[1]):
    print(main(words), file=sys.stderr)
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip has put the package, with no way to the network."""
    folder = tmp_path_factory.mktemp("packages")
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder), str(PACKAGE)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def runs(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A round without protection, one with, one that holds still, one of little but noise, and one
    that cannot be; all in one process, which sees the packages."""
    folder = tmp_path_factory.mktemp("trio")
    native.write(synthetic_corpus(dialogues=10, features={"text": 4, "audio": 3}), folder / "c.npz")
    clips = [{"class_path": "ClippedNoise", "init_args": {"norm": n}} for n in (1e-2, 1e-9)]
    (folder / "list.yaml").write_text(yaml.safe_dump({"privacy": clips}))
    common = ("fit", "--data.path", "c.npz", "--trainer.max_epochs", "1", *THREE)
    tiny = ("--privacy", "ClippedNoise", "--privacy.norm", "1e-3")
    chosen = {
        "plain": (),
        "clipped": tiny,
        "noisy": (*tiny, "--privacy.noise", "1000"),
        "still": ("--config", "list.yaml"),
        "wrong": ("--privacy", "ClippedNoise", "--privacy.norm", "0"),
    }
    path = os.pathsep.join([str(packages), str(Path(contracts.__file__).parents[2])])
    done = subprocess.run(
        [
            *(sys.executable, "-c", DRIVER),
            json.dumps([[*common, "--name", name, *words] for name, words in chosen.items()]),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    (folder / "runs" / "errors.txt").write_text(done.stderr)
    return folder / "runs"


def weights(runs: Path, name: str) -> torch.Tensor:
    path = runs / name / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)["state_dict"]
    return torch.cat([v.flatten() for n, v in saved.items() if n.startswith("network.")])


def test_all_four_kinds_are_found_and_train_together(runs: Path) -> None:
    result = json.loads((runs / "plain" / "result.json").read_text())
    chosen = (result["aggregator"], result["network"], result["partitioner"])
    assert chosen == ("SquareRoot", "OneLayer", "Pairs")


def test_both_halves_of_a_mechanism_run(runs: Path) -> None:
    start = weights(runs, "still")
    assert float((weights(runs, "plain") - start).norm()) > 1e-2
    assert 1e-5 < float((weights(runs, "clipped") - start).norm()) <= 1.001e-3
    with (runs / "noisy" / "clients.csv").open(newline="") as file:
        largest = max(float(row["weight"]) for row in csv.DictReader(file))
    noise = weights(runs, "noisy") - weights(runs, "clipped")
    assert float(noise.std()) == pytest.approx(1000 * 1e-3 * largest, rel=0.3)


def test_mechanisms_make_a_list_and_are_recorded_by_path(runs: Path) -> None:
    saved = yaml.safe_load((runs / "still" / "config.yaml").read_text())["privacy"]
    path = "fedmer_plugin_example.clipped_noise.ClippedNoise"
    assert saved == [
        {"class_path": path, "init_args": {"norm": n, "noise": 0.0}} for n in (1e-2, 1e-9)
    ]


def test_its_own_sentence_is_the_error(runs: Path) -> None:
    said = (runs / "errors.txt").read_text()
    assert "error: privacy.norm is 0.0; expected a finite number above 0.\n2\n" in said
    assert "Traceback" not in said
    assert not (runs / "wrong").exists()
