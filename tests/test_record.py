"""The files of a run say what happened, and agree with each other."""

import json
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedmer.__main__ import main
from fedmer.data.formats.native import write
from fedmer.data.synthetic import synthetic_corpus
from fedmer.record.prototypes import PrototypeRecord, read_prototypes
from fedmer.record.record import read_rows
from fedmer.record.votes import read_votes


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rounds of a federation of four sessions, half of them a round."""
    folder = tmp_path_factory.mktemp("record")
    write(synthetic_corpus(dialogues=40, features={"text": 6, "audio": 4}), folder / "c.npz")
    # Nothing that the system takes away: what is private is so by itself.
    mask = os.umask(0)
    try:
        code = main(
            [
                *("fit", "--data.path", str(folder / "c.npz"), "--runs", str(folder / "runs")),
                *("--name", "run", "--partitioner", "Session", "--selector", "Uniform"),
                *("--network.hidden", "8", "--network.heads", "2", "--trainer.max_epochs", "3"),
                *("--model.evaluate_clients", "true", "--optimizer.lr", "0.003"),
            ]
        )
    finally:
        os.umask(mask)
    assert code == 0
    return folder / "runs" / "run"


def test_all_files_are_there(run: Path) -> None:
    names = {p.relative_to(run).as_posix() for p in run.rglob("*") if p.is_file()}
    assert names == {
        "config.yaml", "metrics.csv", "clients.csv", "failures.csv", "result.json", "curves.png",
        "confusion.png", "test_votes.npz", "subsets.csv", "subset_votes.npz", "prototypes.npz",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt", "model/model.json", "model/weights.safetensors",
        "model/digests.json", "model/README.md",
    }  # fmt: skip
    for plot in ("curves.png", "confusion.png"):
        assert (run / plot).read_bytes().startswith(b"\x89PNG")


def test_a_run_is_its_owners_alone_and_a_report_is_for_sharing(run: Path, tmp_path: Path) -> None:
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (run, *run.rglob("*"))}
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o700}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o600}
    mask = os.umask(0o022)
    try:
        assert main(["report", str(run), "--out", str(tmp_path / "page")]) == 0
    finally:
        os.umask(mask)
    pages = [path for path in (tmp_path / "page").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in pages} == {0o644}
    assert stat.S_IMODE((tmp_path / "page").stat().st_mode) == 0o755


def test_rows_of_rounds_and_clients_agree(run: Path) -> None:
    rounds, clients = read_rows(run / "metrics.csv"), read_rows(run / "clients.csv")
    assert [row["round"] for row in rounds] == ["1", "2", "3"]
    for row in rounds:
        own = [client for client in clients if client["round"] == row["round"]]
        assert len(own) == int(row["clients"]) == 2
        assert sum(float(client["weight"]) for client in own) == pytest.approx(1)
        examples = sum(int(client["examples"]) for client in own)
        loss = sum(float(c["train_loss"]) * int(c["examples"]) for c in own) / examples
        assert float(row["train_loss"]) == pytest.approx(loss)
        assert all(0 <= float(client["weighted_f1"]) <= 1 for client in own)
        assert float(row["seconds"]) > 0
        assert int(row["bytes_up"]) > int(row["bytes_down"]) > 0


def test_the_result_is_what_the_rows_say(run: Path) -> None:
    result = json.loads((run / "result.json").read_text())
    rows = read_rows(run / "metrics.csv")
    best = max(rows, key=lambda row: float(row["val_weighted_f1"]))
    assert str(result["selected"]["round"]) == best["round"]
    assert result["last"]["round"] == 3
    for key, row in (("selected", best), ("last", rows[-1])):
        for part in ("val", "test"):
            scores = result[key]["scores"][part]
            assert scores["weighted_f1"] == float(row[f"{part}_weighted_f1"])
            confusion = scores["confusion"]
            support = [sum(line) for line in confusion]
            recall = [confusion[c][c] / max(support[c], 1) for c in range(len(confusion))]
            weighted = sum(r * s for r, s in zip(recall, support, strict=True)) / sum(support)
            # Support-weighted recall is accuracy: the check that published tables have failed.
            assert weighted == pytest.approx(scores["accuracy"], abs=1e-6)
    assert result["bytes_up"] == sum(int(row["bytes_up"]) for row in rows)
    assert set(result["holdouts"]) == {"Ses01", "Ses02", "Ses03", "Ses04"}
    assert len(result["data"]["fingerprint"]) == 16
    assert result["data"]["coverage"] == 1
    assert result["baselines"]["majority"]["weighted_f1"] < result["baselines"]["probe"]["accuracy"]
    assert {"torch", "pytorch-lightning", "fedmer"} <= set(result["versions"])


def test_loggers_and_callbacks_count_rounds(here: Path, corpus_file: Path) -> None:
    code = main(
        [
            *("fit", "--data.path", str(corpus_file), "--name", "run", "--partitioner", "Session"),
            *("--network.hidden", "8", "--trainer.max_epochs", "5", "--trainer.min_epochs", "2"),
            *("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "logs"),
            *("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "train_loss"),
            *("--trainer.callbacks.stopping_threshold", "100"),
        ]
    )
    assert code == 0
    (file,) = here.glob("logs/lightning_logs/version_*/metrics.csv")
    logged = read_rows(file)
    recorded = read_rows(here / "runs" / "run" / "metrics.csv")
    assert [row["step"] for row in logged] == [row["round"] for row in recorded] == ["1", "2"]
    for one, other in zip(logged, recorded, strict=True):
        for name in (name for name, value in other.items() if value):
            assert float(one[name]) == pytest.approx(float(other[name])), name
    options = yaml.safe_load((file.parent / "hparams.yaml").read_text())
    assert options["network"]["init_args"]["hidden"] == 8


def assert_votes_are_the_confusion(run: Path, networks: int, turns: int) -> None:
    result = json.loads((run / "result.json").read_text())
    for which in ("last", "selected"):
        votes = read_votes(run / "test_votes.npz", which)
        assert votes is not None
        places = list(zip(votes.dialogue.tolist(), votes.turn.tolist(), strict=True))
        assert len(set(places)) == len(places) == turns
        assert places == sorted(places)
        assert set(votes.counts.sum(axis=1).tolist()) == {networks}
        names, confusion = votes.by_dialogue()
        assert len(names) == len(set(votes.dialogue.tolist()))
        assert confusion.sum(axis=0).tolist() == result[which]["scores"]["test"]["confusion"]


def turns_of(path: Path) -> int:
    from fedmer.data.formats.native import read

    corpus = read(path)
    return sum(int((corpus.conversations[i].labels >= 0).sum()) for i in corpus.part("test"))


def test_votes_are_the_confusion_matrix(run: Path) -> None:
    assert_votes_are_the_confusion(run, 1, turns_of(run.parent.parent / "c.npz"))


@pytest.mark.parametrize(("rule", "networks"), [("FedAvg", 1), ("FedProto", 8)])
def test_a_resumed_run_keeps_the_votes_and_prototypes_of_an_unbroken_one(
    here: Path, run: Path, rule: str, networks: int
) -> None:
    """Split by speaker, where a dialogue is scored from several sides."""
    corpus = run.parent.parent / "c.npz"
    fixed = [
        *("fit", "--data.path", str(corpus), "--aggregator", rule, "--partitioner", "Speaker"),
        *("--network.hidden", "8", "--network.heads", "2", "--local.batch_size", "16"),
    ]
    last = ["--ckpt_path", "runs/broken/checkpoints/last.ckpt"]
    for name, rounds, more in (("straight", 2, []), ("broken", 1, []), ("broken", 2, last)):
        arguments = [*fixed, "--name", name, "--trainer.max_epochs", str(rounds), *more]
        assert main(arguments) == 0
    files = ["test_votes.npz", *(["prototypes.npz"] if rule == "FedProto" else [])]
    for name in files:
        with (
            np.load(Path("runs/straight") / name) as one,
            np.load(Path("runs/broken") / name) as two,
        ):
            assert set(one) == set(two)
            for key in one:
                assert np.array_equal(one[key], two[key]), key
    assert Path("runs/broken/prototypes.npz").exists() == (rule == "FedProto")
    assert_votes_are_the_confusion(Path("runs/broken"), networks, turns_of(corpus))
    assert main(["report", "runs", "--round", "last"]) == 0


def test_prototypes_of_every_round_are_kept(tmp_path: Path) -> None:
    """Of several sites, one of which comes later; a restart forgets rounds that are repeated."""
    import torch

    from fedmer.prototypes import Prototypes, PrototypeSet

    record = PrototypeRecord(tmp_path / "prototypes.npz")
    record.append(1, PrototypeSet({}))
    assert not record.path.exists()
    for number in (2, 3, 4):
        sites = {"text": Prototypes(torch.full((2, 3), number), torch.tensor([True, False]))}
        if number > 2:
            sites["fused"] = Prototypes(torch.full((2, 5), 10.0 * number), torch.ones(2) > 0)
        record.append(number, PrototypeSet(sites))
    again = PrototypeRecord(record.path)
    again.restart(done=3)
    again.append(4, PrototypeSet({"text": Prototypes(torch.zeros(2, 3), torch.ones(2) > 0)}))
    rounds, found = read_prototypes(record.path)
    assert rounds.tolist() == [2, 3, 4]
    values, known = found["text"]
    assert values[:, 0, 0].tolist() == [2, 3, 0]
    assert known.tolist() == [[True, False], [True, False], [True, True]]
    values, known = found["fused"]
    assert values[:, 0, 0].tolist() == [0, 30, 0]
    assert known.tolist() == [[False, False], [True, True], [False, False]]
    again.restart(done=1)
    assert not record.path.exists()


def test_a_round_that_is_not_evaluated_has_no_scores(here: Path, run: Path) -> None:
    code = main(
        [
            *("fit", "--data.path", str(run.parent.parent / "c.npz"), "--name", "run"),
            *("--network.hidden", "8", "--partitioner", "Session", "--trainer.max_epochs", "3"),
            *("--trainer.check_val_every_n_epoch", "2", "--model.evaluate_clients", "true"),
            *("--local.batch_size", "16"),
        ]
    )
    assert code == 0
    rows = read_rows(here / "runs" / "run" / "metrics.csv")
    assert [bool(row["test_weighted_f1"]) for row in rows] == [False, True, False]
    clients = read_rows(here / "runs" / "run" / "clients.csv")
    assert {row["round"] for row in clients if row["weighted_f1"]} == {"2"}
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    assert result["last"]["round"] == 2
    assert result["rounds"] == 3
