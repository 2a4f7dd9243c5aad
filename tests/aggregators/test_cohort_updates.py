"""Rules that see every update, block by block."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmer import cohort_updates
from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts import Executor, ServerState
from fedmer.messages import Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.weights import FlatWeights
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import federation, same_bits, weights_of


class Median(FedAvg):
    """The median of every number."""

    sees_updates = True

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        return updates.combine(lambda block: block.median(dim=0).values)


class Nearest(FedAvg):
    """The client that is nearest to all others: two passes over the blocks."""

    sees_updates = True

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        assert list(weights) == sorted(updates.clients)
        apart = sum(torch.cdist(block, block).square() for block in updates.blocks())
        assert isinstance(apart, torch.Tensor)
        best = int(apart.sum(dim=1).argmin())
        return updates.combine(lambda block: block[best])


def random_update(random: torch.Generator) -> FlatWeights:
    return FlatWeights.of(
        {
            "w": torch.randn(3, 5, generator=random),
            "d": torch.randn(4, generator=random, dtype=torch.float64),
            "seen": torch.randint(0, 9, (2,), generator=random),
            "b": torch.randn(2, generator=random),
        }
    )


@quick
@given(seed=SEEDS, clients=st.integers(1, 6), block=st.integers(1, 40))
def test_blocks_hold_every_number_once_and_no_more_than_allowed(
    seed: int, clients: int, block: int
) -> None:
    random = generator(seed)
    cohort = {3 * i: random_update(random) for i in range(clients)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohort_updates, "BLOCK", block)
        updates = CohortUpdates(cohort)
        blocks = list(updates.blocks())
        median = updates.combine(lambda numbers: numbers.median(dim=0).values)
    assert all(part.numel() <= max(block, clients) for part in blocks)
    assert sum(part.shape[1] for part in blocks) == 15 + 4 + 2
    for name, value in median.items():
        stacked = torch.stack([own[name] for own in cohort.values()])
        naive = stacked.median(dim=0).values if value.is_floating_point() else stacked.amax(dim=0)
        assert torch.equal(value, naive), name
        assert value.dtype == stacked.dtype


@pytest.mark.parametrize("rule", [Median, Nearest])
def test_every_executor_gives_the_same_bits(rule: type[FedAvg]) -> None:
    executors: list[Executor] = [Inline(), Inline(spool_gb=0), Workers(2)]
    found = []
    for executor in executors:
        loop = federation(rule(), executor=executor)
        for number in range(2):
            loop.run_round(number)
        executor.close()
        found.append(weights_of(loop))
    assert same_bits(found[0], found[1])
    assert same_bits(found[0], found[2])
    assert not same_bits(found[0], weights_of(federation(FedAvg())))


def test_a_rule_that_sees_updates_and_does_nothing_with_them_says_so() -> None:
    class Blind(FedAvg):
        sees_updates = True

    with pytest.raises(NotImplementedError, match="Blind sees updates and does not combine them"):
        federation(Blind()).run_round(0)
