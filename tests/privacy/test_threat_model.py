"""docs/threat-model.md has what the contracts say of each rule, and of each choice of clients."""

import inspect
from pathlib import Path

import pytest

from fedmer.client import EmotionClient
from fedmer.contracts import Aggregator, Plan, Sampling
from fedmer.dialogue_steps import check_dialogues
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.privacy.dpsgd import DPSGD
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.registry import load, plugins
from tests.aggregators.rules import client

PAGE = Path(__file__).parents[2] / "docs" / "threat-model.md"
COVERED = {"summary_norm": 1.0, "count_norm": 1.0}
OTHERS = {
    "Distance": [("weighting", "counts"), ("exchange", "parameters")],
    "GeometricMedian": [("distances", "reported")],
}
"""Options that change what a rule reads."""


def rules() -> list[tuple[str, Aggregator]]:
    """Every rule of fedmer as it is by default, and with options that change what it reads."""
    load("aggregators")
    found = []
    names = {p.path for p in plugins("aggregators") if p.package == "fedmer"}
    for path in sorted(names, key=lambda path: path.rpartition(".")[2].lower()):
        module, _, name = path.rpartition(".")
        kind = getattr(__import__(module, fromlist=[name]), name)
        found.append((f"`{name}`", kind()))
        heads = inspect.signature(kind).parameters.get("heads")
        if heads is not None:
            other = "joint" if heads.default == "classwise" else "classwise"
            found.append((f"`{name}`, `heads: {other}`", kind(heads=other)))
        for option, value in OTHERS.get(name, ()):
            found.append((f"`{name}`, `{option}: {value}`", kind(**{option: value})))
    return found


def sends_weights(rule: Aggregator) -> bool:
    """Does anything of a network travel?"""
    network = client(0).network
    return len(rule.personal_names(network)) < len(network.state_dict())


def with_noise(rule: Aggregator) -> str:
    """What GaussianNoise needs to cover it, by its own check."""
    drawn = Sampling("all", 10, 10)
    travels = sends_weights(rule)
    for said, words in (
        ("yes", {}),
        ("with `where: client`", {"where": "client"}),
        ("with `count_norm`", {"count_norm": 1.0}),
        ("with `summary_norm` and `count_norm`", COVERED),
    ):
        noise = GaussianNoise(multiplier=1.0, **words)
        try:
            noise.check(Plan(rule, 10, travels, drawn))
        except InputError:
            continue
        if travels or not noise.needs_updates:
            return said if rule.reads or travels else "nothing to cover"
    return "refused"


def with_masks(rule: Aggregator) -> str:
    """What SecureSum leaves in the open."""
    if rule.sees_updates:
        return "refused"
    if not sends_weights(rule) and not rule.sums:
        return "refused: nothing to sum"
    return ", ".join(rule.reads_masked) or "nothing"


def with_dialogues(rule: Aggregator) -> str:
    """Whether DPSGD goes with it, by its own check and that of the client."""
    if not sends_weights(rule):
        return "no updates to hide"
    plain = EmotionClient(client(0).network, SelfDistillation(calibration="none"))
    try:
        DPSGD(multiplier=1.0).check(Plan(rule, 10, True, Sampling("all", 10, 10)))
        check_dialogues("DPSGD", plain, rule, "32-true")
    except InputError:
        return "refused"
    return "yes"


def table() -> str:
    lines = [
        "| rule | reads of each client | of it under `SecureSum` | `GaussianNoise` | `DPSGD` |",
        "|---|---|---|---|---|",
    ]
    for name, rule in rules():
        read = [*rule.reads, *(["update"] if rule.sees_updates else [])]
        found = (with_masks(rule), with_noise(rule), with_dialogues(rule))
        lines.append("| " + " | ".join([name, ", ".join(read) or "nothing", *found]) + " |")
    return "\n".join(lines)


def test_the_page_has_the_table_of_the_contracts() -> None:
    _, _, rest = PAGE.read_text().partition("<!-- rules -->\n")
    shown, _, _ = rest.partition("\n<!-- end -->")
    assert shown == table(), f"the table is now\n{table()}"


@pytest.mark.parametrize("rule", [rule for _, rule in rules()])
def test_what_a_rule_sums_up_it_says_that_it_reads(rule: Aggregator) -> None:
    """A rule that overrides what clients summarise, or reads numbers, cannot read nothing."""
    own = type(rule).summarize is not Aggregator.summarize
    heads = getattr(rule, "heads", None)
    if own and heads != "joint" and not rule.sees_updates:
        assert set(rule.reads) & {"prototypes", "class counts", "sketches"}
    text = inspect.getsource(type(rule))
    assert ("summary.steps" not in text and "s.steps" not in text) or "steps" in rule.reads
    assert "state.sizes" not in text or "sizes" in rule.reads
