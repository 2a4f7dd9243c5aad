"""Another class for a part has its own defaults, and what was given for it."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedmer import choice
from fedmer.__main__ import main


@pytest.fixture
def config(here: Path) -> None:
    """A configuration that says something of every part, as a run keeps it, and a second one."""
    Path("run.yaml").write_text(
        """
aggregator: {class_path: FedAvgM, init_args: {lr: 1.0, momentum: 0.7}}
partitioner:
  class_path: fedmer.plugins.partitioners.dialogue.Dialogue
  init_args: {clients: 7, alpha: 0.5}
optimizer: {class_path: torch.optim.Adam, init_args: {lr: 0.5, weight_decay: 0.25}}
network: {class_path: SDT, init_args: {hidden: 24, heads: 3, dropout: 0.1}}
selector: {class_path: Uniform, init_args: {fraction: 0.5}}
lr_scheduler: {class_path: Warmup, init_args: {rounds: 3, then: {class_path: StepLR, \
init_args: {step_size: 4, gamma: 0.25}}}}
trainer: {logger: {class_path: CSVLogger, init_args: {save_dir: here, name: mine}}}
"""
    )
    Path("more.yaml").write_text(
        "aggregator: {class_path: FedAdam, init_args: {beta2: 0.9}}\nnetwork: MMGCN\n"
    )
    Path("options.yaml").write_text("aggregator: {init_args: {beta1: 0.2}}\nnetwork: {hidden: 8}\n")


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[dict[str, Any], str]:
    """The configuration that the words make, and what was said beside it."""
    capsys.readouterr()
    code = main(["fit", *words, "--print_config"])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    whole: dict[str, Any] = yaml.safe_load(printed.out)
    return whole, printed.err


def own(part: str, name: str, **given: object) -> dict[str, Any]:
    """The defaults of a class, and what was given."""
    parameters = inspect.signature(choice.classes(part)[name]).parameters.values()
    known = {p.name: p.default for p in parameters if p.default is not p.empty}
    return {key: value for key, value in known.items() if key in given or value is not None} | given


CHANGES = [
    ("aggregator", "FedAdam", [], {}, "lr 1.0, momentum 0.7 of the configuration"),
    ("aggregator", "FedAdam", ["--aggregator.beta1", "0.4"], {"beta1": 0.4}, "instead of FedAvgM"),
    ("partitioner", "Dirichlet", [], {}, "instead of Dialogue: clients 7, alpha 0.5 of"),
    ("optimizer", "SGD", [], {}, "instead of Adam: lr 0.5, weight_decay 0.25 of"),
    ("optimizer", "torch.optim.SGD", ["--optimizer.lr", "0.1"], {"lr": 0.1}, "instead of Adam: lr"),
    ("network", "LateFusion", ["--network.heads", "2"], {"heads": 2}, "hidden 24, heads 3"),
    ("selector", "VolumeProportional", [], {}, "fraction 0.5 of the configuration is not carried"),
]


@pytest.mark.parametrize(("part", "name", "typed", "given", "said"), CHANGES)
def test_a_class_that_is_typed_has_its_own_defaults(
    config: None,
    capsys: pytest.CaptureFixture[str],
    part: str,
    name: str,
    typed: list[str],
    given: dict[str, object],
    said: str,
) -> None:
    chosen = [f"--{part}", name]
    for words in (["--config", "run.yaml", *chosen, *typed], [*typed, *chosen, "-c", "run.yaml"]):
        whole, line = shown(capsys, *words)
        wanted = own(part, name.rpartition(".")[2], **given)
        options = whole[part].get("init_args", {})
        assert {key: v for key, v in options.items() if v is not None} == wanted
        assert line.startswith(f"fedmer: --{part} {name.rpartition('.')[2]} instead of ")
        assert said in line
        assert line.count("\n") == 1


def test_the_same_class_keeps_its_options(config: None, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--aggregator", "FedAvgM", "--optimizer", "torch.optim.adam.Adam", "--network=SDT"]
    plain, said = shown(capsys, "--config", "run.yaml")
    again, still = shown(capsys, "--config", "run.yaml", *words, "--trainer.logger", "CSVLogger")
    assert again == plain
    assert said == still == ""


def test_later_files_change_it_too(config: None, capsys: pytest.CaptureFixture[str]) -> None:
    whole, said = shown(
        capsys, "--config", "run.yaml", "--config", "more.yaml", "-c", "options.yaml"
    )
    assert whole["aggregator"]["init_args"] == own("aggregator", "FedAdam", beta1=0.2, beta2=0.9)
    assert whole["network"]["init_args"] == own("network", "MMGCN", hidden=8)
    assert "more.yaml: aggregator FedAdam instead of FedAvgM: lr 1.0, momentum 0.7" in said
    assert said.count("\n") == 2


def test_within_a_part_too(config: None, capsys: pytest.CaptureFixture[str]) -> None:
    Path("then.yaml").write_text(
        "lr_scheduler: {init_args: {then: {class_path: ExponentialLR, init_args: {gamma: 0.5}}}}\n"
        "trainer: {logger: {class_path: TensorBoardLogger, init_args: {save_dir: there}}}\n"
    )
    whole, said = shown(capsys, "--config", "run.yaml", "--config", "then.yaml")
    then = whole["lr_scheduler"]["init_args"]["then"]
    assert then["class_path"] == "torch.optim.lr_scheduler.ExponentialLR"
    assert {key: v for key, v in then["init_args"].items() if key != "last_epoch"} == {"gamma": 0.5}
    assert whole["trainer"]["logger"]["init_args"]["name"] == "lightning_logs"
    assert "ExponentialLR instead of StepLR: step_size 4, gamma 0.25" in said
    typed, _ = shown(
        capsys,
        "--config",
        "run.yaml",
        "--trainer.logger",
        "TensorBoardLogger",
        "--trainer.logger.save_dir",
        "there",
    )
    assert typed["trainer"] == whole["trainer"]


def test_defaults_of_fedmer_go_without_a_word(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, said = shown(capsys, "--optimizer", "SGD", "--partitioner", "Dirichlet")
    assert whole["optimizer"]["init_args"]["lr"] == 1e-3
    assert said == ""


def test_an_option_that_the_class_has_not_names_who_has_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--network", "MMGCN", "--network.heads", "8"]) == 2
    said = capsys.readouterr().err
    assert "has an option 'heads'; it belongs to CORECT, DialogueTRM, Distance, EarlyFusion" in said
