"""Heads that rules average class by class."""

import importlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts import Aggregator, Executor, ServerState
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Summary
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_adam import FedAdam
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_avg_m import FedAvgM
from fedmer.plugins.aggregators.fed_proc import FedProc
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.fed_yogi import FedYogi
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.registry import plugins
from fedmer.prototypes import Prototypes, PrototypeSet
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

KINDS = [FedAvg, FedProx, FedAvgM, FedAdam, FedYogi, FedProc, Distance]
with_heads = pytest.mark.parametrize("kind", KINDS)
CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, NWay(6, ways=2, spread=1))


def run(
    rule: Aggregator,
    executor: Executor | None = None,
    rounds: int = 2,
    clients: list[ClientData] = CLIENTS,
) -> FederatedLoop:
    loop = federation(rule, CORPUS, clients, executor=executor)
    loop.state.rounds = 4
    for number in range(rounds):
        loop.run_round(number)
    loop.executor.close()
    return loop


@with_heads
def test_only_heads_differ_and_clients_without_an_emotion_have_no_say_in_its_row(
    kind: type[FedAvg],
) -> None:
    joint, rows = run(kind(heads="joint"), rounds=1), run(kind(heads="classwise"), rounds=1)
    axes = joint.state.network.class_parameters  # type: ignore[attr-defined]
    assert axes
    found = weights_of(rows)
    for name, value in weights_of(joint).items():
        assert torch.equal(found[name], value) == (name not in axes), name
    report = rows.run_round(1)
    for client, shares in report.class_weights.items():
        absent = CLIENTS[client].class_counts(CORPUS.shape.classes) == 0
        assert absent.any()
        assert (shares[absent] == 0).all()


@with_heads
def test_one_client_has_all_the_say(kind: type[FedAvg]) -> None:
    central = clients_of(CORPUS, Central())
    one, other = (run(kind(heads=heads), clients=central) for heads in ("joint", "classwise"))
    axes, before = other.state.network.class_parameters, weights_of(one)  # type: ignore[attr-defined]
    for name, value in weights_of(other).items():
        assert torch.equal(before[name], value), (name, axes)


@with_heads
def test_waiting_updates_and_workers_give_the_same_bits(kind: type[FedAvg]) -> None:
    inline = weights_of(run(kind(heads="classwise")))
    assert same_bits(inline, weights_of(run(kind(heads="classwise"), Inline(spool_gb=0))))
    assert same_bits(inline, weights_of(run(kind(heads="classwise"), Workers(2))))


@with_heads
def test_a_class_that_nobody_in_the_cohort_holds_keeps_its_rows(kind: type[FedAvg]) -> None:
    classes = CORPUS.shape.classes
    held = [c for c in CLIENTS if int((c.class_counts(classes) > 1).sum()) < classes][:1]
    loop = federation(kind(heads="classwise"), CORPUS, held)
    loop.state.rounds = 4
    before = weights_of(loop)
    loop.run_round(0)
    absent = held[0].class_counts(classes) == 0
    assert absent.any()
    for name, axis in loop.state.network.class_parameters.items():  # type: ignore[attr-defined]
        rows = torch.arange(classes)[absent]
        found = weights_of(loop)[name].index_select(axis, rows)
        assert torch.equal(found, before[name].index_select(axis, rows)), name


def cohort(seed: int, clients: int, equal: bool = False) -> list[Summary]:
    """Clients with prototypes of three classes, and maybe as many utterances of each."""
    random, found = generator(seed), []
    for client in range(clients):
        counts = torch.randint(0, 9, (3,), generator=random)
        counts = torch.full((3,), client + 2) if equal else counts
        means = torch.zeros(3, 2) if equal else torch.randn(3, 2, generator=random)
        sent = PrototypeSet({"fused": Prototypes(means, counts > 0, counts)}).pack()
        examples = int(counts.sum())
        found.append(Summary(client, examples, tensors={**sent, "class_counts": counts}))
    return found


def shares(rows: dict[int, Tensor]) -> Tensor:
    stacked = torch.stack([rows[client] for client in sorted(rows)])
    return stacked / stacked.sum(dim=0).clamp(min=1e-12)


@quick
@given(seed=SEEDS, clients=st.integers(1, 5), kind=st.sampled_from([FedAvg, FedProc, Distance]))
def test_the_order_of_clients_changes_nothing(seed: int, clients: int, kind: type[FedAvg]) -> None:
    sent, rule = cohort(seed, clients), kind(heads="classwise")
    known = Prototypes(torch.randn(3, 2, generator=generator(seed + 1)), torch.ones(3) > 0)
    state = ServerState(torch.nn.Linear(1, 1), tensors=PrototypeSet({"fused": known}).pack())
    one, other = rule.weigh_classes(sent, state), rule.weigh_classes(sent[::-1], state)
    assert one is not None
    assert other is not None
    torch.testing.assert_close(shares(one), shares(other))
    for summary in sent:
        counts = summary.tensors["class_counts"]
        least = 2 if kind is Distance else 1
        if kind is not Distance or (counts != 1).all():
            assert torch.equal(one[summary.client] > 0, counts >= least)


@quick
@given(seed=SEEDS, clients=st.integers(1, 5), kind=st.sampled_from([FedAvg, FedProc, Distance]))
def test_with_equal_shares_of_classes_rows_weigh_what_all_else_does(
    seed: int, clients: int, kind: type[FedAvg]
) -> None:
    sent, rule = cohort(seed, clients, equal=True), kind(heads="classwise")
    state = ServerState(torch.nn.Linear(1, 1))
    whole, rows = rule.weigh(sent, state), rule.weigh_classes(sent, state)
    assert rows is not None
    expected = torch.tensor([whole[client] for client in sorted(whole)], dtype=torch.float64)
    expected = (expected / expected.sum())[:, None].expand(-1, 3)
    torch.testing.assert_close(shares(rows), expected, atol=1e-9, rtol=1e-9)


def test_heads_joint_is_the_default_of_federated_averaging_and_sends_nothing_more() -> None:
    summary, _ = federation(FedAvg()).trainer.fit(0, federation(FedAvg()).knowledge())
    assert not summary.tensors
    assert Distance().heads == "classwise"


def test_counts_below_zero_are_refused() -> None:
    sent = [Summary(3, 5, tensors={"class_counts": torch.tensor([6, -1])})]
    with pytest.raises(InputError, match="Client 3 sent negative class counts"):
        FedAvg(heads="classwise").weigh_classes(sent, ServerState(torch.nn.Linear(1, 1)))


@pytest.mark.parametrize("kind", [FedAvg, FedProc, Distance])
def test_a_network_that_names_no_rows_is_refused(
    kind: type[FedAvg], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SDT, "class_parameters", {})
    with pytest.raises(InputError, match=r"SDT names no parameter .* --aggregator\.heads joint"):
        run(kind(heads="classwise"), rounds=1)


@pytest.mark.parametrize("path", [p.path for p in plugins("networks") if p.package == "fedmer"])
def test_every_network_names_its_rows(path: str) -> None:
    module, _, name = path.rpartition(".")
    network = getattr(importlib.import_module(module), name)(CORPUS.shape)
    sizes = dict(network.named_parameters())
    assert network.class_parameters
    for parameter, axis in network.class_parameters.items():
        assert sizes[parameter].shape[axis] == CORPUS.shape.classes


def test_with_a_calibrated_loss_every_rule_of_these_learns() -> None:
    for kind in KINDS:
        loop = federation(
            kind(heads="classwise"), CORPUS, CLIENTS, loss=SelfDistillation(calibration="prior")
        )
        loop.state.rounds = 4
        assert torch.tensor(loop.run_round(0).train_loss).isfinite(), kind
