"""Distance against loops, FedAvg and FedProto; its gate, its exchanges and what it refuses."""

import dataclasses
from typing import Any, Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts.aggregator import ClientRound, ServerState
from fedmer.errors import InputError
from fedmer.losses import prototype
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.prototypes import PrototypeSet
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
from tests.federations import federation, same_bits, weights_of

GATES = st.sampled_from(["off", "violation", "literal"])
CORRECTIONS = st.sampled_from(["batch_proto", "sample"])


def summary(client: int, seed: int, counts: Tensor) -> Summary:
    local = torch.randn(SHAPE.classes, 3, generator=generator(seed)) * (counts > 0)[:, None]
    tensors = {"prototypes.fused": local, "counts.fused": counts}
    return Summary(client, int(counts.sum()), tensors=tensors)


# --- what clients minimise ----------------------------------------------------------------------


@quick
@given(seed=SEEDS, gate=GATES, correction=CORRECTIONS, alpha=st.floats(-1, 2))
def test_the_correction_is_that_of_a_loop(
    seed: int, gate: Any, correction: Any, alpha: float
) -> None:
    batch, output, sent = masked(batch_of(seed)), said(seed, (2, 5)), prototypes(seed)
    rule = Distance(0.7, gate=gate, alpha=alpha, correction=correction)
    loss = rule.client_loss(NOTHING, output, batch, received(sent))
    fused, names, known = output.embeddings["fused"], sent["prototypes.fused"], sent["known.fused"]
    reach = prototype.margins(names, known)
    rows: dict[int, list[Tensor]] = {}
    for b, t in batch.labelled.nonzero().tolist():
        label = int(batch.labels[b, t])
        apart = prototype.distances(fused[b, t], names)[label]
        violates = bool(apart + alpha >= reach[label])
        if gate == "off" or violates is (gate == "violation"):
            rows.setdefault(label, []).append(fused[b, t])
    expected = torch.zeros(())
    for label, own in rows.items():
        points = torch.stack(own)
        if correction == "batch_proto":
            points = points.mean(dim=0, keepdim=True).expand(len(own), -1)
        labels = torch.full((len(own),), label)
        expected = expected + prototype.contrastive(points, labels, names, known).sum()
    expected = 0.7 * expected / batch.labelled.sum().clamp(min=1)
    torch.testing.assert_close(loss, expected)
    torch.autograd.backward(loss)
    assert fused.grad is not None
    assert fused.grad.isfinite().all()


@quick
@given(seed=SEEDS, alpha=st.floats(-3, 3))
def test_violation_and_literal_part_the_turns_between_them(seed: int, alpha: float) -> None:
    sent = prototypes(seed)
    rows = torch.randn(9, 3, generator=generator(seed))
    labels = torch.randint(0, SHAPE.classes, (9,), generator=generator(seed))
    names, known = sent["prototypes.fused"], sent["known.fused"]

    def chosen(gate: Any, alpha: float) -> Tensor:
        return Distance(gate=gate, alpha=alpha).gated(rows, labels, names, known)

    assert torch.equal(chosen("violation", alpha), ~chosen("literal", alpha))
    assert chosen("violation", float("inf")).all()
    assert not chosen("literal", float("inf")).any()
    assert chosen("literal", float("-inf")).all()
    assert chosen("off", alpha).all()


def test_a_gate_that_lets_nothing_through_leaves_supervised_training_as_it_is() -> None:
    shut, off, open_ = (
        federation(rule)
        for rule in (
            Distance(5.0, gate="literal", alpha=float("inf")),
            Distance(0.0),
            Distance(5.0, gate="violation", alpha=float("inf")),
        )
    )
    for loop in (shut, off, open_):
        loop.run_round(0)
        loop.run_round(1)
    assert same_bits(weights_of(shut), weights_of(off))
    assert not same_bits(weights_of(open_), weights_of(off))


@quick
@given(seed=SEEDS, sites=st.sampled_from([("fused",), ("fused", "text"), ("text",)]))
def test_the_correction_is_averaged_over_sites(seed: int, sites: tuple[str, ...]) -> None:
    own, batch = client(seed), masked(batch_of(seed))
    output = own(batch)
    sent: dict[str, Tensor] = {}
    for number, site in enumerate(("fused", "text")):
        sent |= prototypes(seed + number, width=4, site=site)
    terms = []
    for site in sites:
        rule = Distance(1.0, sites=[site])
        terms.append(rule.client_loss(NOTHING, output, batch, received(sent)))
    together = Distance(1.0, sites=sites).client_loss(NOTHING, output, batch, received(sent))
    torch.testing.assert_close(together, torch.stack(terms).mean())


def test_before_there_are_prototypes_nothing_is_corrected() -> None:
    output = said(0, (2, 5))
    assert Distance().client_loss(NOTHING, output, batch_of(0), received({})) is NOTHING
    full = received(prototypes(0))
    assert Distance(0.0).client_loss(NOTHING, output, batch_of(0), full) is NOTHING


# --- what they send -----------------------------------------------------------------------------


@few
@given(seed=SEEDS, least=st.integers(1, 4))
def test_a_class_with_too_few_turns_is_neither_sent_nor_counted(seed: int, least: int) -> None:
    own, batch = client(seed), masked(batch_of(seed, 0.5))
    with torch.no_grad():
        sent = Distance(min_count=least, prototypes="after").summarize(
            ClientRound(own, Broadcast(0)), [batch]
        )
        fused = own(batch).embeddings["fused"]
    for label in range(SHAPE.classes):
        rows = fused[batch.labelled & (batch.labels == label)]
        kept = len(rows) >= least
        assert int(sent["counts.fused"][label]) == (len(rows) if kept else 0)
        expected = rows.mean(dim=0) if kept else torch.zeros(4)
        torch.testing.assert_close(sent["prototypes.fused"][label], expected)


def test_turns_without_a_modality_say_nothing_of_its_prototype() -> None:
    own, batch = client(0), masked(batch_of(0, labelled=1.0))
    present = batch.present["text"].clone()
    present[0] = False
    batch = dataclasses.replace(batch, present={"text": present})
    with torch.no_grad():
        rule = Distance(sites=["fused", "text"], min_count=1, prototypes="after")
        sent = rule.summarize(ClientRound(own, Broadcast(0)), [batch])
    assert sent["counts.fused"].sum() == batch.labelled.sum()
    assert sent["counts.text"].sum() == batch.labelled[1].sum()


@few
@given(seed=SEEDS, batches=st.integers(1, 3))
def test_prototypes_of_the_last_pass_are_those_of_a_pass_of_their_own_where_nothing_moves(
    seed: int, batches: int
) -> None:
    here, data = client(seed), [masked(batch_of(seed + i)) for i in range(batches)]
    rule = Distance(sites=["fused", "text"], prototypes="during")
    context = ClientRound(here, Broadcast(0))
    for context.last_epoch in (False, True):
        for batch in data:
            assert rule.client_loss(NOTHING, here(batch), batch, context) is NOTHING
    with torch.no_grad():
        found = rule.summarize(context, [])
        expected = Distance(sites=rule.sites, prototypes="after").summarize(
            ClientRound(here, Broadcast(0)), data
        )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert not context.memory, "sums of one round are none of the next"


# --- how they are joined ------------------------------------------------------------------------


@quick
@given(seed=SEEDS, clients=st.integers(1, 4), rounds=st.integers(1, 3))
def test_client_weights_are_class_weights_by_the_share_of_the_class(
    seed: int, clients: int, rounds: int
) -> None:
    random = generator(seed)
    rule, state = Distance(min_count=1), ServerState(torch.nn.Linear(1, 1))
    for number in range(rounds):
        counts = torch.randint(0, 6, (clients, SHAPE.classes), generator=random)
        counts[:, 0] += 1
        summaries = [summary(i, seed + 7 * number + i, row) for i, row in enumerate(counts)]
        weights = rule.weigh(summaries, state)
        local = torch.stack([s.tensors["prototypes.fused"] for s in summaries])
        old = PrototypeSet.unpack(state.tensors).get("fused")
        apart = None if old is None else rule.weights.apart(local, old)
        by_class = rule.weights(apart, counts, old)
        for i in range(clients):
            expected = sum(
                float(counts[:, k].sum() / counts.sum() * by_class[i, k])
                for k in range(SHAPE.classes)
            )
            assert weights[i] == pytest.approx(expected, rel=1e-5)
        assert sum(weights.values()) == pytest.approx(1)
        rule.step(state, summaries, weights, None)


@quick
@given(seed=SEEDS, clients=st.integers(1, 5))
def test_with_gamma_one_and_equal_distances_it_is_fedavg(seed: int, clients: int) -> None:
    random = generator(seed)
    state = ServerState(torch.nn.Linear(1, 1))
    counts = torch.randint(0, 9, (clients, SHAPE.classes), generator=random)
    counts[:, seed % SHAPE.classes] += 1
    summaries = [summary(i, seed, row) for i, row in enumerate(counts)]  # alike where held
    rule, average = Distance(gamma=1.0, min_count=1), FedAvg()
    for _ in range(2):
        weights = rule.weigh(summaries, state)
        parts = average.weigh(summaries, state)
        total = sum(parts.values())
        assert weights == pytest.approx({c: part / total for c, part in parts.items()})
        rule.step(state, summaries, weights, None)


@pytest.mark.parametrize("heads", ["joint", "classwise"])
def test_without_correction_and_distance_weights_it_is_fedavg_in_a_real_federation(
    heads: Literal["joint", "classwise"],
) -> None:
    rule = Distance(0.0, weighting="counts", gamma=1.0, min_count=1, heads=heads)
    one, other = federation(rule), federation(FedAvg(heads))
    for number in range(2):
        mine, theirs = one.run_round(number), other.run_round(number)
        assert mine.weights == pytest.approx(theirs.weights, rel=1e-9)
    for name, value in weights_of(other).items():
        torch.testing.assert_close(weights_of(one)[name], value, atol=1e-6, rtol=1e-5)


@quick
@given(seed=SEEDS, clients=st.integers(1, 4))
def test_with_gamma_zero_and_counts_the_prototypes_are_those_of_fedproto(
    seed: int, clients: int
) -> None:
    random = generator(seed)
    counts = torch.randint(0, 3, (clients, SHAPE.classes), generator=random)
    summaries = [summary(i, seed + i, row) for i, row in enumerate(counts)]
    mine, theirs = (ServerState(torch.nn.Linear(1, 1)) for _ in range(2))
    rule = Distance(weighting="counts", gamma=0.0, min_count=1, exchange="prototypes")
    rule.step(mine, summaries, {}, None)
    FedProto().step(theirs, summaries, {}, None)
    assert torch.equal(mine.tensors["known.fused"], theirs.tensors["known.fused"])
    torch.testing.assert_close(mine.tensors["prototypes.fused"], theirs.tensors["prototypes.fused"])


def test_a_cohort_without_a_class_of_enough_turns_counts_by_its_examples() -> None:
    nothing = torch.zeros(SHAPE.classes, dtype=torch.int64)
    summaries = [
        dataclasses.replace(summary(0, 0, nothing), examples=1),
        dataclasses.replace(summary(1, 1, nothing), examples=3),
    ]
    assert Distance().weigh(summaries, ServerState(torch.nn.Linear(1, 1))) == {0: 0.25, 1: 0.75}


# --- what travels -------------------------------------------------------------------------------


@pytest.mark.parametrize("exchange", ["both", "parameters", "prototypes"])
def test_what_travels_is_what_was_chosen(exchange: Any) -> None:
    loop = federation(Distance(exchange=exchange))
    loop.run_round(0)
    report = loop.run_round(1)
    sent = loop.knowledge()
    assert (sent.weights is not None) is (exchange != "prototypes")
    assert bool(sent.tensors) is (exchange != "parameters")
    assert "prototypes.fused" in report.summaries[0].tensors
    assert len(loop.trainer.trained) == (8 if exchange == "prototypes" else 0)
    weights = sum(v.numel() * v.element_size() for v in loop.state.network.state_dict().values())
    assert (report.bytes_up > 8 * weights) is (exchange != "prototypes")


def test_the_nearest_prototype_predicts_where_it_is_asked_to() -> None:
    output, sent = said(0, (2, 5)), Broadcast(1, None, prototypes(0))
    rule = Distance(inference="prototype")
    assert sent.tensors["known.fused"][rule.predict(output, sent).argmax(dim=-1)].all()
    assert rule.predict(output, Broadcast(0)) is output.logits
    assert Distance().predict(output, sent) is output.logits


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"strength": -0.1}, r"strength \(lambda\) is -0.1; expected a number of 0 or more"),
        ({"strength": float("nan")}, "strength"),
        ({"gamma": -1.0}, "gamma is -1.0"),
        ({"r_min": -1.0}, "r_min is -1.0"),
        ({"epsilon": 0.0}, "epsilon is 0.0; expected a number above 0"),
        ({"tau": 0.0}, "tau is 0.0"),
        ({"alpha": float("nan")}, "alpha is nan"),
        ({"min_count": 0}, "min_count is 0"),
        ({"sites": []}, r"sites is \[\]"),
        ({"sites": ["text", "text"]}, "each once"),
        ({"inference": "prototype", "sites": ["text"]}, "inference is 'prototype', which needs"),
        ({"inference": "prototype", "exchange": "parameters"}, "inference is 'prototype'"),
    ],
)
def test_values_out_of_range_are_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        Distance(**changed)


def test_a_site_that_the_network_lacks_is_named_before_anything_is_trained() -> None:
    loop = federation(Distance(sites=["fused", "smell"]))
    with pytest.raises(InputError, match="no site 'smell' for prototypes; it has: text, audio"):
        loop.run_round(0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_client_that_sends_nonsense_is_named(value: float) -> None:
    good = summary(0, 0, torch.full((SHAPE.classes,), 3))
    tensors = {**good.tensors, "prototypes.fused": torch.full((SHAPE.classes, 3), value)}
    bad = dataclasses.replace(good, client=5, tensors=tensors)
    with pytest.raises(InputError, match="Client 5 sent prototypes at site 'fused' that are not"):
        Distance().weigh([good, bad], ServerState(torch.nn.Linear(1, 1)))
