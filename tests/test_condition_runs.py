"""Conditions from the command line and from Python: what a run records, shows and refuses."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

import fedmer
from fedmer.__main__ import main
from fedmer.plugins.aggregators.median import Median
from fedmer.plugins.conditions.label_flip import LabelFlip
from fedmer.plugins.conditions.label_noise import LabelNoise
from fedmer.plugins.conditions.nan_update import NaNUpdate
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.record.rows import read_rows

SMALL = ["--partitioner.clients", "5", "--network", "EarlyFusion", "--network.hidden", "8"]


def fit(corpus: Path, *words: str) -> int:
    given = ["fit", "--data.path", str(corpus), *SMALL, "--aggregator", "FedAvg"]
    return main([*given, "--name", "run", *words])


@pytest.fixture
def bad(here: Path) -> Iterator[Path]:
    """A file with two conditions."""
    path = here / "bad.yaml"
    listed = [
        {"class_path": "LabelNoise", "init_args": {"fraction": 0.4, "severity": 0.3}},
        {"class_path": "SignFlip"},
    ]
    path.write_text(yaml.safe_dump({"conditions": listed}))
    return path


def test_the_run_records_what_is_wrong_with_whom(bad: Path, corpus_file: Path, here: Path) -> None:
    assert fit(corpus_file, "--config", str(bad), "--trainer.max_epochs", "1") == 0
    saved = yaml.safe_load((here / "runs/run/config.yaml").read_text())["conditions"]
    names = [entry["class_path"].rpartition(".")[2] for entry in saved]
    assert names == ["LabelNoise", "SignFlip"]
    assert saved[0]["init_args"]["severity"] == 0.3
    result = json.loads((here / "runs/run/result.json").read_text())
    chosen = [f"client {c}" for c in LabelNoise(0.4).chosen(5, 0)]
    assert result["conditions"][0] == {"name": "LabelNoise", "clients": chosen, "test": False}
    assert len(result["conditions"][1]["clients"]) == 1


def test_describe_shows_what_conditions_do(
    corpus_file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    words = ["data", "describe", str(corpus_file), "--partitioner", "Dialogue"]
    words += ["--partitioner.clients", "5"]
    assert main([*words, "--conditions", "[LabelFlip, FewExamples]"]) == 0
    told = capsys.readouterr().out
    assert "conditions hold for 1 of 5 clients" in told
    (client,) = LabelFlip().chosen(5, 0)
    row = next(line for line in told.splitlines() if "LabelFlip, FewExamples" in line)
    assert f"client {client}" in row
    assert main([*words[:3], "--conditions", "LabelFlip"]) == 2
    assert "name one, such as --partitioner Dialogue" in capsys.readouterr().err
    assert main([*words, "--conditions", "LabelFlop"]) == 2
    assert "unknown condition 'LabelFlop'; did you mean 'LabelFlip'?" in capsys.readouterr().err
    assert main([*words, "--conditions.fraction", "0.4"]) == 2
    assert "a condition has options but no name; add --conditions" in capsys.readouterr().err


def test_all_clients_bad_ends_the_run_with_a_sentence_and_the_last_good_checkpoint(
    corpus_file: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nan = ["--conditions", "NaNUpdate", "--conditions.fraction"]
    assert fit(corpus_file, *nan, "0.4", "--trainer.max_epochs", "1") == 0
    rows = read_rows(here / "runs/run/failures.csv")
    assert len(rows) == 2
    assert all("was left out: its update holds NaN or infinity" in row["why"] for row in rows)
    last = here / "runs/run/checkpoints/last.ckpt"
    before = last.read_bytes()
    capsys.readouterr()
    more = ["--ckpt_path", str(last), "--trainer.max_epochs", "2"]
    assert fit(corpus_file, *nan, "1", *more) == 2
    told = capsys.readouterr().err
    assert "Round 2: no client has a part in the result (" in told
    assert "Stopped in round 2. Go on with" in told
    assert "Traceback" not in told
    assert last.read_bytes() == before


def test_python_gives_conditions_as_they_are(here: Path, corpus_file: Path) -> None:
    run = fedmer.fit(
        corpus_file,
        network=EarlyFusion(hidden=8),
        aggregator=Median(),
        partitioner=Dialogue(5),
        conditions=[LabelFlip(0.4), NaNUpdate(0.2, seed=1)],
        rounds=1,
    )
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())["conditions"]
    assert [entry["init_args"]["fraction"] for entry in saved] == [0.4, 0.2]
    assert len(read_rows(run.folder / "failures.csv")) == 1
