"""FedProto against loops."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.aggregator import ClientRound, ServerState
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.aggregators.fed_proto import FedProto
from tests.aggregators.rules import (
    NOTHING,
    SEEDS,
    SHAPE,
    batch_of,
    client,
    few,
    generator,
    masked,
    prototypes,
    quick,
    received,
    said,
)


@quick
@given(seed=SEEDS, strength=st.sampled_from([0.0, 0.5, 3.0]), labelled=st.sampled_from([0, 0.7, 1]))
def test_the_pull_to_prototypes_is_that_of_a_loop(
    seed: int, strength: float, labelled: float
) -> None:
    batch, output, sent = batch_of(seed, labelled), said(seed, (2, 5)), prototypes(seed)
    fused = output.embeddings["fused"]
    loss = FedProto(strength).client_loss(NOTHING, output, masked(batch), received(sent))
    expected, turns = 0 * fused.sum(), 0
    counts = torch.zeros(2, 5, dtype=torch.bool)
    for b, t in batch.labelled.nonzero().tolist():
        turns += 1
        label = int(batch.labels[b, t])
        if sent["known.fused"][label]:
            expected = expected + (fused[b, t] - sent["prototypes.fused"][label]).square().sum() / 3
            counts[b, t] = True
    expected = strength * expected / max(turns, 1)
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, [fused], retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, [fused])
    torch.testing.assert_close(ours, theirs)
    assert (ours[~counts] == 0).all()
    # What stands in an unknown class's place, and labels outside M, cannot be seen.
    other = {**sent, "prototypes.fused": sent["prototypes.fused"].clone()}
    other["prototypes.fused"][~sent["known.fused"]] = 1e3
    again = FedProto(strength).client_loss(NOTHING, output, batch, received(other))
    assert torch.equal(loss, again)
    assert torch.equal(torch.autograd.grad(again, [fused])[0], ours)


def test_before_there_are_prototypes_nobody_is_pulled_and_the_head_predicts() -> None:
    output, own = said(0, (2, 5)), received({})
    assert FedProto().client_loss(NOTHING, output, batch_of(0), own) is NOTHING
    assert FedProto().predict(output, own.received) is output.logits


@few
@given(seed=SEEDS)
def test_local_prototypes_are_mean_embeddings(seed: int) -> None:
    own = client(seed)
    batches = [masked(batch_of(seed, 0.4)), masked(batch_of(seed + 1, 0.4, (3, 2)))]
    with torch.no_grad():
        sent = FedProto().summarize(ClientRound(own, Broadcast(0)), batches)
        for label in range(SHAPE.classes):
            rows = [
                own(batch).embeddings["fused"][b, t]
                for batch in batches
                for b, t in (batch.labelled & (batch.labels == label)).nonzero().tolist()
            ]
            mean = torch.stack(rows).mean(dim=0) if rows else torch.zeros(4)
            assert bool(sent["known.fused"][label]) == bool(rows)
            torch.testing.assert_close(sent["prototypes.fused"][label], mean)
    assert set(sent) == {"prototypes.fused", "known.fused"}


@quick
@given(seed=SEEDS, rounds=st.integers(1, 4), clients=st.integers(1, 4))
def test_global_prototypes_are_plain_means_over_holders_and_carry_over(
    seed: int, rounds: int, clients: int
) -> None:
    random = generator(seed)
    state = ServerState(nn.Linear(1, 1))
    expected: dict[int, Tensor] = {}
    rule = FedProto()
    for number in range(rounds):
        summaries = []
        for i in range(clients):
            counts = torch.randint(0, 5, (SHAPE.classes,), generator=random)
            counts *= torch.rand(SHAPE.classes, generator=random) < 0.4
            local = torch.randn(SHAPE.classes, 3, generator=random) * (counts > 0)[:, None]
            tensors = {"prototypes.fused": local, "counts.fused": counts}
            summaries.append(Summary(i, int(counts.sum()), tensors=tensors))
        for label in range(SHAPE.classes):
            held = [s.tensors for s in summaries if s.tensors["counts.fused"][label] > 0]
            if held:
                expected[label] = torch.stack([h["prototypes.fused"][label] for h in held]).mean(
                    dim=0
                )
        state.round = number
        rule.step(state, summaries, rule.weigh(summaries, state), None)
        sent = rule.broadcast(state)
        assert sent.weights is None
        assert sent.tensors["known.fused"].tolist() == [
            label in expected for label in range(SHAPE.classes)
        ]
        for label, prototype in expected.items():
            torch.testing.assert_close(sent.tensors["prototypes.fused"][label], prototype)
        assert (sent.tensors["prototypes.fused"][~sent.tensors["known.fused"]] == 0).all()


@quick
@given(seed=SEEDS, turns=st.integers(1, 40), offset=st.sampled_from([0.0, 1000.0]))
def test_prediction_is_the_nearest_known_prototype(seed: int, turns: int, offset: float) -> None:
    sent = prototypes(seed)
    sent["prototypes.fused"] += offset
    output = said(seed, (2, turns), offset=offset)
    own = received(sent)
    logits = FedProto().predict(output, own.received)
    assert logits.shape == (2, turns, SHAPE.classes)
    apart = (
        (output.embeddings["fused"][:, :, None] - sent["prototypes.fused"]).double().norm(dim=-1)
    )
    apart[:, :, ~sent["known.fused"]] = torch.inf
    torch.testing.assert_close(-logits.double(), apart, atol=1e-4, rtol=1e-4)
    assert sent["known.fused"][logits.argmax(dim=-1)].all()
    assert torch.equal(FedProto(inference="head").predict(output, own.received), output.logits)


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_negative_strength_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=f"strength is {value}; expected 0 or more"):
        FedProto(value)
