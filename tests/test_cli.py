"""What the command line answers, and that it changes nothing when it refuses."""

import dataclasses
import importlib
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from fedmer.__main__ import main
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats.native import read, write
from fedmer.data.synthetic import synthetic_corpus
from fedmer.plugins import registry
from fedmer.record.record import read_rows
from fedmer.sentences import sentence

SMALL = [
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8"),
    *("--trainer.max_epochs", "1"),
]


def fit(corpus: Path, *more: str) -> int:
    return main(["fit", "--data.path", str(corpus), *SMALL, *more])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            ["--aggregator", "FedAvgg"],
            "unknown aggregator 'FedAvgg'; did you mean 'FedAvg'? Known: Analytic, Bulyan, Dist",
        ),
        (["--network", "STD"], "unknown network 'STD'; did you mean 'SDT'?"),
        (["--network.help", "STD"], "unknown network 'STD'; did you mean 'SDT'?"),
        (["--partitioner", "speaker"], "did you mean 'Speaker'?"),
        (["--aggregator", "FedProx", "--aggregator.mu", "-1"], "mu is -1.0; expected 0 or more."),
        (["--aggregator", "FedProx", "--aggregator.mu", "x"], "mu is 'x'; expected float."),
        (["--aggregator.beta", "1"], "unknown option 'beta'; did you mean 'beta2' or 'betas'?"),
        (["--partitioner.clients", "0"], "clients is 0; expected at least 1."),
        (
            ["--partitioner", "Dialogue", "--partitioner.clients", "500"],
            "clients is 500, but there are only 16",
        ),
        (["--selector", "Uniform", "--selector.fraction", "0"], "fraction is 0; expected a number"),
        (["--network.hidden", "9"], "hidden is 9 and heads is 2; expected hidden to be a positive"),
        (["--network.dropout", "1"], "dropout is 1.0; expected a number in [0, 1)."),
        (["--local.epochs", "0"], "local.epochs is 0; expected at least 1."),
        (["--executor.threads", "0"], "executor.threads is 0; expected at least 1."),
        (["--loss.temperature", "0"], "temperature is 0.0; expected a number above 0."),
        (["--data.holdout", "1"], "data.holdout is 1.0; expected a number in [0, 1)."),
        (["--data.standardise", "no"], "data.standardise is 'no'; expected one of"),
        (["--trainer.max_epochs", "x"], "trainer.max_epochs is 'x'; expected int or null."),
        (["--trainer.precision", "bf16-true"], "use one of 32-true, bf16-mixed, 16-mixed."),
        (["--name", "a/b"], "--name is 'a/b'; expected a plain folder name"),
        (["--runs", "/dev/null/runs"], "cannot be written: /dev/null is a file"),
        (["--ckpt_path", "nowhere.ckpt"], "There is no checkpoint nowhere.ckpt"),
        (["--nonsense", "1"], "unknown option --nonsense; 'fedmer fit --help all' shows all."),
    ],
)
def test_bad_values_are_sentences(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert fit(corpus_file, *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error
    assert "Traceback" not in error
    assert list(here.iterdir()) == []


def spoilt(path: Path, corpus_file: Path, key: str) -> Path:
    """A corpus file that is wrong in one way."""
    with np.load(corpus_file, allow_pickle=False) as file:
        columns = dict(file)
    if key == "nan":
        columns["text"][3, 1] = np.nan
    elif key == "label":
        columns["label"][5] = 99
    elif key == "unlabelled":
        first = columns["dialogue"] == columns["dialogue"][0]
        columns["label"][first] = -1
    elif key == "no test":
        columns["split"][:] = "train"
    elif key == "rows":
        columns["audio"] = columns["audio"][:-1]
    np.savez(path, **columns)
    return path


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("nan", "'text' holds NaN or infinity in turn 3"),
        ("label", "label 99 is out of range; expected 0 to 5"),
        ("unlabelled", "has no labelled utterance"),
        ("no test", "has no test part; mark at least one dialogue as 'test'."),
        ("rows", "audio"),
    ],
)
def test_bad_corpora_are_sentences(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str], key: str, said: str
) -> None:
    path = spoilt(here / "spoilt.npz", corpus_file, key)
    before = path.read_bytes()
    assert fit(path) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "spoilt" in error
    assert "Traceback" not in error
    assert [p.name for p in here.iterdir()] == ["spoilt.npz"]
    assert path.read_bytes() == before


def test_a_truncated_or_missing_file_is_a_sentence(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = here / "cut.npz"
    cut.write_bytes(corpus_file.read_bytes()[:5000])
    assert fit(cut) == 2
    assert "cut.npz" in capsys.readouterr().err
    assert fit(here / "gone.npz") == 2
    assert "gone.npz does not exist" in capsys.readouterr().err
    assert [p.name for p in here.iterdir()] == ["cut.npz"]


def test_a_speaker_in_train_and_test_is_a_warning_that_names_them(
    here: Path, corpus_file: Path
) -> None:
    corpus = read(corpus_file)
    conversations = list(corpus.conversations)
    train, test = corpus.part("train")[0], corpus.part("test")[0]
    known = conversations[train].speakers[0]
    speakers = conversations[test].speakers.astype("U20").copy()
    speakers[0] = known
    object.__setattr__(conversations[test], "speakers", speakers)
    write(ConversationCorpus("shared", conversations, corpus.label_names), here / "shared.npz")
    with pytest.warns(UserWarning, match=f"in both train and test: {known}"):
        assert fit(here / "shared.npz", "--name", "shared") == 0


def test_whoever_trains_the_small_network_on_a_real_corpus_is_told_of_a_recipe(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once, and not where the network was chosen; names with a $ are no mathematics in plots."""
    corpus = synthetic_corpus(dialogues=20, features={"text": 4})
    labels = ["Happy", "Sad", "Neutral", "Angry", "Excited", "Frustrated"]
    write(dataclasses.replace(corpus, label_names=labels), here / "mine.npz")
    names = ["$\\frac$", "$x_y$", "a$b", "c", "d", "e"]
    write(dataclasses.replace(corpus, label_names=names), here / "m$^$.npz")
    more = ["--partitioner.clients", "2", "--trainer.max_epochs", "1"]
    assert main(["fit", "--data.path", "mine.npz", "--name", "a", *more]) == 0
    assert capsys.readouterr().err.count("--config iemocap_speakers") == 1
    small = ["--network.hidden", "8", "--network.heads", "2"]
    assert main(["fit", "--data.path", "m$^$.npz", "--name", "a$b", *small, *more]) == 0
    assert "--config" not in capsys.readouterr().err
    assert (here / "runs/a$b/confusion.png").exists()


def test_a_run_folder_named_by_hand_is_not_replaced_unasked(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "--name", "mine") == 0
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert fit(corpus_file, "--name", "mine") == 2
    said = capsys.readouterr().err
    assert "mine exists; choose another --name, replace it with --overwrite, or" in said
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before

    (here / "runs" / "mine" / "stray.txt").write_text("old")
    assert fit(corpus_file, "--name", "mine", "--overwrite") == 0
    assert not (here / "runs" / "mine" / "stray.txt").exists()

    (here / "runs" / "letters").mkdir()
    (here / "runs" / "letters" / "love.txt").write_text("dear")
    assert fit(corpus_file, "--name", "letters", "--overwrite", "true") == 2
    assert "is not the folder of a run" in capsys.readouterr().err
    assert (here / "runs" / "letters" / "love.txt").exists()


def test_the_configuration_kept_repeats_the_run(here: Path, corpus_file: Path) -> None:
    more = ["--aggregator", "FedProx", "--aggregator.mu", "0.5", "--trainer.gradient_clip_val", "1"]
    assert fit(corpus_file, "--name", "first", *more) == 0
    config = here / "runs" / "first" / "config.yaml"
    assert main(["fit", "--config", str(config), "--name", "second"]) == 0
    rows = [read_rows(here / "runs" / name / "metrics.csv") for name in ("first", "second")]
    for row in (*rows[0], *rows[1]):
        row.pop("seconds", None)
    assert rows[0] == rows[1]
    again = yaml.safe_load((here / "runs" / "second" / "config.yaml").read_text())
    kept = yaml.safe_load(config.read_text())
    assert {**again, "name": None} == {**kept, "name": None}
    assert kept["aggregator"]["init_args"] == {"mu": 0.5, "heads": "joint"}
    assert kept["local"]["gradient_clip_val"] == 1


def test_bare_names_in_yaml_and_print_config(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("own.yaml").write_text(
        "aggregator:\n  class_path: FedProx\n  init_args:\n    mu: 0.25\n"
        "partitioner: Speaker\nnetwork:\n  class_path: SDT\n  init_args:\n    hidden: 16\n"
    )
    assert main(["fit", "--config", "own.yaml", "--print_config"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["aggregator"]["class_path"] == "fedmer.plugins.aggregators.fed_prox.FedProx"
    assert printed["aggregator"]["init_args"] == {"mu": 0.25, "heads": "joint"}
    assert printed["partitioner"]["class_path"].endswith(".Speaker")
    assert printed["network"]["init_args"]["hidden"] == 16


def test_help_of_a_plugin_shows_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--aggregator.help", "FedProx"]) == 0
    assert "--aggregator.mu" in capsys.readouterr().out


def test_the_other_subcommands_work_on_a_checkpoint(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "--name", "run", "--data.holdout", "0.3") == 0
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    files = {p for p in here.rglob("*") if p.is_file()}
    capsys.readouterr()
    config = ["--config", "runs/run/config.yaml"]
    last = ["--ckpt_path", "runs/run/checkpoints/last.ckpt"]

    assert main(["test", *config, *last]) == 0
    shown = f"{100 * result['last']['scores']['test']['weighted_f1']:.1f}"
    assert f"wF1 │ │ │ {shown} " in " ".join(capsys.readouterr().out.split())
    assert {p for p in here.rglob("*") if p.is_file()} == files

    assert main(["predict", *config, *last]) == 0
    predictions = read_rows(here / "runs" / "run" / "predictions.csv")
    confusion = np.array(result["last"]["scores"]["test"]["confusion"])
    assert len(predictions) == confusion.sum()
    right = sum(row["truth"] == row["prediction"] for row in predictions)
    assert right == np.trace(confusion)

    for subcommand in ("validate", "test", "predict"):
        assert main([subcommand, *config]) == 2
        assert f"'fedmer {subcommand}' needs a trained network" in capsys.readouterr().err


def test_validate_repeats_the_validation_of_the_run(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(synthetic_corpus(dialogues=30, features={"text": 6}), here / "c.npz")
    arguments = ["--data.path", "c.npz", *SMALL, "--partitioner", "Session"]
    arguments.remove("--partitioner.clients")
    arguments.remove("8")
    arguments = ["--data.path", "c.npz", "--network.hidden", "8", "--partitioner", "Session"]
    assert main(["fit", *arguments, "--trainer.max_epochs", "1", "--name", "run"]) == 0
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    capsys.readouterr()
    last = ["--ckpt_path", "runs/run/checkpoints/last.ckpt"]
    assert main(["validate", "--config", "runs/run/config.yaml", *last]) == 0
    shown = f"{100 * result['last']['scores']['val']['weighted_f1']:.1f}"
    assert f"wF1 │ │ │ {shown} " in " ".join(capsys.readouterr().out.split())


def test_predictions_need_a_global_network(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "--name", "own", "--aggregator", "Local") == 0
    last = ["--ckpt_path", "runs/own/checkpoints/last.ckpt"]
    assert main(["predict", "--config", "runs/own/config.yaml", *last]) == 2
    assert "Local keeps a personal network on every client" in capsys.readouterr().err
    assert main(["test", "--config", "runs/own/config.yaml", *last]) == 0


def test_a_rehearsal_leaves_no_trace(here: Path, corpus_file: Path) -> None:
    assert fit(corpus_file, "--trainer.fast_dev_run", "true") == 0
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plugins", "aggregators"], "FedProx"),
        (["plugins"], "partitioners"),
        (["data", "describe", "--help"], "usage"),
        (["--version"], "fedmer 0."),
        ([], "fit"),
    ],
)
def test_light_subcommands_import_no_lightning(arguments: list[str], said: str) -> None:
    code = (
        "import sys; from fedmer.__main__ import main\n"
        f"code = main({arguments!r})\n"
        "heavy = [m for m in ('torch', 'pytorch_lightning', 'wandb') if m in sys.modules]\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ},
    )
    assert done.returncode == 0, done.stderr
    assert said in done.stdout
    assert time.perf_counter() - began < 10  # 1.5 s on an idle machine; CI is not one


def test_unknown_subcommands_and_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fitt"]) == 2
    assert "unknown subcommand 'fitt'; did you mean 'fit'?" in capsys.readouterr().err
    assert main(["plugins", "aggregator"]) == 2
    assert "did you mean 'aggregators'?" in capsys.readouterr().err


def test_sentences_leave_other_messages_alone() -> None:
    assert sentence("Something\n  odd   happened") == "Something odd happened"


@pytest.mark.parametrize(
    ("kind", "name"), [("aggregator", "FedProto"), ("partitioner", "SpeakerGroup")]
)
def test_a_part_chosen_by_name_has_its_own_defaults(
    kind: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (plugin,) = (found for found in registry.plugins(f"{kind}s") if found.name == name)
    module, _, _ = plugin.path.rpartition(".")
    own = inspect.signature(getattr(importlib.import_module(module), name)).parameters
    assert main(["fit", f"--{kind}", name, "--print_config"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)[kind]
    assert shown["init_args"] == {option: own[option].default for option in own}
