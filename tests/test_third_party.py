"""Somebody else's package: installed by pip, found by name, and unable to break the others."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from fedmer.data.formats import native
from fedmer.data.synthetic import synthetic_corpus

PACKAGE = Path(__file__).parent.parent / "examples" / "fedmer-plugin-example"
QUICK = (
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner", "Speaker"),
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu"),
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that pip put the package into, with no way to the network."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder)),
        str(PACKAGE),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten dialogues of eight training speakers, who do not speak equally much."""
    path = tmp_path_factory.mktemp("corpus") / "tiny.npz"
    native.write(synthetic_corpus(dialogues=10, features={"text": 4, "audio": 3}), path)
    return path


def fedmer(
    path: Path, arguments: Sequence[str | Path], cwd: Path
) -> subprocess.CompletedProcess[str]:
    """Run ``fedmer`` in a process that sees the packages in ``path``."""
    return subprocess.run(
        [sys.executable, "-m", "fedmer", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"},
    )


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def plant_broken_plugin(folder: Path) -> None:
    """What pip would leave behind of a package whose module does not import."""
    (folder / "broken_rule.py").write_text(
        'raise RuntimeError("half an installation")\n', encoding="utf-8"
    )
    about = folder / "fedmer_broken-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: fedmer-broken\nVersion: 0.1\n", encoding="utf-8"
    )
    (about / "entry_points.txt").write_text(
        "[fedmer.aggregators]\nBroken = broken_rule:Broken\n", encoding="utf-8"
    )


def test_its_own_tests_pass(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(PACKAGE)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(installed), str(PACKAGE.parents[1])]),
        },
    )
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


def test_is_listed_with_its_package(installed: Path, tmp_path: Path) -> None:
    done = fedmer(installed, ["plugins", "aggregators"], tmp_path)

    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if "SquareRoot" in line]
    assert "square root of their examples" in line
    assert "[fedmer-plugin-example]" in line


def test_trains_by_bare_name_with_its_own_weights(
    installed: Path, corpus: Path, tmp_path: Path
) -> None:
    done = fedmer(
        installed,
        ["fit", "--aggregator", "SquareRoot", "--data.path", corpus, "--name", "x", *QUICK],
        tmp_path,
    )

    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "x"
    assert json.loads((run / "result.json").read_text())["aggregator"] == "SquareRoot"
    clients = rows(run / "clients.csv")
    examples = [int(row["examples"]) for row in clients]
    weights = [float(row["weight"]) for row in clients]
    assert len(set(examples)) > 1
    assert sum(weights) == pytest.approx(1)
    total = sum(n**0.5 for n in examples)
    assert weights == pytest.approx([n**0.5 / total for n in examples])


def test_comes_from_yaml_and_is_recorded_by_path(
    installed: Path, corpus: Path, tmp_path: Path
) -> None:
    config = {
        "aggregator": {"class_path": "SquareRoot", "init_args": {"power": 0.0}},
        "data": {"path": str(corpus)},
        "name": "y",
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")

    done = fedmer(installed, ["fit", "--config", "run.yaml", *QUICK], tmp_path)

    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "y"
    weights = [float(row["weight"]) for row in rows(run / "clients.csv")]
    assert weights == pytest.approx([1 / len(weights)] * len(weights))
    saved = yaml.safe_load((run / "config.yaml").read_text())["aggregator"]
    assert saved == {
        "class_path": "fedmer_plugin_example.square_root.SquareRoot",
        "init_args": {"power": 0.0},
    }


def test_has_help_of_its_own(installed: Path, tmp_path: Path) -> None:
    done = fedmer(installed, ["fit", "--aggregator.help", "SquareRoot"], tmp_path)

    assert done.returncode == 0, done.stderr
    assert "--aggregator.power" in done.stdout
    assert "FedAvg with clients weighed by the square root" in done.stdout


def test_its_own_sentence_is_the_error(installed: Path, corpus: Path, tmp_path: Path) -> None:
    done = fedmer(
        installed,
        ["fit", "--aggregator", "SquareRoot", "--aggregator.power", "-1", "--data.path", corpus],
        tmp_path,
    )

    assert done.returncode == 2
    assert "fedmer: error: power is -1.0; expected 0 or more." in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_broken_package_is_named_and_harms_nobody(tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    packages.mkdir()
    plant_broken_plugin(packages)

    listed = fedmer(packages, ["plugins", "aggregators"], tmp_path)
    done = fedmer(packages, ["fit", "--aggregator", "Local", "--print_config"], tmp_path)

    assert listed.returncode == 0, listed.stderr
    assert "FedAvg" in listed.stdout
    assert done.returncode == 0, done.stderr
    assert "aggregator 'Broken' of fedmer-broken cannot be used" in done.stderr
    assert "RuntimeError: half an installation" in done.stderr
    assert "Traceback" not in done.stderr
    config = yaml.safe_load(done.stdout)
    assert config["aggregator"]["class_path"] == "fedmer.plugins.aggregators.local.Local"
