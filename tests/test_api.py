"""fedmer in Python: what it trains, keeps and says is what the command line does."""

import csv
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import yaml

import fedmer
from fedmer.__main__ import main
from fedmer.api import fit
from fedmer.data.formats.native import read
from fedmer.data.formats.tables.write import write
from fedmer.errors import InputError
from fedmer.loop import Place, RoundReport
from fedmer.messages import Summary
from fedmer.plugins.networks.sdt import SDT
from tests.documented import ROOT
from tests.federations import small_corpus

SMALL: dict[str, Any] = {
    "network": fedmer.SDT(hidden=8, heads=2),
    "partitioner": fedmer.Dialogue(clients=3),
    "rounds": 2,
    "progress": False,
}
TYPED = [
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "3"),
    *("--trainer.max_epochs", "2", "--trainer.enable_progress_bar", "false"),
]


def weights(run: Path) -> dict[str, torch.Tensor]:
    saved = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept: dict[str, torch.Tensor] = saved["state_dict"]
    return kept


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return [{**row, "seconds": ""} for row in csv.DictReader(file)]


def assert_same(one: Path, other: Path) -> None:
    """Two runs have the same bits."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert rows(one) == rows(other)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, corpus_file: Path) -> Path:
    """Runs ``python`` and ``typed`` of the same parts, the first of a corpus in memory."""
    folder = tmp_path_factory.mktemp("api")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    # With another start than the defaults, of every kind of part.
    given = SMALL | {
        "aggregator": fedmer.FedProx(mu=0.1),
        "optimizer": partial(torch.optim.AdamW, lr=0.01),
        "selector": fedmer.Uniform(fraction=0.7),
        "loss": fedmer.SelfDistillation(temperature=2),
        "local": {"epochs": 2},
        "data": {"standardise": "local"},
        "seed": 7,
    }
    fit(small_corpus(), name="python", **given)
    words = ["--aggregator", "FedProx", "--aggregator.mu", "0.1", "--seed_everything", "7"]
    words += ["--optimizer", "AdamW", "--optimizer.lr", "0.01", "--local.epochs", "2"]
    words += ["--selector", "Uniform", "--selector.fraction", "0.7", "--loss.temperature", "2"]
    words += ["--data.standardise", "local", "--data.path", str(corpus_file), "--name", "typed"]
    assert main(["fit", *TYPED, *words]) == 0
    patch.undo()
    return folder / "runs"


def test_a_run_of_python_is_that_of_the_command_line_to_the_bit(place: Path) -> None:
    assert_same(place / "python", place / "typed")
    files = [{str(p.relative_to(run)) for run in [place / name] for p in run.rglob("*")}
             for name in ("python", "typed")]  # fmt: skip
    assert files[0] - files[1] == {"corpus.npz"}
    assert files[1] <= files[0]
    ours, theirs = (
        yaml.safe_load((place / name / "config.yaml").read_text()) for name in ("python", "typed")
    )
    assert ours.pop("data") | {"path": ""} == theirs.pop("data") | {"path": ""}
    assert ours == theirs
    assert read(place / "python" / "corpus.npz").fingerprint == small_corpus().fingerprint


@pytest.mark.slow
def test_the_command_line_goes_on_tests_predicts_and_reports_on_a_run_of_python(
    place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(place.parent)
    for name in ("python", "typed"):
        run = Path("runs") / name
        words = ["--config", str(run / "config.yaml")]
        last = ["--ckpt_path", str(run / "checkpoints" / "last.ckpt")]
        assert main(["test", *words, *last]) == 0
        assert main(["predict", str(run), "--out", str(tmp_path / f"{name}.csv")]) == 0
        more = ["--trainer.max_epochs", "3", "--name", f"{name}-on"]
        assert main(["fit", *words, *last, *more]) == 0
    assert_same(place / "python-on", place / "typed-on")
    assert (tmp_path / "python.csv").read_text() == (tmp_path / "typed.csv").read_text()
    assert main(["report", "runs/python", "--out", str(tmp_path / "report.html")]) == 0
    # And Python goes on where it was, or where the command line was.
    on = fit(checkpoint="runs/typed/checkpoints/last.ckpt", config="runs/typed/config.yaml",
             rounds=3, name="both", progress=False)  # fmt: skip
    assert_same(on.folder, place / "python-on")


def test_a_run_says_what_its_files_say(place: Path) -> None:
    run = fedmer.Run(place / "python")
    assert run.scores["test"].accuracy == pytest.approx(run.rounds[run.round - 1]["test_accuracy"])
    assert [row["round"] for row in run.rounds] == [1, 2]
    assert len(run.clients) == sum(int(row["clients"] or 0) for row in run.rounds)
    conversation = small_corpus().conversations[0]
    said = run.predict(conversation).probabilities
    np.testing.assert_array_equal(
        said, fedmer.load(place / "python").predict(conversation).probabilities
    )
    assert run.result["aggregator"] == "FedProx"
    with pytest.raises(InputError, match="nowhere is no run"):
        fedmer.Run("nowhere")


@pytest.mark.slow
def test_what_is_left_out_is_as_the_command_line_has_it(here: Path) -> None:
    """The whole configuration, down to the last default."""
    with pytest.raises(InputError, match=r"max_epochs is 0; expected at least 1 round"):
        fit(rounds=0, name="a")
    # A run that never began leaves nothing; so the configuration is that of a short one.
    parts = {
        "network": {"init_args": {"hidden": 8, "heads": 2}},
        "partitioner": SMALL["partitioner"],
    }
    fit(small_corpus(), rounds=1, name="a", progress=False, **parts)
    ours = yaml.safe_load((here / "runs" / "a" / "config.yaml").read_text())
    assert main(["fit", "--config", "runs/a/config.yaml", "--name", "b", *TYPED[:8]]) == 0
    theirs = yaml.safe_load((here / "runs" / "b" / "config.yaml").read_text())
    ours["trainer"]["max_epochs"] = 2
    assert ours == theirs
    assert ours["aggregator"]["class_path"].endswith("distance.Distance")
    assert ours["loss"]["temperature"] == 8.0


class Watch(pl.Callback):
    """Notes what hooks get."""

    def __init__(self) -> None:
        self.batches: list[tuple[Place, Summary | None, RoundReport | None]] = []
        self.begun: list[Place] = []
        self.rounds: list[tuple[int, float]] = []

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        self.begun.append(batch)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append((batch, outputs["summary"], outputs["report"]))

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        report = pl_module.report
        self.rounds.append((report.round, pl_module.scores["val"].weighted_f1))
        trainer.should_stop = report.round == 1


def test_a_callback_gets_what_a_round_is(here: Path) -> None:
    watch = Watch()
    run = fit(small_corpus(), **{**SMALL, "rounds": 9}, callbacks=[watch],
              selector=fedmer.VolumeProportional(fraction=0.5))  # fmt: skip
    assert [number for number, _ in watch.rounds] == [0, 1]
    assert [f1 for _, f1 in watch.rounds] == [row["val_weighted_f1"] for row in run.rounds]
    assert watch.begun == [batch for batch, _, _ in watch.batches]
    for number in (0, 1):
        of_round = [entry for entry in watch.batches if entry[0].round == number]
        *_, (_, _, report) = of_round
        assert report is not None
        assert report.round == number
        assert all(earlier is None for _, _, earlier in of_round[:-1])
        said = {summary.client: summary for _, summary, _ in of_round if summary is not None}
        assert sorted(said) == sorted(report.weights)
        for batch, summary, _ in of_round:
            assert (batch.client is None) == (summary is None)
            if summary is not None:
                assert summary.client == batch.client
                assert batch.name == f"client {batch.client}"


def test_callbacks_and_loggers_that_cannot_work_are_refused_as_they_are_when_typed(
    here: Path,
) -> None:
    with pytest.raises(InputError, match="The callback SWA cannot be used: it works on the"):
        fit(callbacks=[type("SWA", (pl.callbacks.StochasticWeightAveraging,), {})(swa_lrs=0.1)])
    with pytest.raises(InputError, match="would end the run in the middle of a round"):
        fit(callbacks=[pl.callbacks.Timer("00:00:01:00")])
    assert list(here.iterdir()) == []


@pytest.mark.slow
def test_a_logger_of_python_gets_the_rounds(here: Path) -> None:
    logger = pl.loggers.CSVLogger(here / "logs", name="", version="")
    fit(small_corpus(), **SMALL, logger=logger)
    text = (here / "logs" / "metrics.csv").read_text()
    assert "val_weighted_f1" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"aggregator": "FedAvgg"}, "unknown aggregator 'FedAvgg'; did you mean 'FedAvg'?"),
        ({"network": partial(SDT, 8)}, "network is a partial with arguments without names"),
        ({"network": {"init_args": {"hiden": 8}}}, "unknown option 'hiden'; did you mean 'hidden'"),
        ({"optimizer": object()}, "optimizer is a object, which no configuration can hold"),
        ({"local": {"epochs": 0}}, "local.epochs is 0; expected at least 1."),
        ({"trainer": {"max_steps": 3}}, "--trainer.max_steps 3 cannot be used"),
        ({"data": {"path": "nowhere.npz"}}, "nowhere.npz does not exist"),
        ({"config": "no_such"}, "unknown recipe 'no_such'"),
        ({"name": "a/b"}, "--name is 'a/b'; expected a plain folder name"),
        ({"checkpoint": "a.ckpt"}, "There is no checkpoint a.ckpt"),
    ],
)
def test_what_cannot_be_used_is_a_sentence(
    here: Path, given: dict[str, Any], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError) as refused:
        fit(**{**SMALL, **given})
    assert said in str(refused.value)
    assert capsys.readouterr().err == ""
    assert list(here.iterdir()) == []


def test_a_class_of_a_function_is_refused(here: Path) -> None:
    class Mine(fedmer.FedAvg):
        """One that no other process could import."""

    with pytest.raises(InputError, match="define it at the top of a module or a notebook"):
        fit(aggregator=Mine())


class TopFedAvg(fedmer.FedAvg):
    """A rule of one's own."""


def test_a_rule_of_ones_own_needs_no_trust(here: Path) -> None:
    run = fit(small_corpus(), **SMALL, aggregator=TopFedAvg)
    assert run.result["aggregator"] == "TopFedAvg"
    assert run.predict(small_corpus().conversations[0]).emotions


def test_frames_and_arrays_make_the_corpus_of_the_file(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    corpus = small_corpus()
    labels = list(corpus.label_names)
    write(corpus, tmp_path / "corpus.csv")
    of_file = fedmer.corpus(tmp_path / "corpus.csv", labels=labels)
    frame = pandas.read_csv(tmp_path / "corpus.csv", dtype={"dialogue": str})
    assert fedmer.corpus(frame, labels=labels).fingerprint == of_file.fingerprint
    write(corpus, tmp_path / "corpus.parquet")
    listed = pandas.read_parquet(tmp_path / "corpus.parquet")
    assert fedmer.corpus(listed, labels=labels).fingerprint == of_file.fingerprint
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(tmp_path / "corpus.parquet")
    assert fedmer.corpus(table, labels=labels).fingerprint == of_file.fingerprint
    matrix = np.stack([row for own in corpus.conversations for row in own.features["text"]])
    arrays = {name: frame[name].to_numpy() for name in ("dialogue", "turn", "speaker", "label")}
    arrays |= {"split": frame["split"].to_numpy(), "text": matrix}
    of_arrays = fedmer.corpus(arrays, labels=labels)
    assert of_arrays.shape.features == {"text": 6}
    for ours, theirs in zip(of_arrays.conversations, of_file.conversations, strict=True):
        np.testing.assert_allclose(ours.features["text"], theirs.features["text"])
        assert ours.labels.tolist() == theirs.labels.tolist()


class Polar:
    """As much of a frame of polars as is used; its columns have ``to_list`` too."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns, self.columns = columns, list(columns)

    def __getitem__(self, name: str) -> Any:
        values = self._columns[name]
        return type("Series", (), {"to_list": lambda own: values})()


def test_a_frame_of_anybody_is_one_that_has_columns() -> None:
    columns: dict[str, list[Any]] = {
        **{"dialogue": ["a", "a"], "turn": [0, 1], "speaker": ["x", "y"], "label": ["sad", "glad"]},
        **{"split": ["train", "train"], "text": [[1.0, 2.0], None]},
    }
    made = fedmer.corpus(Polar(columns))
    assert made.conversations[0].present["text"].tolist() == [True, False]
    with pytest.raises(InputError, match=r"corpus: row 2, column 'turn' is 'x'; expected a whole"):
        fedmer.corpus(Polar(columns | {"turn": [0, "x"]}))
    with pytest.raises(InputError, match="column 'dialogue' has 2 values but 'turn' has 1"):
        fedmer.corpus(columns | {"turn": [0]})
    with pytest.raises(InputError, match="the corpus is a int"):
        fedmer.corpus(3)  # type: ignore[arg-type]


def test_a_module_comes_back_from_its_checkpoint(place: Path) -> None:
    path = place / "python" / "checkpoints" / "last.ckpt"
    module = fedmer.FederatedModule.load_from_checkpoint(path)
    assert module.hparams["aggregator"]["init_args"]["mu"] == 0.1
    assert module.aggregator.mu == 0.1  # type: ignore[attr-defined]
    assert module.local.epochs == 2
    assert module.network is not None
    ours, theirs = module.network.state_dict(), weights(place / "python")
    assert all(torch.equal(ours[name], theirs[f"network.{name}"]) for name in ours)
    data = fedmer.FederatedDataModule(
        fedmer.Dialogue(clients=3),
        path=place / "python" / "corpus.npz",
        standardise="local",
        seed=7,
    )
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_checkpointing"), False)
    trainer = pl.Trainer(**quiet, enable_model_summary=False, accelerator="cpu")
    trainer.test(module, data, verbose=False)
    last = fedmer.Run(place / "python").rounds[-1]
    assert module.scores["test"].accuracy == pytest.approx(last["test_accuracy"])
    assert fedmer.FederatedModule.load_from_checkpoint(path, seed=1).seed == 1
    with pytest.raises(InputError, match="made with aggregator FedProx, but this run has FedAvg"):
        fedmer.FederatedModule.load_from_checkpoint(path, aggregator=fedmer.FedAvg())


def test_a_checkpoint_names_no_strangers(place: Path, tmp_path: Path) -> None:
    saved = torch.load(place / "python" / "checkpoints" / "last.ckpt", weights_only=True)
    saved["hyper_parameters"]["optimizer"] = {"class_path": "subprocess.Popen"}
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match=r"subprocess\.Popen, which is not a part"):
        fedmer.FederatedModule.load_from_checkpoint(tmp_path / "a.ckpt")
    del saved["hyper_parameters"]
    torch.save(saved, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="it names no hyperparameters; give all parts"):
        fedmer.FederatedModule.load_from_checkpoint(tmp_path / "a.ckpt")


def test_the_example_of_the_readme_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(
        r"^```python\n(import fedmer\n(?:(?!^```).*\n)*?.*fedmer\.fit\((?:.*\n)*?)^```$",
        text,
        re.MULTILINE,
    )
    assert block is not None
    write(small_corpus(), here / "corpus.csv")
    short = block[1].replace("rounds=20", "rounds=1").replace("hidden=64", "hidden=8")
    assert short.count("import") == 1
    exec(compile(short, "README.md", "exec"), {})
    assert "emotions" in block[1]
    assert capsys.readouterr().out.strip()
