"""Weights a class: what they do to the rows of classes, and what they leave alone."""

import csv
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmer.__main__ import main
from fedmer.contracts import Executor, ServerState
from fedmer.loop import FederatedLoop
from fedmer.messages import Summary, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.running_mean import ClientWeight, RunningMean
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import federation, same_bits, weights_of

AXES = {"head": 0, "students": 1}


class ClassShares(FedAvg):
    """Each client counts in a class's rows by a made-up number of utterances of that class."""

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        turns = torch.arange(1.0, 7.0)
        return {s.client: (turns + s.client) * (turns != 2 + s.client % 2) for s in summaries}


class Evenly(FedAvg):
    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        return {s.client: torch.full((6,), float(s.examples)) for s in summaries}


class OneClass(FedAvg):
    """Nobody counts in any class but the first."""

    streams = False

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        return {s.client: torch.eye(6)[0] for s in summaries}


def random_weights(random: torch.Generator) -> Weights:
    shapes = {"body": (2, 3), "head": (4, 3), "students": (2, 4, 3)}
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}


@quick
@given(seed=SEEDS, clients=st.integers(1, 5))
def test_the_rows_of_a_class_are_averaged_by_its_own_weights(seed: int, clients: int) -> None:
    random = generator(seed)
    cohort = [random_weights(random) for _ in range(clients)]
    whole = torch.rand(clients, generator=random) + 0.1
    classes = torch.rand(clients, 4, generator=random)
    classes *= torch.rand(clients, 4, generator=random) < 0.7
    received = random_weights(random)
    mean = RunningMean(AXES)
    for weights, part, rows in zip(cohort, whole, classes, strict=True):
        mean.add(weights, ClientWeight(float(part), rows))
    found = mean.result(received)
    body = sum(p * w["body"] for p, w in zip(whole, cohort, strict=True)) / whole.sum()
    torch.testing.assert_close(found["body"], body, atol=1e-5, rtol=1e-5)
    for k in range(4):
        for name, pick in (("head", lambda w, k=k: w[k]), ("students", lambda w, k=k: w[:, k])):
            expected = pick(received[name])
            if classes[:, k].sum() > 0:
                parts = classes[:, k] / classes[:, k].sum()
                expected = sum(p * pick(w[name]) for p, w in zip(parts, cohort, strict=True))
            torch.testing.assert_close(pick(found[name]), expected, atol=1e-5, rtol=1e-5)


def run(rule: FedAvg, executor: Executor | None = None, rounds: int = 2) -> FederatedLoop:
    loop = federation(rule, executor=executor)
    for number in range(rounds):
        loop.run_round(number)
    loop.executor.close()
    return loop


def test_equal_shares_are_federated_averaging_to_rounding() -> None:
    one, other = weights_of(run(Evenly())), weights_of(run(FedAvg()))
    for name, value in other.items():
        torch.testing.assert_close(one[name], value, atol=1e-5, rtol=1e-5)


def test_only_rows_of_classes_differ_and_absent_classes_keep_theirs() -> None:
    before = weights_of(federation(FedAvg()))
    plain, rows = weights_of(run(FedAvg(), rounds=1)), weights_of(run(OneClass(), rounds=1))
    axes = federation(FedAvg()).state.network.class_parameters
    assert axes
    for name, value in rows.items():
        if name not in axes:
            assert torch.equal(value, plain[name]), name
        else:
            kept = value.narrow(axes[name], 1, 5)
            assert torch.equal(kept, before[name].narrow(axes[name], 1, 5)), name
            moved = value.narrow(axes[name], 0, 1)
            assert not torch.equal(moved, before[name].narrow(axes[name], 0, 1)), name


def test_waiting_updates_and_workers_give_the_same_bits() -> None:
    class Waits(ClassShares):
        streams = False

    streamed = weights_of(run(ClassShares()))
    assert same_bits(streamed, weights_of(run(Waits(), Inline(spool_gb=0))))
    assert same_bits(streamed, weights_of(run(ClassShares(), Workers(2))))


def test_clients_csv_has_a_number_a_class(here: Path, corpus_file: Path) -> None:
    (here / "even_classes.py").write_text(
        "import torch\n"
        "from fedmer import FedAvg\n"
        "class Even(FedAvg):\n"
        "    def weigh_classes(self, summaries, state):\n"
        "        return {s.client: torch.ones(6) for s in summaries}\n"
    )
    more = ["--trainer.max_epochs", "1", "--partitioner.clients", "4", "--name", "a"]
    words = ["fit", "--data.path", str(corpus_file), "--aggregator", "even_classes.Even", *more]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(here))
        assert main(words) == 0
    with (here / "runs/a/clients.csv").open() as file:
        assert {row["class_weights"] for row in csv.DictReader(file)} == {"0.25 " * 5 + "0.25"}


def test_a_round_reports_shares_of_every_class() -> None:
    report = federation(ClassShares()).run_round(0)
    total = torch.stack(list(report.class_weights.values())).sum(dim=0)
    torch.testing.assert_close(total, torch.ones(6))
    assert sum(report.weights.values()) == pytest.approx(1)
    assert not federation(FedAvg()).run_round(0).class_weights
