"""Commands: macros are filled in as W&B's agent fills them."""

import json
import sys

import pytest
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from fedmer.sweep.command import ARGUMENTS, fill, of_fedmer

VALUES = {"aggregator": "FedProx", "aggregator.mu": 1e-05, "flag": True, "no": False, "l": [1, 2]}


@pytest.mark.parametrize("macro", sorted(ARGUMENTS))
def test_arguments_are_those_of_the_agent(macro: str) -> None:
    agents = create_sweep_command_args({"args": {k: {"value": v} for k, v in VALUES.items()}})
    assert fill([macro], "", VALUES) == agents[macro[2:-1]]


def test_variables_are_those_of_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMER_DATA", "meld.npz")
    words = ["--data.path=${envvar:FEDMER_DATA}", "${envvar:FEDMER_DATA}/${envvar:FEDMER_DATA}"]
    assert fill(words, "", {}) == create_sweep_command(words)
    assert fill(words, "", {})[0] == "--data.path=meld.npz"


def test_fixed_macros() -> None:
    words = fill(["${env}", "${interpreter}", "${program}", "${args}"], "train.py", {"a": 1})
    assert words == ["/usr/bin/env", sys.executable, "train.py", "--a=1"]
    assert json.loads(fill(["${args_json}"], "", VALUES)[0]) == VALUES


@pytest.mark.parametrize(
    ("words", "rest"),
    [
        (["fedmer", "fit", "--x=1"], ["fit", "--x=1"]),
        (["/usr/bin/env", sys.executable, "-m", "fedmer", "fit"], ["fit"]),
        (["/usr/bin/env", "fedmer", "fit"], ["fit"]),
        (["fedmer", "test"], None),
        (["fedmer"], None),
        (["python", "train.py"], None),
        (["bash", "-c", "fedmer fit"], None),
    ],
)
def test_which_commands_are_fedmers(words: list[str], rest: list[str] | None) -> None:
    assert of_fedmer(words) == rest
