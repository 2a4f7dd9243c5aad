"""The help of ``fedmer fit``: short, whole by group, and true of the parser."""

import re

import pytest

from fedmer.__main__ import main
from fedmer.defaults import DEFAULTS
from fedmer.option_help import WIDTH, help_text
from fedmer.plugins import registry
from fedmer.sweep.check import FitParser, fit_parser


@pytest.fixture(scope="module")
def fit() -> FitParser:
    return fit_parser()


def shown(fit: FitParser, topic: str = "") -> str:
    return help_text("fit", fit.options, DEFAULTS, topic)


def flags(text: str) -> set[str]:
    return set(re.findall(r"^  (--[\w.]+)(?: |$)", text, re.MULTILINE))


def test_the_short_help_fits_two_screens(fit: FitParser) -> None:
    lines = shown(fit).splitlines()
    assert len(lines) <= 100
    assert max(map(len, lines)) <= WIDTH


def test_it_has_every_option_of_fedmer_and_few_of_lightning(fit: FitParser) -> None:
    every = {f for a in fit.options._actions for f in a.option_strings if f.startswith("--")}
    groups = {f"--{name}" for name in ("trainer", "model", "data", "loss", "local", "server")}
    ours = {f for f in every - groups if not f.startswith("--trainer.")}
    ours = {f for f in ours if not f.endswith((".help", "+")) and not f.startswith("--no_")}
    found = flags(shown(fit))
    assert ours - {"--help"} <= found
    assert found - every <= {"--trust"}
    assert len([f for f in found if f.startswith("--trainer.")]) < 10


def test_it_names_every_plugin_and_how_its_options_are_shown(fit: FitParser) -> None:
    text = shown(fit)
    for kind in registry.KINDS:
        if kind != "extractors":
            assert all(plugin.name in text for plugin in registry.plugins(kind)), kind
    assert "--aggregator.help FedProx" in text


def test_a_group_is_whole(fit: FitParser) -> None:
    known = {f for a in fit.options._actions for f in a.option_strings}
    trainer = {f for f in known if f.startswith("--trainer.") and not f.endswith((".help", "+"))}
    assert flags(shown(fit, "trainer")) == trainer
    assert "at most 1 for 'restricted'" in " ".join(shown(fit, "loss").split())
    assert "FedAvg whose clients are pulled" in shown(fit, "aggregator")
    assert "torch.optim" in shown(fit, "optimizer")
    assert shown(fit, "all") == fit.options.format_help().rstrip()


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["--name", "x", "--help"]])
def test_it_is_what_the_command_prints(
    words: list[str], fit: FitParser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *words]) == 0
    assert capsys.readouterr().out.rstrip() == shown(fit)


def test_an_unknown_topic_is_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "--help", "traner"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert "unknown topic of --help 'traner'; did you mean 'trainer'?" in error


def test_the_help_of_one_class_is_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--aggregator.help", "Distance"]) == 0
    assert "--aggregator.strength" in capsys.readouterr().out


def test_the_help_of_a_class_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--privacy.help", "DPSGD"]) == 0
    said = capsys.readouterr().out
    assert "C, above 0." in said
    assert ":math:" not in said
    assert "`" not in said
