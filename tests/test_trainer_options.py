"""Each option and callback of Lightning works here, or is refused in a sentence."""

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import yaml
from jsonargparse import Namespace
from pytorch_lightning import callbacks

from fedmer.__main__ import main
from fedmer.defaults import TRAINER_DEFAULTS
from fedmer.errors import InputError
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.record.rows import read_rows
from fedmer.steps import LocalTraining
from fedmer.trainer_options import CALLBACKS, OPTIONS, check_options, kind_of, tables
from tests.federations import federation, same_bits, weights_of

PARAMETERS = list(inspect.signature(pl.Trainer.__init__).parameters.values())[1:]
USUAL = {parameter.name: parameter.default for parameter in PARAMETERS} | TRAINER_DEFAULTS
WRONG: dict[str, Any] = {
    "strategy": "ddp",
    "devices": 2,
    "num_nodes": 2,
    "max_steps": 10,
    "min_steps": 1,
    "limit_train_batches": 1,
    "limit_val_batches": 0.5,
    "limit_test_batches": 2,
    "limit_predict_batches": 0,
    "overfit_batches": 0.1,
    "val_check_interval": 0.5,
    "check_val_every_n_epoch": 0,
    "num_sanity_val_steps": 2,
    "log_every_n_steps": 0,
    "accumulate_grad_batches": 4,
    "gradient_clip_algorithm": "value",
    "use_distributed_sampler": False,
    "barebones": True,
    "plugins": "any",
    "sync_batchnorm": True,
    "reload_dataloaders_every_n_epochs": 1,
    "default_root_dir": "here",
    "enable_autolog_hparams": False,
    "model_registry": "mine",
}
SMALL = ("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8")


def fit(corpus: Path, *more: str) -> int:
    return main(["fit", "--data.path", str(corpus), *SMALL, *more])


def test_every_option_of_the_trainer_has_a_row() -> None:
    assert list(OPTIONS) == [parameter.name for parameter in PARAMETERS]


def test_every_callback_of_lightning_has_a_row() -> None:
    assert CALLBACKS.keys() == set(callbacks.__all__)
    for name in callbacks.__all__:
        assert kind_of(getattr(callbacks, name)) is CALLBACKS[name]


def test_the_manual_has_the_same_tables() -> None:
    manual = Path(__file__).parent.parent / "docs" / "trainer.md"
    assert tables() in manual.read_text(encoding="utf-8")


def test_what_nobody_gave_is_not_refused() -> None:
    check_options(Namespace(USUAL))


def test_every_option_with_values_that_cannot_be_is_tried() -> None:
    bounded = {name for name, option in OPTIONS.items() if option.only or option.least}
    assert bounded == WRONG.keys()


@pytest.mark.parametrize("name", WRONG)
def test_an_option_that_means_nothing_here_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=rf"^--trainer\.{name} \S+ cannot be used[:;] .*\.$"):
        check_options(Namespace(USUAL | {name: WRONG[name]}))


@pytest.mark.parametrize("name", [name for name, kind in CALLBACKS.items() if kind.refused])
def test_a_callback_that_means_nothing_here_is_refused(name: str) -> None:
    path = f"pytorch_lightning.callbacks.{name}"
    for given in (Namespace(class_path=path), [Namespace(class_path=path, init_args=None)]):
        with pytest.raises(InputError, match=f"^The callback {name} cannot be used: .*\\.$"):
            check_options(Namespace(USUAL | {"callbacks": given}))


class Pruned(callbacks.ModelPruning):
    """One's own kind of a callback that is refused."""


def test_so_is_one_that_extends_it() -> None:
    given = Namespace(class_path=f"{__name__}.Pruned")
    with pytest.raises(InputError, match="The callback Pruned cannot be used: it gives weights"):
        check_options(Namespace(USUAL | {"callbacks": given}))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--trainer.devices", "2"), "--trainer.devices 2 cannot be used: the server is one"),
        (("--trainer.gradient_clip_val", "-1"), "gradient_clip_val is -1.0; expected a norm"),
        (("--trainer.callbacks", "Timer"), "add --trainer.callbacks.interval epoch"),
        (("--seed_everything", "-1"), "--seed_everything is -1; expected a number from 0"),
        (("--trainer.max_time", "00:00:00:00"), "max_time was over before a first round"),
    ],
)
def test_the_command_line_refuses_and_writes_nothing(
    here: Path,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
    more: tuple[str, ...],
    said: str,
) -> None:
    assert fit(corpus_file, *more) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert list(here.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_what_to_use(
    corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "--trainer.accelerator", "gpu") == 2
    assert "Use --trainer.accelerator cpu." in capsys.readouterr().err


def test_a_logger_that_is_not_installed_says_what_to_install(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        import tensorboard  # noqa: F401
    except ImportError:
        logger = ("--trainer.logger", "TensorBoardLogger", "--trainer.logger.save_dir", "logs")
        assert fit(corpus_file, *logger) == 2
        assert "pip install -U 'tensorboard'" in capsys.readouterr().err
    else:
        pytest.skip("it is installed")


def test_many_supported_options_at_once(
    here: Path,
    corpus_file: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    given = {
        "max_epochs": 2,
        "accelerator": "cpu",
        "precision": "bf16-mixed",
        "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "logs"}},
        "check_val_every_n_epoch": 2,
        "log_every_n_steps": 3,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": True,
        "gradient_clip_val": 0,
        "deterministic": "warn",
        "benchmark": False,
        "inference_mode": False,
        "profiler": "simple",
        "detect_anomaly": True,
    }
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": given}))
    seen: list[tuple[bool, bool]] = []
    original = FedAvg.step

    def step(*arguments: Any) -> None:
        seen.append(
            (torch.is_anomaly_enabled(), torch.is_deterministic_algorithms_warn_only_enabled())
        )
        original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FedAvg, "step", step)
        words = ("--config", "own.yaml", "--name", "run", "--aggregator", "FedAvg")
        assert fit(corpus_file, *words) == 0
    torch.use_deterministic_algorithms(False)
    out, _ = capfd.readouterr()
    assert seen == [(True, True)] * 2
    assert list((here / "runs" / "run" / "checkpoints").glob("*")) == []
    assert "round 1/2" not in out
    assert "Trainable params" in out
    assert "run_training_epoch" in caplog.text
    rows = read_rows(here / "runs" / "run" / "metrics.csv")
    assert [bool(row["test_uar"]) for row in rows] == [False, True]
    (logged,) = (here / "logs").rglob("metrics.csv")
    rates = [float(row["lr"]) for row in read_rows(logged) if row["lr"]]
    assert rates == pytest.approx([3e-3, 3e-3])
    assert json.loads((here / "runs" / "run" / "result.json").read_text())["rounds"] == 2


def test_callbacks_of_lightning_work_round_by_round(
    here: Path, corpus_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stop = {"monitor": "train_loss", "stopping_threshold": 1e9}
    given = [
        {"class_path": "EarlyStopping", "init_args": stop},
        {"class_path": "ModelCheckpoint", "init_args": {"filename": "{epoch}", "save_top_k": -1}},
        {"class_path": "RichProgressBar"},
        {"class_path": "RichModelSummary"},
        {"class_path": "Timer", "init_args": {"interval": "epoch", "duration": "01:00:00:00"}},
    ]
    trainer = {"callbacks": given, "min_epochs": 2, "max_epochs": 9}
    Path("own.yaml").write_text(yaml.safe_dump({"trainer": trainer}))
    assert fit(corpus_file, "--config", "own.yaml", "--name", "run") == 0
    out, _ = capfd.readouterr()
    assert "round 1/9" not in out
    assert "Epoch" in out
    assert "Total params" in out
    assert len(read_rows(here / "runs" / "run" / "metrics.csv")) == 2
    kept = {path.name for path in (here / "runs" / "run" / "checkpoints").iterdir()}
    assert kept == {"last.ckpt", "epoch=0.ckpt", "epoch=1.ckpt"}


def test_a_callback_that_looks_for_another_score_is_a_sentence(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stop = ("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "nonsense")
    assert fit(corpus_file, *stop) == 2
    error = capsys.readouterr().err
    assert "Early stopping conditioned on metric `nonsense` which is not available" in error
    assert "Traceback" not in error


def test_a_run_ends_after_the_round_in_which_its_time_is_over(
    here: Path, corpus_file: Path
) -> None:
    words = ("--trainer.max_time", "00:00:00:01", "--trainer.max_epochs", "100000")
    assert fit(corpus_file, *words, "--name", "run") == 0
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    assert 1 <= result["rounds"] < 1000
    assert result["last"]["round"] == result["rounds"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("--trainer.callbacks", "TQDMProgressBar"),
        ("--trainer.callbacks", "ModelSummary"),
        ("--trainer.profiler", "advanced"),
        ("--trainer.profiler", "pytorch"),
        ("--trainer.logger", "true"),
        ("--trainer.fast_dev_run", "2"),
        ("--trainer.benchmark", "true"),
    ],
)
def test_one_supported_option(here: Path, corpus_file: Path, more: tuple[str, ...]) -> None:
    assert fit(corpus_file, "--trainer.max_epochs", "1", *more) == 0


def test_a_norm_of_zero_is_no_clipping() -> None:
    found = []
    for norm in (None, 0.0, 1e-3):
        loop = federation(FedAvg(), training=LocalTraining(gradient_clip_val=norm))
        loop.run_round(0)
        found.append(weights_of(loop))
    assert same_bits(found[0], found[1])
    assert not same_bits(found[0], found[2])
