"""What a head in closed form leaves: scores, predictions and a model that are all its own."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

import fedmer
from fedmer.__main__ import main
from fedmer.data.formats import native, read_corpus
from fedmer.data.synthetic import synthetic_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "small.npz"
    native.write(synthetic_corpus(dialogues=24, features={"text": 6, "audio": 4}), path)
    return path


@pytest.fixture(scope="module", params=["FedAvg", "Distance by prototypes", "Analytic"])
def run(
    request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    rule, _, by_prototypes = request.param.partition(" by ")
    words = ["--aggregator", rule, "--network", "EarlyFusion", "--network.hidden", "8"]
    words += ["--network.heads", "2", "--data.path", str(corpus), "--partitioner.clients", "4"]
    if by_prototypes:
        words += ["--aggregator.inference", "prototype"]
    if rule != "Analytic":
        words += ["--finish", "analytic"]
    runs = tmp_path_factory.mktemp("runs")
    words += ["--trainer.max_epochs", "2", "--runs", str(runs), "--name", "run"]
    assert main(["fit", *words]) == 0
    return runs / "run"


def again(run: Path, command: str) -> None:
    """One of Lightning's own subcommands, on the last checkpoint."""
    config, last = run / "config.yaml", run / "checkpoints" / "last.ckpt"
    assert main([command, "--config", str(config), "--ckpt_path", str(last)]) == 0


def test_validate_and_test_score_the_refitted_network(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = json.loads((run / "result.json").read_text())["last"]["scores"]
    capsys.readouterr()
    for command, part in (("validate", "val"), ("test", "test")):
        again(run, command)
        assert f"{100 * scores[part]['weighted_f1']:.1f}" in capsys.readouterr().out


def test_predict_and_the_model_by_itself_say_what_the_refitted_network_says(
    run: Path, corpus: Path
) -> None:
    again(run, "predict")
    rows = list(csv.DictReader((run / "predictions.csv").open()))
    model = fedmer.load(run / "checkpoints" / "last.ckpt")
    dialogues = [
        one
        for one in read_corpus(corpus).conversations
        if one.id in {row["dialogue"] for row in rows}
    ]
    said = model.predict_all(dialogues)
    by_turn = {
        (dialogue.id, str(turn)): probabilities
        for dialogue, prediction in zip(dialogues, said, strict=True)
        for turn, probabilities in enumerate(prediction.probabilities)
    }
    for row in rows:
        expected = [float(row[f"p_{name}"]) for name in model.labels]
        np.testing.assert_allclose(by_turn[row["dialogue"], row["turn"]], expected, atol=1e-4)


def test_the_model_by_itself_has_nothing_of_what_clients_sent(run: Path) -> None:
    names = load_file(run / "model" / "weights.safetensors")
    assert not [name for name in names if "sums" in name or "members" in name]
