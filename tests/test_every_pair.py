"""Every rule trains every network, from the command line to the record of the run."""

import json
from itertools import product
from pathlib import Path

import pytest

from fedmer.cli import main
from fedmer.errors import InputError
from fedmer.plugins.registry import plugins


def built_in(kind: str) -> list[str]:
    return [plugin.name for plugin in plugins(kind) if plugin.package == "fedmer"]


ALL_PERSONAL = {("FedPer", "Window"), ("FedRep", "Window")}
"""Window is a head over features, so that nothing of it would travel."""

PAIRS = set(product(built_in("aggregators"), built_in("networks"))) - ALL_PERSONAL


@pytest.mark.slow
@pytest.mark.parametrize(("rule", "network"), sorted(PAIRS))
def test_two_rounds(rule: str, network: str, here: Path, corpus_file: Path) -> None:
    arguments = (
        f"fit --aggregator {rule} --network {network} --data.path {corpus_file} "
        "--partitioner Dialogue --partitioner.clients 3 --trainer.max_epochs 2 --name pair"
    )
    # All networks have a width but the one that only gathers features.
    small = [] if network == "Window" else ["--network.hidden", "8"]
    assert main([*arguments.split(), *small]) == 0
    result = json.loads((here / "runs" / "pair" / "result.json").read_text())
    # A head in closed form is complete once everybody took part.
    rounds = 1 if rule == "Analytic" else 2
    assert (result["aggregator"], result["network"], result["rounds"]) == (rule, network, rounds)
    assert 0 < result["last"]["scores"]["test"]["accuracy"] < 1
    assert result["bytes_up"] > 0


@pytest.mark.parametrize(("rule", "network"), sorted(ALL_PERSONAL))
def test_a_network_that_would_stay_as_a_whole_is_refused(
    rule: str, network: str, corpus_file: Path
) -> None:
    arguments = f"fit --aggregator {rule} --network {network} --data.path {corpus_file}"
    with pytest.raises(InputError, match="names all of Window, so that nothing travels"):
        main([*arguments.split(), "--partitioner", "Dialogue", "--partitioner.clients", "3"])


def test_there_are_at_least_twenty_rules_and_as_many_networks() -> None:
    assert len(built_in("aggregators")) >= 20
    assert len(built_in("networks")) >= 20
