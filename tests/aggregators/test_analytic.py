"""Analytic against ridge regression on all utterances, whatever the split and the executor."""

from collections.abc import Sequence
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.executor import Executor
from fedmer.contracts.partitioner import Partitioner
from fedmer.data.batch import collate
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.losses.class_terms import inverse_frequencies
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Summary
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.window import Window
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.dirichlet import Dirichlet
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.ridge_sums import RidgeSums
from tests.federations import clients_of, federation, weights_of

CORPUS = synthetic_corpus(seed=0, dialogues=20, features={"text": 6, "audio": 4})


def network_of(corpus: ConversationCorpus, seed: int) -> Window:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Window(corpus.shape, window=1)


def start(
    clients: Sequence[ClientData], rule: Analytic, executor: Executor | None = None, **more: Any
) -> FederatedLoop:
    return federation(rule, CORPUS, clients, executor=executor, network_of=network_of, **more)


def solution(loop: FederatedLoop) -> Tensor:
    sums = RidgeSums.unpack(loop.state.tensors)
    return sums.solve(float(loop.state.tensors["ridge"]))


def pooled(clients: Sequence[ClientData]) -> tuple[Tensor, Tensor]:
    """``(N, d)`` features of the labelled utterances and a constant, and their ``(N,)``
    emotions."""
    batch = collate([one for client in clients for one in client.train])
    z = network_of(CORPUS, 0)(batch).embeddings["fused"][batch.labelled].double()
    return torch.cat([z, torch.ones(len(z), 1).double()], dim=1), batch.labels[batch.labelled]


splits = st.one_of(
    st.builds(Dialogue, st.integers(1, 16)),
    st.builds(Dirichlet, st.integers(2, 8), st.sampled_from([0.1, 1.0, 10.0])),
    st.just(Central()),
    st.just(Speaker()),
)


def ridge_head(z: Tensor, labels: Tensor, ridge: float) -> Tensor:
    """``(d, C)`` by ridge regression on rows that end with a constant."""
    y = nn.functional.one_hot(labels, CORPUS.shape.classes).double()
    penalty = torch.full((z.shape[1],), ridge).double()
    penalty[-1] = 0
    return torch.linalg.solve(z.T @ z + penalty.diag(), z.T @ y)


def discriminant_head(z: Tensor, labels: Tensor, ridge: float, prior: float) -> Tensor:
    """``(d, C)`` by discriminant analysis, class by class."""
    rows, classes = z[:, :-1], range(CORPUS.shape.classes)
    means = torch.stack([rows[labels == k].mean(dim=0) for k in classes])
    centred = rows - means[labels]
    within = centred.T @ centred / len(z) + ridge / len(z) * torch.eye(rows.shape[1]).double()
    apart = means - rows.mean(dim=0)
    weights = torch.linalg.solve(within, apart.T)
    shares = labels.bincount(minlength=len(classes)).double() / len(z)
    middle = rows.mean(dim=0) + apart / 2
    constants = prior * shares.log() - (middle.T * weights).sum(dim=0)
    return torch.cat([weights, constants[None]])


@settings(max_examples=12, deadline=None)
@given(splits, st.integers(0, 99), st.sampled_from(["ridge", "discriminant"]))
def test_any_split_gives_what_the_pooled_data_give(
    split: Partitioner, seed: int, kind: Literal["ridge", "discriminant"]
) -> None:
    clients = clients_of(CORPUS, split, seed=seed, standardise="none")
    loop = start(clients, Analytic(kind, ridge=3.0, prior=0.7))
    loop.run_round(0)
    z, labels = pooled(clients_of(CORPUS, Central(), standardise="none"))
    assert sum(client.examples for client in clients) == len(labels)
    sums = RidgeSums.unpack(loop.state.tensors)
    if kind == "ridge":
        found, expected = sums.solve(3.0), ridge_head(z, labels, 3.0)
    else:
        found, expected = sums.discriminant(3.0, 0.7), discriminant_head(z, labels, 3.0, 0.7)
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)
    head = loop.state.network.head
    assert isinstance(head, nn.Linear)
    torch.testing.assert_close(head.weight, expected[:-1].T.float(), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(head.bias, expected[-1].float(), atol=1e-6, rtol=1e-6)


def test_a_class_that_nobody_holds_is_never_predicted() -> None:
    rows, labels = torch.randn(40, 3), torch.arange(40) % 2
    found = RidgeSums.of(rows, labels, classes=3).discriminant(ridge=1.0)
    logits = 10 * torch.randn(100, 3).double() @ found[:-1] + found[-1]
    assert logits.isfinite().all()
    assert logits.softmax(dim=1)[:, 2].max() == 0


def test_the_ridge_that_is_chosen_has_the_least_cross_validation_error() -> None:
    clients = clients_of(CORPUS, Dialogue(4))
    loop = start(clients, Analytic())
    loop.run_round(0)
    z, labels = pooled(clients)
    y = nn.functional.one_hot(labels, CORPUS.shape.classes).double()

    def error(ridge: float) -> float:
        penalty = torch.full((z.shape[1],), ridge).double()
        penalty[-1] = 0
        hat = z @ torch.linalg.solve(z.T @ z + penalty.diag(), z.T)
        left = 1 - float(hat.trace()) / len(z)
        return float((y - hat @ y).square().sum()) / len(z) / left**2

    chosen = float(loop.state.tensors["ridge"])
    best = error(chosen)
    assert best < error(chosen * 10**0.5)
    assert best < error(chosen / 10**0.5)


def test_class_weights_of_the_loss_weigh_turns() -> None:
    clients = clients_of(CORPUS, Dialogue(4))
    loop = start(
        clients, Analytic("ridge", ridge=1.0), loss=SelfDistillation(class_weights="global")
    )
    loop.run_round(0)
    z, labels = pooled(clients)
    weights = inverse_frequencies(labels.bincount(minlength=CORPUS.shape.classes))[labels].double()
    weights = weights / weights.mean()
    y = nn.functional.one_hot(labels, CORPUS.shape.classes).double()
    penalty = torch.eye(z.shape[1]).double()
    penalty[-1, -1] = 0
    weighted = weights[:, None] * z
    expected = torch.linalg.solve(weighted.T @ z + penalty, weighted.T @ y)
    torch.testing.assert_close(solution(loop), expected, atol=1e-6, rtol=0)


def test_a_client_is_added_later_and_removed_exactly() -> None:
    clients = clients_of(CORPUS, Dialogue(5))

    def sums_of(some: Sequence[ClientData]) -> RidgeSums:
        loop = start(some, Analytic("ridge", ridge=1.0))
        loop.run_round(0)
        return RidgeSums.unpack(loop.state.tensors)

    everybody, without, alone = sums_of(clients), sums_of(clients[:4]), sums_of(clients[4:])
    for found, expected in ((everybody - alone, without), (without + alone, everybody)):
        torch.testing.assert_close(found.solve(1.0), expected.solve(1.0), atol=1e-9, rtol=0)
    assert not torch.allclose(without.solve(1.0), everybody.solve(1.0), atol=1e-3)
    rule, state = Analytic("ridge", ridge=1.0), start(clients, Analytic()).state
    rule.finish(state, everybody - alone)
    assert isinstance(state.network, Window)
    expected = without.solve(1.0)[:-1].T.float()
    torch.testing.assert_close(state.network.head.weight, expected, atol=1e-6, rtol=0)


def test_workers_give_the_bits_of_inline_and_send_no_weights() -> None:
    clients = clients_of(CORPUS, Dialogue(4))
    found = []
    for executor in (Inline(), Workers(2)):
        loop = start(clients, Analytic(), executor)
        try:
            report = loop.run_round(0)
        finally:
            executor.close()
        found.append(loop.state.tensors)
        width = RidgeSums.unpack(loop.state.tensors).features
        sums = 8 * (width * (width + 1) // 2 + width * CORPUS.shape.classes)
        assert report.bytes_up == len(clients) * (sums + 8 * 3)
        assert all(summary.steps == 0 for summary in report.summaries)
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_later_rounds_change_nothing_and_send_nothing() -> None:
    loop = start(clients_of(CORPUS, Dialogue(4)), Analytic())
    assert not loop.aggregator.finished(loop.state)
    loop.run_round(0)
    assert loop.aggregator.finished(loop.state)
    before = {**loop.state.tensors, **weights_of(loop)}
    assert loop.run_round(1).bytes_up == 4 * 8 * 3
    after = {**loop.state.tensors, **loop.state.network.state_dict()}
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_wide_embeddings_are_sketched_and_the_head_reads_them_whole() -> None:
    clients = clients_of(CORPUS, Dialogue(4))
    loop = start(clients, Analytic("ridge", ridge=1.0, most_features=30))
    loop.run_round(0)
    assert RidgeSums.unpack(loop.state.tensors).features == 31
    z, labels = pooled(clients)
    head = loop.state.network.head
    assert isinstance(head, nn.Linear)
    prediction = z[:, :-1].float() @ head.weight.T + head.bias
    majority = labels.bincount().max() / len(labels)
    assert (prediction.argmax(dim=1) == labels).float().mean() > majority + 0.1


def test_dependent_features_without_a_ridge_are_refused() -> None:
    loop = start(clients_of(CORPUS, Dialogue(4)), Analytic("ridge", ridge=0))
    with pytest.raises(InputError, match=r"linearly dependent.*leave aggregator.ridge out"):
        loop.run_round(0)


def test_what_memory_cannot_hold_is_refused_before_anything_is_computed() -> None:
    class Wide(Window):
        def forward(self, batch: Any) -> Any:
            raise AssertionError("it was computed")

    rule = Analytic(most_features=10**9)
    network = Wide(CORPUS.shape)
    network.head = nn.Linear(10**7, 1, device="meta")
    with pytest.raises(InputError, match=r"Gram matrix of 10000000 features.*most_features"):
        rule.check(network)


def test_a_network_without_a_linear_head_is_refused() -> None:
    with pytest.raises(InputError, match=r"ReLU has no linear layer.*such as Window"):
        Analytic().check(nn.ReLU())


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"ridge is -1; expected a finite number, 0 or more."):
        Analytic("ridge", ridge=-1)
    with pytest.raises(InputError, match=r"prior is -1; expected a finite number, 0 or more."):
        Analytic(prior=-1)
    with pytest.raises(InputError, match=r"most_features is 0; expected at least 1."):
        Analytic(most_features=0)


def test_a_silent_feature_keeps_the_head_that_it_has() -> None:
    corpus = CORPUS
    state = start(clients_of(corpus, Dialogue(4)), Analytic()).state
    network = state.network
    assert isinstance(network, Window)
    width = network.head.in_features
    rows = torch.randn(50, width)
    rows[:, 3] = 0
    before = network.head.weight.detach().clone()
    labels = torch.arange(50) % corpus.shape.classes
    Analytic("ridge", ridge=1.0).finish(state, RidgeSums.of(rows, labels, corpus.shape.classes))
    changed = (network.head.weight != before).any(dim=0)
    assert changed.tolist() == [place != 3 for place in range(width)]


def test_summaries_count_the_turns() -> None:
    """The mean that arrives is one over utterances, whatever the weights of the cohort."""
    rule, state = (
        Analytic("ridge", ridge=1.0),
        start(clients_of(CORPUS, Dialogue(4)), Analytic()).state,
    )
    width, classes = state.network.head.in_features, CORPUS.shape.classes  # type: ignore[union-attr]
    sums = RidgeSums.of(torch.randn(40, width), torch.arange(40) % classes, classes)
    cohort = [Summary(0, examples=30), Summary(1, examples=10)]
    rule.step(state, cohort, {0: 0.75, 1: 0.25}, (sums * (1 / 40)).pack())
    torch.testing.assert_close(RidgeSums.unpack(state.tensors).gram, sums.gram)
