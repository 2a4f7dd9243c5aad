"""Who takes part: what holds of every rule, and of each."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.selector import Selector
from fedmer.errors import InputError
from fedmer.plugins.registry import plugins
from fedmer.plugins.selectors.all import All
from fedmer.plugins.selectors.poisson import Poisson
from fedmer.plugins.selectors.top_volume import TopVolume
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.plugins.selectors.volume_proportional import VolumeProportional

SIZES = st.lists(st.integers(0, 5), min_size=1, max_size=12)
PARTS = st.floats(0, 1, exclude_min=True)
SELECTORS = st.one_of(
    st.just(All()),
    st.builds(Uniform, PARTS),
    st.builds(Poisson, PARTS),
    st.builds(VolumeProportional, PARTS),
    st.builds(TopVolume, PARTS, PARTS),
)
SEEDS = st.integers(0, 1000)


def test_every_built_in_selector_is_tested_here() -> None:
    tested = {"All", "Poisson", "TopVolume", "Uniform", "VolumeProportional"}
    assert tested == {p.name for p in plugins("selectors") if p.package == "fedmer"}


@settings(max_examples=200, deadline=None)
@given(selector=SELECTORS, round=st.integers(0, 1000), sizes=SIZES, seed=SEEDS)
def test_a_choice_is_ascending_ids(
    selector: Selector, round: int, sizes: list[int], seed: int
) -> None:
    chosen = selector.select(round, sizes, seed)
    assert chosen or selector.sampling(len(sizes)).kind == "poisson"
    assert chosen == sorted(set(chosen))
    assert all(type(client) is int and 0 <= client < len(sizes) for client in chosen)
    assert selector.select(round, tuple(sizes), seed) == chosen


@settings(max_examples=100, deadline=None)
@given(
    make=st.sampled_from([Uniform, VolumeProportional, lambda part: TopVolume(1.0, part)]),
    percent=st.integers(1, 100),
    sizes=SIZES,
    seed=SEEDS,
)
def test_the_fraction_is_rounded_up_exactly(
    make: Callable[[float], Selector], percent: int, sizes: list[int], seed: int
) -> None:
    expected = -(-percent * len(sizes) // 100)
    assert len(make(percent / 100).select(0, sizes, seed)) == expected


@pytest.mark.parametrize("selector", [Uniform(), VolumeProportional(), TopVolume()])
def test_rounds_and_seeds_differ(selector: Selector) -> None:
    sizes = list(range(1, 31))
    assert len({tuple(selector.select(r, sizes, 0)) for r in range(10)}) > 5
    assert len({tuple(selector.select(0, sizes, s)) for s in range(10)}) > 5


def test_the_fraction_is_not_rounded_up_for_a_rounding_error() -> None:
    assert len(Uniform(0.28).select(0, [1] * 25, 0)) == 7


@settings(max_examples=30, deadline=None)
@given(selector=SELECTORS, sizes=SIZES, seed=SEEDS)
def test_how_cohorts_are_drawn_is_as_it_says(
    selector: Selector, sizes: list[int], seed: int
) -> None:
    drawn = selector.sampling(len(sizes))
    if drawn is None:
        return
    found = [len(selector.select(round, sizes, seed)) for round in range(400)]
    assert drawn.clients == len(sizes)
    if drawn.kind == "poisson":
        spread = (len(sizes) * drawn.probability * (1 - drawn.probability) / 400) ** 0.5
        assert abs(np.mean(found) - drawn.cohort) <= 5 * spread
    else:
        assert set(found) == {drawn.cohort}
        assert (drawn.kind == "all") == (drawn.cohort == drawn.clients)


def test_poisson_draws_each_client_by_itself() -> None:
    """Of two clients, both are there as often as chance has it, and so is neither."""
    rounds = [Poisson(0.3).select(round, [1, 9], 0) for round in range(4000)]
    assert abs(rounds.count([0, 1]) / 4000 - 0.09) < 0.02
    assert abs(rounds.count([]) / 4000 - 0.49) < 0.03


def test_all_is_everybody() -> None:
    assert All().select(3, [4, 4, 1], 0) == [0, 1, 2]


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, fraction=PARTS, online=PARTS, seed=SEEDS)
def test_top_volume_takes_the_largest_of_those_online(
    sizes: list[int], fraction: float, online: float, seed: int
) -> None:
    there = TopVolume(online, 1.0).select(0, sizes, seed)
    chosen = TopVolume(online, fraction).select(0, sizes, seed)
    by_size = sorted(there, key=lambda client: (-sizes[client], client))
    assert chosen == sorted(by_size[: len(chosen)])


def test_top_volume_breaks_ties_by_id() -> None:
    assert TopVolume(online=1.0, fraction=0.5).select(0, [3, 7, 3, 3, 3, 3], 0) == [0, 1, 2]


def test_top_volume_with_all_online_never_lets_the_smaller_half_train() -> None:
    sizes = [1, 2, 3, 4]
    assert {tuple(TopVolume(1.0, 0.5).select(r, sizes, 0)) for r in range(50)} == {(2, 3)}
    ever = {client for r in range(50) for client in TopVolume().select(r, sizes, 0)}
    assert {1, 2, 3} <= ever


def test_top_volume_with_nobody_online_considers_all() -> None:
    assert TopVolume(online=1e-12, fraction=0.5).select(0, [1, 2, 3, 4], 0) == [2, 3]


def test_volume_proportional_is_proportional_to_volume() -> None:
    sizes, rounds = [1, 2, 3, 4], 4000
    drawn = [VolumeProportional(0.25).select(r, sizes, 0)[0] for r in range(rounds)]
    assert np.bincount(drawn) / rounds == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.03)


def test_volume_proportional_leaves_those_without_data_for_last() -> None:
    for r in range(20):
        assert VolumeProportional(0.5).select(r, [0, 1, 0, 2], 0) == [1, 3]
    assert VolumeProportional(0.5).select(0, [0, 0], 0) == [0]


@pytest.mark.parametrize("selector", [All(), Uniform(), VolumeProportional(), TopVolume()])
def test_nobody_to_choose_from_is_refused(selector: Selector) -> None:
    with pytest.raises(InputError, match="no clients"):
        selector.select(0, [], 0)


@pytest.mark.parametrize("make", [Uniform, VolumeProportional, TopVolume])
@pytest.mark.parametrize("value", [0, -0.5, 1.5, float("nan")])
def test_a_part_outside_0_to_1_is_refused(make: Callable[..., Selector], value: float) -> None:
    with pytest.raises(InputError, match=rf"^fraction is {value}; expected a number in \(0, 1\]"):
        make(fraction=value)


def test_online_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"online is 0; expected a number in \(0, 1\]"):
        TopVolume(online=0)
