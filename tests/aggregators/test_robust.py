"""Rules that stand when some clients are bad, against references without any cleverness."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from fedmer import cohort_updates
from fedmer.__main__ import main
from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts import Executor, ServerState
from fedmer.contracts.aggregator import ClientRound
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.aggregators.bulyan import Bulyan
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.geometric_median import (
    SKETCH,
    WIDTH,
    GeometricMedian,
    sketch,
    weiszfeld,
)
from fedmer.plugins.aggregators.krum import Krum
from fedmer.plugins.aggregators.median import Median
from fedmer.plugins.aggregators.multi_krum import MultiKrum
from fedmer.plugins.aggregators.norm_bound import NormBound
from fedmer.plugins.aggregators.trimmed_mean import TrimmedMean
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.privacy.secure_sum import SecureSum
from fedmer.weights import FlatWeights
from tests.aggregators.rules import SEEDS, client, generator, quick
from tests.federations import federation, same_bits, weights_of

Rows = NDArray[np.float64]
SHARES = st.sampled_from([0.0, 0.1, 0.2, 0.24])


def cohort(rows: Rows) -> CohortUpdates:
    """Updates of ``(I, 7)`` numbers in two tensors; the first client has the largest id."""
    return CohortUpdates(
        {
            100 - 5 * place: FlatWeights.of(
                {"weight": torch.tensor(row[:6]).view(2, 3), "bias": torch.tensor(row[6:])}
            )
            for place, row in enumerate(rows)
        }
    )


def received(seed: int) -> ServerState:
    network = nn.Linear(3, 2).double()
    network.bias = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    for value in network.parameters():
        value.data = torch.randn(value.shape, generator=generator(seed)).double()
    return ServerState(network)


def flat(weights: dict[str, torch.Tensor]) -> Rows:
    return np.concatenate([weights["weight"].flatten().numpy(), weights["bias"].numpy()])


def combined(rule: FedAvg, rows: Rows, state: ServerState, block: int = 2**22) -> Rows:
    updates = cohort(rows)
    summaries = [Summary(c, examples=c + 1) for c in sorted(updates.clients)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_updates, "BLOCK", block)
        weights = rule.weigh(summaries, state)
        return flat(rule.combine(updates, weights, state))


def krum(rows: Rows, bad: int, left: list[int]) -> int:
    """The client whose nearest neighbours are nearest."""
    scores = {}
    for i in left:
        apart = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in left if j != i)
        scores[i] = sum(apart[: max(1, len(left) - bad - 2)])
    return min(scores, key=lambda i: scores[i])


def naive(rule: FedAvg, rows: Rows, state: ServerState) -> Rows:
    """The rule as its paper has it, one number and one client at a time."""
    clients, start = len(rows), flat(dict(state.network.state_dict()))
    bad = int(getattr(rule, "bad", 0) * clients + 1e-9)
    everybody = list(range(clients))
    if isinstance(rule, Median):
        return np.array([np.median(column) for column in rows.T])
    if isinstance(rule, TrimmedMean):
        return np.array([np.mean(sorted(column)[bad : clients - bad]) for column in rows.T])
    if isinstance(rule, Krum):
        return rows[krum(rows, bad, everybody)]
    if isinstance(rule, MultiKrum):

        def score(i: int) -> float:
            apart = sorted(float(((rows[i] - row) ** 2).sum()) for row in np.delete(rows, i, 0))
            return sum(apart[: max(1, clients - bad - 2)])

        return np.mean([rows[i] for i in sorted(everybody, key=score)[: clients - bad]], axis=0)
    if isinstance(rule, Bulyan):
        left, chosen = everybody, []
        while len(chosen) < clients - 2 * bad:
            chosen.append(krum(rows, bad, left))
            left = [i for i in left if i != chosen[-1]]
        found = []
        for column in rows[chosen].T:
            middle = np.median(column)
            near = sorted(column, key=lambda x: abs(x - middle))
            found.append(np.mean(near[: clients - 4 * bad]))
        return np.array(found)
    if isinstance(rule, NormBound):
        sizes = [float(np.linalg.norm(row - start)) for row in rows]
        bound = rule.bound if rule.bound is not None else float(np.median(sizes))
        turns = [101.0 - 5 * place for place in everybody]
        moved = [n * (row - start) * min(1, bound / size)
                 for n, row, size in zip(turns, rows, sizes, strict=True)]  # fmt: skip
        return start + np.sum(moved, axis=0) / sum(turns)
    middle = rows.mean(axis=0)
    for _ in range(200):
        near = 1 / np.maximum(1e-9, np.linalg.norm(rows - middle, axis=1))
        middle = (near[:, None] * rows).sum(axis=0) / near.sum()
    return middle


def rules(share: float) -> list[FedAvg]:
    counted = [kind(share) for kind in (TrimmedMean, Krum, MultiKrum, Bulyan)]
    return [Median(), *counted, NormBound(), NormBound(0.5), GeometricMedian()]


@quick
@given(seed=SEEDS, clients=st.sampled_from([1, 2, 3, 7, 11, 20]), share=SHARES,
       block=st.integers(1, 60))  # fmt: skip
def test_every_rule_is_its_naive_reference(
    seed: int, clients: int, share: float, block: int
) -> None:
    if share > 0.1 and clients in (7, 11):
        share = 0.1  # of which Bulyan needs fewer clients
    rows = np.random.default_rng(seed).normal(size=(clients, 7)) * 2
    state = received(seed)
    for rule in rules(share if clients < 20 else min(share, 0.2)):
        found, expected = combined(rule, rows, state, block), naive(rule, rows, state)
        if isinstance(rule, GeometricMedian):

            def far(point: Rows) -> float:
                return float(np.linalg.norm(rows - point, axis=1).sum())

            assert far(found) <= far(expected) * (1 + 1e-5)
            continue
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9, err_msg=rule.name)


@quick
@given(seed=SEEDS, size=st.sampled_from([1e2, 1e10, 1e30]), together=st.booleans())
def test_bad_clients_do_not_carry_the_result_away(seed: int, size: float, together: bool) -> None:
    random, state = np.random.default_rng(seed), received(seed)
    honest = random.normal(size=(17, 7))
    shout = random.normal(size=(1 if together else 4, 7)) * size
    rows = np.concatenate([np.broadcast_to(shout, (4, 7)), honest])
    for rule in (Median(), TrimmedMean(0.2), Krum(0.2), MultiKrum(0.2), Bulyan(0.2)):
        found = combined(rule, rows, state)
        assert (found >= honest.min(axis=0) - 1e-9).all(), rule.name
        assert (found <= honest.max(axis=0) + 1e-9).all(), rule.name
    assert np.linalg.norm(combined(GeometricMedian(), rows, state) - honest.mean(axis=0)) < 5
    start = flat(dict(state.network.state_dict()))
    assert np.linalg.norm(combined(NormBound(0.5), rows, state) - start) <= 0.5 + 1e-9


@quick
@given(seed=SEEDS)
def test_a_client_that_shouts_costs_the_distances_of_others_no_digits(seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(9, 7)) * 1e-3 + 1
    rows[4] *= 1e20
    expected = ((rows[:, None] - rows[None]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(cohort(rows).apart().numpy(), expected, rtol=1e-6)


def test_every_executor_and_the_spool_give_the_same_bits() -> None:
    for make in (Median, Bulyan, NormBound, GeometricMedian):
        executors: list[Executor] = [Inline(), Inline(spool_gb=0), Workers(2)]
        found = []
        for executor in executors[: 3 if make is Bulyan else 2]:
            loop = federation(make(), executor=executor)
            loop.run_round(0)
            executor.close()
            found.append(weights_of(loop))
        assert all(same_bits(found[0], other) for other in found[1:])


def test_a_sketch_keeps_distances_and_is_the_same_for_all() -> None:
    numbers = torch.randn(2, 50_000, generator=generator(0)).double()
    one, other = (sketch(row, round=3) for row in numbers)
    assert one.shape == (WIDTH,)
    assert torch.equal(one, sketch(numbers[0], round=3))
    assert not torch.equal(one, sketch(numbers[0], round=4))
    ratio = (one - other).norm() / (numbers[0] - numbers[1]).norm()
    assert abs(float(ratio) - 1) < 0.1
    few = torch.randn(40, generator=generator(1))
    rounds = [float(sketch(few, round).square().sum() / few.square().sum()) for round in range(300)]
    assert abs(np.mean(rounds) - 1) < 0.02


def test_reported_distances_give_nearly_the_measured_median_by_weights_alone() -> None:
    rule, state = GeometricMedian("reported"), ServerState(nn.Module())
    assert not rule.sees_updates
    assert not rule.streams
    rows = torch.randn(9, 3000, generator=generator(2))
    rows[:3] = -4 * rows[:3].sum(dim=0) + 0.1 * rows[:3]
    summaries = [Summary(i, 1, tensors={SKETCH: sketch(row, 0)}) for i, row in enumerate(rows)]
    found = torch.tensor(list(rule.weigh(summaries, state).values()))
    exact = weiszfeld(torch.cdist(rows.double(), rows.double()).square())
    assert found[:3].sum() < 0.1
    assert (found - exact).abs().max() < 0.02
    assert float(found.sum()) == pytest.approx(1)


def test_a_client_reports_the_change_that_it_sends() -> None:
    here = client(0)
    start = {name: value.clone() for name, value in here.network.state_dict().items()}
    with torch.no_grad():
        for value in here.network.parameters():
            value.add_(0.5)
    context = ClientRound(here, Broadcast(2, start))
    (told,) = GeometricMedian("reported").summarize(context, []).values()
    floats = [v for v in start.values() if v.is_floating_point()]
    learnt = {name for name, _ in here.network.named_parameters()}
    change = torch.cat(
        [torch.full((v.numel(),), 0.5 if n in learnt else 0.0)
         for n, v in start.items() if v.is_floating_point()]
    )  # fmt: skip
    assert len(change) == sum(v.numel() for v in floats)
    torch.testing.assert_close(told, sketch(change, 2), atol=1e-4, rtol=1e-4)


class Carrying(Inline):
    carries_masked_sums = True


def test_a_masked_sum_goes_with_reported_distances_alone() -> None:
    for rule in (*rules(0.1),):
        with pytest.raises(InputError, match=f"--privacy SecureSum hides .* and {rule.name} has"):
            federation(rule, executor=Carrying(), privacy=[SecureSum()])
    loop = federation(GeometricMedian("reported"), executor=Carrying(), privacy=[SecureSum()])
    report = loop.run_round(0)
    assert len(set(report.weights.values())) > 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: TrimmedMean(0.5), r"bad is 0.5; expected a share of the clients in \[0, 0.5\)"),
        (lambda: Krum(-0.1), r"bad is -0.1; expected"),
        (lambda: MultiKrum(float("nan")), "bad is nan; expected"),
        (lambda: NormBound(0), "bound is 0; expected a number above 0"),
        (lambda: NormBound(float("nan")), "bound is nan; expected a number above 0"),
        (lambda: GeometricMedian("told"), "distances is 'told'; expected 'measured' or 'rep"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()


def test_a_cohort_too_small_for_its_bad_clients_ends_the_run_in_a_sentence(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["fit", "--data.path", str(corpus_file), "--partitioner.clients", "6", "--name", "run"]
    words += ["--network", "EarlyFusion", "--network.hidden", "8", "--trainer.max_epochs", "1"]
    assert main([*words, "--aggregator", "Bulyan", "--aggregator.bad", "0.2"]) == 2
    told = capsys.readouterr().err
    assert "aggregator.bad is 0.2, which is 1 of the 6 clients of this round, and Bulyan" in told
    assert "among 7 or more; lower it to less than 0.25" in told
    assert "Traceback" not in told
    assert main([*words, "--aggregator", "MultiKrum", "--overwrite", "true"]) == 0
