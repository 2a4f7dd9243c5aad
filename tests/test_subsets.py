"""Scores by what is there: subsets of the modalities, and clients by what they have."""

import csv
import json
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch

from fedmer import api
from fedmer.__main__ import main
from fedmer.data.formats import native
from fedmer.data.missing import modalities_in, restricted, subsets
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.federated import FederatedModule
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.record.reading import read_rows
from fedmer.record.subsets import subset_votes

NAMES = ["text", "audio", "visual"]
CORPUS = synthetic_corpus(seed=0, dialogues=30, features={"text": 6, "audio": 4, "visual": 3})
ALL = ["text+audio+visual", "text+audio", "text+visual", "audio+visual", *NAMES]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rules; half of the clients have no audio."""
    folder = tmp_path_factory.mktemp("subsets")
    native.write(CORPUS, folder / "corpus.npz")
    listed = "{class_path: MissingModality, init_args: {by: client, modalities: [audio], "
    listed += "severity: 1, fraction: 0.5}}"
    for rule in ("FedAvg", "Local"):
        words = ["fit", "--data.path", str(folder / "corpus.npz"), "--data.holdout", "0.3"]
        words += ["--network", "EarlyFusion", "--network.hidden", "8", "--aggregator", rule]
        words += ["--partitioner", "Dialogue", "--partitioner.clients", "4"]
        words += ["--conditions", listed, "--trainer.max_epochs", "2"]
        assert main([*words, "--runs", str(folder), "--name", rule]) == 0
    return folder


def test_a_run_has_a_row_for_each_subset(runs: Path) -> None:
    for rule in ("FedAvg", "Local"):
        rows = read_rows(runs / rule / "subsets.csv")
        assert [row["modalities"] for row in rows] == ALL
        result = json.loads((runs / rule / "result.json").read_text())
        whole = result["last"]["scores"]["test"]
        for name in ("accuracy", "weighted_f1", "macro_f1", "uar"):
            assert float(rows[0][name]) == pytest.approx(whole[name], abs=1e-6)
        found = api.Run(runs / rule).subsets
        assert list(found) == ALL
        assert found["text"].accuracy == pytest.approx(float(rows[4]["accuracy"]), abs=1e-6)
        assert len({row["weighted_f1"] for row in rows}) > 3
    holdouts = json.loads((runs / "FedAvg" / "result.json").read_text())["holdouts"]
    assert sorted(len(one["modalities"]) for one in holdouts.values()) == [2, 2, 3, 3]


def test_a_network_that_ignores_audio_is_as_good_without_it(runs: Path) -> None:
    last = runs / "FedAvg" / "checkpoints" / "last.ckpt"
    module = FederatedModule.load_from_checkpoint(last)
    assert module.network is not None
    with torch.no_grad():
        for parameter in module.network.get_submodule("project.layers.audio").parameters():
            parameter.zero_()
    data = FederatedDataModule(Dialogue(4), runs / "corpus.npz")
    pl.Trainer(logger=False, enable_progress_bar=False).test(module, data, verbose=False)
    found = subset_votes(module, data)
    assert module.votes is not None
    assert torch.equal(found["text+audio+visual"], module.votes)
    for with_audio, without in (
        ("text+audio+visual", "text+visual"),
        ("text+audio", "text"),
        ("audio+visual", "visual"),
    ):
        assert torch.equal(found[with_audio], found[without])
    assert not torch.equal(found["text"], found["visual"])


def test_the_test_command_prints_every_subset(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    run = runs / "FedAvg"
    words = ["test", "--config", str(run / "config.yaml"), "--runs", str(runs / "other")]
    assert main([*words, "--ckpt_path", str(run / "checkpoints" / "last.ckpt")]) == 0
    told = capsys.readouterr().out
    rows = {row["modalities"]: row for row in read_rows(run / "subsets.csv")}
    table = told[told.index("by modalities") :]
    for name in ALL:
        line = next(line for line in table.splitlines() if f" {name} " in line)
        assert f"{100 * float(rows[name]['weighted_f1']):.1f}" in line
        assert " to " in line


def test_the_report_compares_subsets_and_clients_by_what_they_have(runs: Path) -> None:
    out = runs / "out"
    assert main(["report", str(runs / "FedAvg"), str(runs / "Local"), "--out", str(out)]) == 0
    with (out / "modalities.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["row"], row["modalities"]) for row in rows] == [
        (rule, name) for rule in ("FedAvg", "Local") for name in ALL
    ]
    for row in rows:
        assert float(row["low"]) <= float(row["weighted_f1"]) <= float(row["high"])
        whole = next(one for one in rows if one["row"] == row["row"])
        if row is whole:
            assert row["difference"] == ""
        else:
            lost = float(row["weighted_f1"]) - float(whole["weighted_f1"])
            assert float(row["difference"]) == pytest.approx(lost, abs=2e-4)
            low, high = float(row["difference_low"]), float(row["difference_high"])
            assert low <= float(row["difference"]) <= high
    with (out / "having.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["modalities"], row["clients"]) for row in rows] == [
        ("text+audio+visual", "2"),
        ("text+visual", "2"),
    ] * 2
    page = (out / "index.html").read_text()
    assert "Clients by modalities" in page
    assert "text+audio+visual" in page


def test_runs_of_one_modality_say_nothing_of_subsets(here: Path) -> None:
    native.write(synthetic_corpus(dialogues=10, features={"text": 4}), here / "text.npz")
    words = ["fit", "--data.path", str(here / "text.npz"), "--network", "TFN", "--name", "run"]
    words += ["--network.hidden", "4", "--partitioner", "Dialogue", "--partitioner.clients", "2"]
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    assert not (here / "runs" / "run" / "subsets.csv").exists()
    assert api.Run(here / "runs" / "run").subsets == {}
    assert main(["report", str(here / "runs" / "run")]) == 0


def test_subsets_are_all_of_few_and_the_telling_ones_of_many() -> None:
    assert ["+".join(chosen) for chosen in subsets(NAMES)] == ALL
    many = [f"m{i}" for i in range(6)]
    assert [len(chosen) for chosen in subsets(many)] == [6, *[5] * 6, *[1] * 6]
    data = FederatedDataModule(Dialogue(4))
    data._corpus = CORPUS
    data.setup("fit")
    parts = data.excerpts("test")
    assert modalities_in(parts) == NAMES
    assert modalities_in(restricted(parts, ("audio",))) == ["audio"]
    assert modalities_in([]) == []
