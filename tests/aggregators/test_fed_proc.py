"""FedProc against loops, and where it becomes FedAvg."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmer.contracts.aggregator import Aggregator, ClientRound, ServerState
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.losses.class_terms import ClassTerms
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proc import FedProc
from tests.aggregators.rules import (
    SEEDS,
    SHAPE,
    batch_of,
    client,
    few,
    join,
    masked,
    prototypes,
    quick,
    said,
    small_network,
    small_update,
)
from tests.federations import federation, same_bits, weights_of


@quick
@given(seed=SEEDS, temperature=st.sampled_from([0.1, 1.0]), labelled=st.sampled_from([0, 0.7, 1]))
def test_the_mixed_loss_is_that_of_a_loop(seed: int, temperature: float, labelled: float) -> None:
    batch, output, sent = batch_of(seed, labelled), said(seed, (2, 5)), prototypes(seed)
    fused = output.embeddings["fused"]
    alpha = 0.75
    context = ClientRound(client(seed), Broadcast(1, None, {**sent, "alpha": torch.tensor(alpha)}))
    supervised = SelfDistillation()(output, batch)
    loss = FedProc(temperature=temperature).client_loss(supervised, output, masked(batch), context)
    contrast, turns = 0 * fused.sum(), 0
    known = sent["known.fused"].nonzero().flatten().tolist()
    for b, t in batch.labelled.nonzero().tolist():
        turns += 1
        label = int(batch.labels[b, t])
        if label in known:
            alike = {
                k: torch.cosine_similarity(fused[b, t], sent["prototypes.fused"][k], dim=0)
                / temperature
                for k in known
            }
            among = torch.stack([a.exp() for a in alike.values()]).sum()
            contrast = contrast - (alike[label].exp() / among).log()
    contrast = contrast / max(turns, 1)
    expected = (1 - alpha) * supervised + alpha * contrast
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(loss, [fused], retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, [fused])
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-4)


@few
@given(seed=SEEDS, alpha=st.sampled_from([0.25, 0.9]))
def test_what_a_client_minimises_is_the_mix(seed: int, alpha: float) -> None:
    own, batch, rule = client(seed), masked(batch_of(seed)), FedProc()
    sent = prototypes(seed, width=4)
    parameters = list(own.network.parameters())
    own.class_terms = ClassTerms(torch.tensor([1.0, 2.0, 0.5, 3.0]), torch.tensor([0.0, -1, 0, 1]))

    def gradients(share: float) -> list[torch.Tensor]:
        context = ClientRound(own, Broadcast(1, None, {**sent, "alpha": torch.tensor(share)}))
        output = own(batch)
        supervised = own.supervised_loss(output, batch)
        loss = rule.client_loss(supervised, output, batch, context)
        return list(torch.autograd.grad(loss, parameters))

    plain, contrast, mixed = gradients(0), gradients(1), gradients(alpha)
    for one, other, both in zip(plain, contrast, mixed, strict=True):
        expected = (1 - alpha) * one + alpha * other
        torch.testing.assert_close(both, expected, atol=1e-5, rtol=1e-4)


def alphas(rule: FedProc, rounds: int | None) -> list[float]:
    state = ServerState(small_network(), rounds=rounds)
    found = []
    for number in range(rounds or rule.rounds or 0):
        state.round = number
        found.append(float(rule.broadcast(state).tensors["alpha"]))
    return found


def test_the_share_of_contrast_falls_from_round_to_round_to_nothing() -> None:
    assert alphas(FedProc(), 4) == [0.75, 0.5, 0.25, 0]
    assert alphas(FedProc(rounds=2), 4) == [0.5, 0, 0, 0]
    assert alphas(FedProc(rounds=2), None) == [0.5, 0]


def of_rounds(rule: Aggregator, rounds: int) -> FederatedLoop:
    loop = federation(rule)
    loop.state.rounds = rounds
    return loop


def test_two_rounds_are_averaging_bit_for_bit() -> None:
    plain, two, four = of_rounds(FedAvg(), 2), of_rounds(FedProc(), 2), of_rounds(FedProc(), 4)
    for number in range(2):
        for loop in (plain, two, four):
            loop.run_round(number)
        assert same_bits(weights_of(plain), weights_of(two))
        assert same_bits(weights_of(plain), weights_of(four)) == (number == 0)
    assert set(two.state.tensors) == {"prototypes.fused", "known.fused"}


def test_two_clients_worked_out_by_hand() -> None:
    rule, state = FedProc(rounds=3), ServerState(small_network())
    sent = [
        ([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]], [9, 0, 0]),
        ([[3.0, 5.0], [4.0, 2.0], [0.0, 0.0]], [1, 2, 0]),
    ]
    summaries = [
        Summary(
            i, n, tensors={"prototypes.fused": torch.tensor(p), "counts.fused": torch.tensor(c)}
        )
        for i, (n, (p, c)) in enumerate(zip((10, 30), sent, strict=True))
    ]
    updates = [small_update((5, 2), 4, 3), small_update((1, 6), 8, 2)]
    optimizer = rule.server_optimizer(state.network.parameters())
    weights = join(rule, state, optimizer, list(zip(summaries, updates, strict=True)))
    assert weights == {0: 0.25, 1: 0.75}
    assert state.network.get_parameter("weight").tolist() == [[2, 5]]
    assert int(state.network.get_buffer("seen")) == 3
    assert state.tensors["prototypes.fused"].tolist() == [[2, 3], [4, 2], [0, 0]]
    assert state.tensors["known.fused"].tolist() == [True, True, False]
    known = rule.broadcast(state)
    assert known.weights is not None
    assert known.tensors.keys() == {"prototypes.fused", "known.fused", "alpha"}


def test_the_network_predicts() -> None:
    output = said(0, (2, 3))
    assert FedProc().predict(output, Broadcast(1, None, prototypes(0))) is output.logits
    assert output.logits.shape[-1] == SHAPE.classes


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FedProc(rounds=0), "rounds is 0; expected at least 1."),
        (lambda: FedProc(temperature=0), "temperature is 0; expected a number above 0."),
        (lambda: FedProc(temperature=math.nan), "temperature is nan; expected"),
        (
            lambda: FedProc().broadcast(ServerState(small_network())),
            "the run has no end; give --aggregator.rounds or --trainer.max_epochs.",
        ),
    ],
)
def test_what_it_cannot_work_with_is_refused(make, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=sentence):
        make()
