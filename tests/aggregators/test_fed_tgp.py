"""FedTGP against loops, and where it becomes Local."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.aggregator import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary
from fedmer.plugins.aggregators.fed_tgp import FedTGP, Generator, adaptive_margin, separation
from fedmer.plugins.aggregators.local import Local
from fedmer.seeds import derive
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import federation, same_bits

CLASSES, WIDTH = 4, 3


def cohort(seed: int, clients: int = 3, held: float = 0.6) -> list[Summary]:
    """Clients that hold some classes; class 3 is nobody's, class 0 is the first client's."""
    random = generator(seed)
    summaries = []
    for i in range(clients):
        counts = torch.randint(1, 5, (CLASSES,), generator=random)
        counts *= torch.rand(CLASSES, generator=random) < held
        counts[3] = 0
        counts[0] += i == 0
        local = torch.randn(CLASSES, WIDTH, generator=random) * (counts > 0)[:, None]
        tensors = {"prototypes.fused": local, "counts.fused": counts}
        summaries.append(Summary(i, int(counts.sum()), tensors=tensors))
    return summaries


def step(rule: FedTGP, state: ServerState, summaries: list[Summary]) -> None:
    rule.step(state, summaries, rule.weigh(summaries, state), None)


def test_the_margin_worked_out_by_hand() -> None:
    local = torch.tensor(
        [
            [[0.0, 0.0], [6.0, 8.0], [3.0, 5.0], [9.0, 9.0]],
            [[7.0, 7.0], [0.0, 0.0], [3.0, 5.0], [9.0, 9.0]],
            [[0.0, 0.0], [6.0, 8.0], [9.0, 11.0], [9.0, 9.0]],
        ]
    )
    held = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0]]).bool()
    # The means are (0, 0), (3, 4) and (6, 8): nobody's nearest is further than 5.
    assert adaptive_margin(local, held, 100.0) == 5
    assert adaptive_margin(local, held, 2.0) == 2
    held[:, 1] = False
    assert adaptive_margin(local, held, 100.0) == 10
    held[:, 2] = False
    assert adaptive_margin(local, held, 100.0) == 0


@quick
@given(seed=SEEDS, margin=st.sampled_from([0.0, 0.7, 5.0]), rows=st.integers(1, 9))
def test_the_generators_loss_is_that_of_a_loop(seed: int, margin: float, rows: int) -> None:
    random = generator(seed)
    local = torch.randn(rows, WIDTH, generator=random)
    labels = torch.randint(0, 3, (rows,), generator=random)
    made = torch.randn(CLASSES, WIDTH, generator=random).requires_grad_()
    known = torch.tensor([True, True, True, False])
    expected = torch.zeros(())
    for row, label in zip(local, labels.tolist(), strict=True):
        scores = torch.stack([(-(row - made[k]).norm()).exp() for k in range(3)])
        own = scores[label] * math.exp(-margin)
        expected = expected - (own / (own + scores.sum() - scores[label])).log() / rows
    loss = separation(local, labels, made, known, margin)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    (ours,), (theirs,) = (torch.autograd.grad(one, [made]) for one in (loss, expected))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    assert not ours[3].any()


def test_one_step_of_the_server_worked_out_without_the_rule() -> None:
    summaries = [
        Summary(0, 3, tensors={"prototypes.fused": local, "counts.fused": torch.tensor(counts)})
        for local, counts in (
            (torch.tensor([[0.0, 0, 0], [2.0, 0, 0], [0.0, 0, 0], [0.0, 0, 0]]), [1, 2, 0, 0]),
            (torch.tensor([[0.0, 2, 0], [0.0, 0, 0], [0.0, 0, 4], [0.0, 0, 0]]), [1, 0, 2, 0]),
        )
    ]
    state = ServerState(nn.Linear(1, 1))
    step(FedTGP(server_epochs=1, server_lr=0.5), state, summaries)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "FedTGP"))
        alone = Generator(CLASSES, WIDTH)
    # Means (0, 1, 0), (2, 0, 0), (0, 0, 4); nearest sqrt 5, sqrt 5, sqrt 17.
    margin, loss = math.sqrt(17), torch.zeros(())
    rows = [(0, [0, 0, 0]), (1, [2, 0, 0]), (0, [0, 2, 0]), (2, [0, 0, 4])]
    for label, row in rows:
        apart = (torch.tensor(row, dtype=torch.float32) - alone()[:3]).norm(dim=-1)
        enlarged = apart + margin * torch.eye(3)[label]
        loss = loss + (enlarged[label] + (-enlarged).logsumexp(dim=0)) / len(rows)
    parameters = list(alone.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.data -= 0.5 * gradient
    torch.testing.assert_close(state.tensors["prototypes.fused"][:3], alone()[:3].detach())
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(state.tensors[f"generator.{name}"], value)


@quick
@given(seed=SEEDS)
def test_the_generator_learns_and_goes_on_where_it_was(seed: int) -> None:
    summaries = cohort(seed)
    local = torch.stack([summary.tensors["prototypes.fused"] for summary in summaries])
    held = torch.stack([summary.tensors["counts.fused"] for summary in summaries]) > 0
    margin = adaptive_margin(local, held, 100.0)
    rows, labels = local[held], held.nonzero()[:, 1]

    def loss() -> float:
        made = state.tensors["prototypes.fused"]
        return float(separation(rows, labels, made, state.tensors["known.fused"], margin))

    state, rule = ServerState(nn.Linear(1, 1)), FedTGP(server_epochs=1)
    step(rule, state, summaries)
    first = loss()
    for _ in range(40):
        step(rule, state, summaries)
    if int(state.tensors["known.fused"].sum()) > 1:
        assert loss() < first
    # One round of many steps is many rounds of one step.
    whole = ServerState(nn.Linear(1, 1))
    step(FedTGP(server_epochs=41), whole, summaries)
    assert same_bits(state.tensors, whole.tensors)


@quick
@given(seed=SEEDS)
def test_what_is_sent_is_known_prototypes_and_nothing_else(seed: int) -> None:
    state, rule = ServerState(nn.Linear(1, 1)), FedTGP(server_epochs=2)
    assert rule.broadcast(state).nbytes == 0
    ever = torch.zeros(CLASSES, dtype=torch.bool)
    for number in range(3):
        summaries = cohort(seed + number, held=0.3)
        ever |= torch.stack([s.tensors["counts.fused"] for s in summaries]).sum(dim=0) > 0
        step(rule, state, summaries)
        sent = rule.broadcast(state)
        assert sent.weights is None
        assert sent.tensors.keys() == {"prototypes.fused", "known.fused"}
        assert torch.equal(sent.tensors["known.fused"], ever)
        assert (sent.tensors["prototypes.fused"][~ever] == 0).all()
        assert sent.tensors["prototypes.fused"][ever].any(dim=-1).all()
        assert not any(tensor.requires_grad for tensor in state.tensors.values())


def test_the_server_draws_nothing_from_the_global_generator() -> None:
    ends: list[dict[str, Tensor]] = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        expected = torch.rand(3)
        torch.manual_seed(seed)
        state = ServerState(nn.Linear(1, 1))
        before = torch.get_rng_state()
        step(FedTGP(), state, cohort(0))
        assert torch.equal(torch.get_rng_state(), before)
        ends.append(state.tensors)
        torch.manual_seed(seed)
        assert torch.equal(torch.rand(3), expected)
    assert same_bits(*ends)


def test_without_strength_every_client_trains_alone_bit_for_bit() -> None:
    alone, free, pulled = (
        federation(rule) for rule in (Local(), FedTGP(0, "head"), FedTGP(1, server_epochs=3))
    )
    for number in range(2):
        for loop in (alone, free, pulled):
            loop.run_round(number)
    for i in range(8):
        own, other, moved = (
            loop.trainer.state_dict()["memory"][i]["weights"] for loop in (alone, free, pulled)
        )
        assert same_bits(own, other)
        assert not same_bits(own, moved)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"strength": -1}, "strength is -1; expected 0 or more."),
        ({"server_epochs": 0}, "server_epochs is 0; expected at least 1."),
        ({"server_lr": math.nan}, "server_lr is nan; expected a number above 0."),
        ({"margin": -1}, "margin is -1; expected 0 or more."),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        FedTGP(**values)
