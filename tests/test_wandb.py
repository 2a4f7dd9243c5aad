"""What Weights & Biases gets of a run, read back from what an offline run wrote."""

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytorch_lightning.loggers import CSVLogger, Logger, WandbLogger

import fedmer
from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.record.loggers import settle_wandb
from fedmer.record.reading import read_rows
from fedmer.record.record import METRICS
from fedmer.runs import MODEL, RunFolder
from tests.offline import OfflineRun, read_offline


@dataclass
class Logged:
    """A run of two rounds that was gone on with for a third, and what W&B wrote of each part."""

    folder: Path
    parts: list[OfflineRun]
    files: list[Path]


@pytest.fixture(scope="module")
def logged(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    import wandb

    here = tmp_path_factory.mktemp("wandb")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here)
        for name, value in {"MODE": "offline", "SILENT": "true", "DATA_DIR": "d"}.items():
            patch.setenv(f"WANDB_{name}", value)
        run = here / "runs" / "my run"
        first = [
            *("fit", "--data.path", str(corpus_file), "--name", "my run", "--network.hidden", "8"),
            *("--partitioner.clients", "2", "--data.holdout", "0.2", "--trainer.max_epochs", "2"),
            *("--trainer.logger", "WandbLogger", "--trainer.logger.project", "emotions"),
        ]
        assert main(first) == 0
        wandb.finish()
        fedmer.fit(
            config=run / "config.yaml",
            checkpoint=run / "checkpoints" / "last.ckpt",
            rounds=3,
            logger=WandbLogger(project="emotions"),
        )
        wandb.finish()
        wandb.teardown()  # which waits for what is still on its way to the file
        paths = sorted(here.glob("wandb/offline-run-*/run-*.wandb"))
        yield Logged(run, [read_offline(path) for path in paths], [p.parent for p in paths])


def test_a_round_is_one_row_with_everything(logged: Logged) -> None:
    rows = [[row for row in part.rows if "round" in row] for part in logged.parts]
    assert [[row["round"] for row in part] for part in rows] == [[1, 2], [3]]
    recorded = read_rows(logged.folder / "metrics.csv")
    for row, kept in zip(itertools.chain(*rows), recorded, strict=True):
        assert {"val_weighted_f1", "train_loss", "bytes_up", "seconds"} <= row.keys()
        for name in METRICS:
            # A number that a round does not have, such as an epsilon, is no part of its row.
            told = pytest.approx(float(kept[name])) if kept[name] else None
            assert row.get(name) == told, name
    # What else is logged comes after them, once a run, and is none of a round's.
    assert [len(part.rows) for part in logged.parts] == [3, 2]


def test_curves_are_over_rounds(logged: Logged) -> None:
    for part in logged.parts:
        assert {part.metrics[name] for name in METRICS if name != "round"} == {"round"}


def test_a_run_has_its_name_and_goes_on_under_its_id(logged: Logged) -> None:
    first, then = logged.parts
    assert first.name == then.name == "my run"
    assert first.project == then.project == "emotions"
    assert first.id == then.id == json.loads((logged.folder / "wandb.json").read_text())["id"]


def test_the_configuration_is_nested_and_without_the_loggers_own(logged: Logged) -> None:
    first, then = (part.config for part in logged.parts)
    assert first["network"]["init_args"]["hidden"] == 8
    assert first["aggregator"]["class_path"].endswith(".Distance")
    assert (first["trainer"]["max_epochs"], then["trainer"]["max_epochs"]) == (2, 3)
    assert "logger" not in first["trainer"]
    assert not any("." in name for name in first)


def test_the_summary_says_which_round_was_selected(logged: Logged) -> None:
    result = json.loads((logged.folder / "result.json").read_text())
    summary, selected = logged.parts[-1].summary, result["selected"]
    assert summary["selected_round"] == selected["round"]
    for part in ("val", "test"):
        score = selected["scores"][part]["weighted_f1"]
        assert summary[f"selected_{part}_weighted_f1"] == pytest.approx(score)
    assert summary["last_round"] == summary["rounds"] == 3
    assert summary["total_bytes_up"] == result["bytes_up"]
    assert summary["fingerprint"] == result["data"]["fingerprint"]
    assert summary["probe_accuracy"] == pytest.approx(result["baselines"]["probe"]["accuracy"])


def test_tables_have_every_emotion_and_every_client_by_number(logged: Logged) -> None:
    result = json.loads((logged.folder / "result.json").read_text())

    def table(name: str) -> list[dict[str, object]]:
        path = logged.files[-1] / "files" / logged.parts[-1].summary[name]["path"]
        content = json.loads(path.read_text())
        return [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]

    selected = result["selected"]["scores"]
    rows = [row for row in table("per_class") if row["part"] == "test"]
    assert [row["emotion"] for row in rows] == result["data"]["labels"]
    assert [row["f1"] for row in rows] == pytest.approx(selected["test"]["f1"])
    assert [row["utterances"] for row in rows] == [sum(r) for r in selected["test"]["confusion"]]
    clients = table("per_client")
    assert [row["client"] for row in clients] == [0, 1]
    assert {row["rounds"] for row in clients} == {3}
    held = [scores["weighted_f1"] for scores in result["holdouts"].values()]
    assert [row["holdout_weighted_f1"] for row in clients] == pytest.approx(held)
    assert not {row["name"] for row in read_rows(logged.folder / "clients.csv")} & {
        str(value) for row in clients for value in row.values()
    }


def test_the_confusion_matrix_is_a_picture(logged: Logged) -> None:
    path = logged.files[-1] / "files" / logged.parts[-1].summary["confusion"]["path"]
    assert path.read_bytes()[1:4] == b"PNG"


def test_the_model_is_an_artifact(logged: Logged) -> None:
    (artifact,) = (a for a in logged.parts[-1].artifacts if a.type == "model")
    bundle = logged.folder / MODEL
    assert {entry.path for entry in artifact.manifest.contents} == {
        path.name for path in bundle.iterdir()
    }
    for entry in artifact.manifest.contents:
        assert Path(entry.local_path).read_bytes() == (bundle / entry.path).read_bytes()
    assert json.loads(artifact.metadata)["run"] == "my run"


def test_what_was_typed_names_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_NAME", raising=False)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    folder = RunFolder(tmp_path, checkpoint=tmp_path / "checkpoints" / "last.ckpt")
    (tmp_path / "wandb.json").write_text('{"id": "abc"}')

    def begun(logger: Logger, folder: RunFolder = folder) -> tuple[str | None, str | None]:
        settle_wandb([CSVLogger(tmp_path), logger], folder)
        assert isinstance(logger, WandbLogger)
        return logger._wandb_init["name"], logger._wandb_init["id"]

    assert begun(WandbLogger(name="mine", id="i")) == ("mine", "i")
    assert begun(WandbLogger(version="v")) == (tmp_path.name, "v")
    assert begun(WandbLogger()) == (tmp_path.name, "abc")
    assert begun(WandbLogger(), RunFolder(tmp_path, replace=True)) == (tmp_path.name, None)
    monkeypatch.setenv("WANDB_NAME", "by a sweep")
    monkeypatch.setenv("WANDB_RUN_ID", "by an agent")
    assert begun(WandbLogger()) == (None, None)


@pytest.mark.parametrize("kept", ["{}", "[]", '{"id": 3}', '{"id": "../x"}', '{"id": ""}'])
def test_an_id_that_is_none_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: str
) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    (tmp_path / "wandb.json").write_text(kept)
    with pytest.raises(InputError, match="has no id of W&B; remove it"):
        settle_wandb([WandbLogger()], RunFolder(tmp_path, checkpoint=tmp_path / "last.ckpt"))
