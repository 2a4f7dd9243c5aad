"""The mean of the last global networks: what it is, and that nothing but evaluation sees it."""

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmer.__main__ import main
from fedmer.contracts.aggregator import Aggregator
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.network_average import NetworkAverage, ServerOptions
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_adam import FedAdam
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from tests.federations import federation, same_bits, weights_of
from tests.test_resume import arguments, assert_same_run


def network(values: list[float], seen: int) -> nn.Module:
    found = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        found.weight.copy_(torch.tensor([values]))
    found.register_buffer("seen", torch.tensor(seen))
    return found


@given(
    weights=st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), min_size=1, max_size=8),
    rounds=st.sampled_from([1.5, 3.0, 20.0]),
)
def test_it_is_the_exponential_mean(weights: list[list[float]], rounds: float) -> None:
    mean = NetworkAverage(network([0.0, 0.0], 0), rounds)
    for number, values in enumerate(weights):
        mean.add(network(values, number))
    parts = torch.tensor([(1 - 1 / rounds) ** s for s in reversed(range(len(weights)))])
    expected = (torch.tensor(weights) * parts[:, None]).sum(dim=0) / parts.sum()
    found = mean.network.state_dict()
    torch.testing.assert_close(found["weight"][0], expected, atol=1e-5, rtol=1e-5)
    assert found["seen"] == len(weights) - 1


def run(rule: Aggregator, average: float, rounds: int = 3) -> FederatedLoop:
    loop = federation(rule)
    averaged = FederatedLoop(
        loop.state.network, rule, loop.selector, loop.executor, loop.trainer, 0,
        server=ServerOptions(average),
    )  # fmt: skip
    for number in range(rounds):
        averaged.run_round(number)
    return averaged


@pytest.mark.parametrize("kind", [FedAvg, FedAdam, SCAFFOLD, Distance])
def test_what_clients_receive_and_send_does_not_change(kind: type[Aggregator]) -> None:
    one, other = run(kind(), 1), run(kind(), 2)
    assert same_bits(weights_of(one), weights_of(other))
    assert one.evaluated is one.state.network
    mean, known = other.evaluated.state_dict(), other.knowledge().weights
    assert known is not None
    assert same_bits(mean, dict(known))
    assert not same_bits(mean, weights_of(other))


def test_one_round_is_its_own_mean() -> None:
    loop = run(FedAvg(), 4, rounds=1)
    assert same_bits(dict(loop.evaluated.state_dict()), weights_of(loop))


def test_a_resumed_run_is_the_unbroken_one_and_its_checkpoint_predicts_as_it_did(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--server.average", "2", "--data.holdout", "0.3")
    assert main(arguments(corpus_file, "straight", 3, *more)) == 0
    assert main(arguments(corpus_file, "broken", 1, *more)) == 0
    last = "runs/broken/checkpoints/last.ckpt"
    assert main(arguments(corpus_file, "broken", 3, *more, "--ckpt_path", last)) == 0
    assert_same_run("straight", "broken")
    assert main(arguments(corpus_file, "plain", 3, *more[2:])) == 0
    scores = {
        name: json.loads(Path(f"runs/{name}/result.json").read_text())["last"]["scores"]
        for name in ("straight", "plain")
    }
    assert scores["straight"] != scores["plain"]
    capsys.readouterr()
    config = ["--config", "runs/straight/config.yaml"]
    path = ["--ckpt_path", "runs/straight/checkpoints/last.ckpt"]
    assert main(["test", *config, *path]) == 0
    expected = scores["straight"]["test"]["weighted_f1"]
    assert f"{100 * expected:.1f}" in capsys.readouterr().out
    assert main(["test", *config, *path, "--server.average", "1"]) == 2
    assert "was made with --server.average 2, but this run has 1" in capsys.readouterr().err


@pytest.mark.parametrize("average", [0.5, 0.0, -1.0, math.inf, math.nan])
def test_out_of_range(average: float) -> None:
    with pytest.raises(
        InputError, match=r"server\.average is .*; expected a number of rounds of 1"
    ):
        ServerOptions(average)


def test_personal_networks_have_no_mean() -> None:
    with pytest.raises(InputError, match="clients of FedProto keep personal weights"):
        run(FedProto(), 2)
