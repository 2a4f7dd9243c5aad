"""Whose utterances are in Analytic's sums: clients that come later, and clients that are
removed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from fedmer.__main__ import main
from fedmer.contracts.selector import Selector
from fedmer.data.client_data import ClientData
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.networks.window import Window
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.ridge_sums import RidgeSums
from tests.aggregators.test_analytic import network_of
from tests.federations import clients_of, federation, weights_of

CLIENTS = 5
CORPUS = synthetic_corpus(seed=0, dialogues=14, features={"text": 6, "audio": 4})
DATA = clients_of(CORPUS, NWay(CLIENTS, ways=2, spread=1))


class Given(Selector):
    """Cohorts as they stand in a list."""

    def __init__(self, cohorts: Sequence[Sequence[int]]) -> None:
        self.cohorts = cohorts

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        return list(self.cohorts[round])


def start(
    cohorts: Sequence[Sequence[int]], without: Sequence[int] = (), data: Sequence[ClientData] = DATA
) -> FederatedLoop:
    rule = Analytic(ridge=2.0, without=without)
    return federation(rule, CORPUS, data, Given(cohorts), network_of=network_of)


def assert_same(one: FederatedLoop, other: FederatedLoop) -> None:
    """The same solution in double precision, and the same network in single."""
    found = [RidgeSums.unpack(loop.state.tensors).discriminant(2.0, 0.5) for loop in (one, other)]
    torch.testing.assert_close(*found, atol=1e-9, rtol=1e-9)
    for name, value in weights_of(one).items():
        torch.testing.assert_close(value, weights_of(other)[name], atol=1e-6, rtol=0)


cohorts = st.lists(st.sets(st.integers(0, CLIENTS - 1), min_size=1), min_size=1, max_size=4)


@settings(max_examples=15, deadline=None)
@given(cohorts)
def test_whenever_clients_come_they_are_counted_once(chosen: list[set[int]]) -> None:
    loop = start([sorted(cohort) for cohort in chosen])
    for number in range(len(chosen)):
        loop.run_round(number)
    everybody = sorted(set.union(*chosen))
    at_once = start([everybody])
    at_once.run_round(0)
    assert_same(loop, at_once)
    assert loop.aggregator.finished(loop.state) == (len(everybody) == CLIENTS)


@settings(max_examples=15, deadline=None)
@given(st.sets(st.integers(0, CLIENTS - 1), min_size=1, max_size=CLIENTS - 1))
def test_removed_clients_leave_nothing_of_theirs(gone: set[int]) -> None:
    """Classes that they alone hold among them: NWay gives each client one to three."""
    whole = range(CLIENTS)
    before = start([whole])
    before.run_round(0)
    after = start([whole, whole], sorted(gone))
    after.load_state_dict(before.state_dict())
    after.state.network.load_state_dict(before.state.network.state_dict())
    assert not after.aggregator.finished(after.state)
    after.run_round(1)
    assert after.aggregator.finished(after.state)
    kept = [one for client, one in enumerate(DATA) if client not in gone]
    without = start([range(len(kept))], data=kept)
    without.run_round(0)
    assert_same(after, without)


def test_who_has_nothing_to_add_computes_nothing() -> None:
    class Counting(Window):
        calls = 0

        def forward(self, batch):  # type: ignore[no-untyped-def]
            Counting.calls += 1
            return super().forward(batch)

    rule = Analytic(without=[1, 2, 3, 4])
    loop = federation(
        rule, CORPUS, DATA, network_of=lambda corpus, seed: Counting(corpus.shape, window=1)
    )
    loop.run_round(0)
    assert Counting.calls == 1


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ([5], r"aggregator.without names client 5; expected ids from 0 to 4."),
        ([-1], r"aggregator.without names client -1"),
        (range(5), r"aggregator.without names all clients; leave at least one in."),
    ],
)
def test_clients_that_there_are_not_are_refused(without: Sequence[int], said: str) -> None:
    with pytest.raises(InputError, match=said):
        start([range(CLIENTS)], without).run_round(0)


def test_a_finished_run_goes_on_without_a_client(
    corpus_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/method.md says; the model that it leaves is the new one."""
    whole, less = tmp_path / "whole", tmp_path / "less"
    words = ["--aggregator", "Analytic", "--network", "Window", "--partitioner.clients", "4"]
    words += ["--data.path", str(corpus_file), "--runs", str(tmp_path)]
    assert main(["fit", *words, "--name", "whole"]) == 0
    again = ["--config", str(whole / "config.yaml"), "--name", "less", "--aggregator.without"]
    again += ["[2]", "--ckpt_path", str(whole / "checkpoints" / "last.ckpt")]
    assert main(["fit", *again]) == 0
    capsys.readouterr()
    saved = [
        torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (whole, less)
    ]
    members = [one["fedmer"]["tensors"]["members"].tolist() for one in saved]
    assert members == [[0, 1, 2, 3], [0, 1, 3]]
    heads = [
        load_file(run / "model" / "weights.safetensors")["network/head.weight"]
        for run in (whole, less)
    ]
    assert not torch.equal(*heads)
    assert torch.equal(heads[1], saved[1]["state_dict"]["network.head.weight"])
