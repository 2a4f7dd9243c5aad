"""What rounds of noise cost: against closed forms, and against another accountant where it is."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from fedmer.errors import InputError
from fedmer.plugins.privacy._accounting import (
    Rounds,
    and_one,
    epsilon_of,
    least_multiplier,
    pack,
    unpack,
)

pytest.importorskip("dp_accounting")
DELTA = 1e-5


def exact(multiplier: float, delta: float) -> float:
    """Of one Gaussian mechanism (B. Balle and Y.-X. Wang, ICML 2018, theorem 8)."""

    def excess(epsilon: float) -> float:
        half, far = 1 / (2 * multiplier), epsilon * multiplier
        return norm.cdf(half - far) - math.exp(epsilon) * norm.cdf(-half - far) - delta

    return brentq(excess, 0, 200) if excess(0) > 0 else 0.0


def renyi(multiplier: float, rounds: int, delta: float) -> float:
    """The least over orders of the Renyi bound of the Gaussian mechanism, converted by C. Canonne,
    G. Kamath and T. Steinke (2020), proposition 12."""
    orders = [1 + x / 100 for x in range(1, 20000)]
    return min(
        rounds * a / (2 * multiplier**2) + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
        for a in orders
    )


@settings(max_examples=30, deadline=None)
@given(multiplier=st.floats(2, 50), count=st.integers(1, 100))
def test_everybody_in_every_round_is_one_gaussian(multiplier: float, count: int) -> None:
    """Never below what holds exactly, and as near as Renyi divergences come."""
    found = epsilon_of((Rounds("all", 10, 10, multiplier, count=count),), DELTA)
    assert found >= exact(multiplier / math.sqrt(count), DELTA) - 1e-6
    least = renyi(multiplier, count, DELTA)
    assert least - 1e-3 <= found <= 1.05 * least + 0.02


def test_two_messages_a_round_are_two_rounds() -> None:
    one = epsilon_of((Rounds("all", 10, 10, 3.0, messages=2, count=5),), DELTA)
    assert one == epsilon_of((Rounds("all", 10, 10, 3.0, messages=1, count=10),), DELTA)


def test_a_smaller_share_tells_less_and_all_of_them_is_everybody() -> None:
    everybody = epsilon_of((Rounds("all", 100, 100, 2.0, count=20),), DELTA)
    shares = [epsilon_of((Rounds("poisson", 100, n, 2.0, count=20),), DELTA) for n in (10, 30, 90)]
    assert shares == sorted(shares)
    assert shares[-1] < everybody
    assert epsilon_of((Rounds("poisson", 100, 99.999, 2.0, count=20),), DELTA) == pytest.approx(
        everybody, rel=0.02
    )


def test_a_small_fixed_cohort_gains_from_the_draw_and_a_large_one_loses_nothing() -> None:
    everybody = epsilon_of((Rounds("all", 1000, 1000, 4.0, count=20),), DELTA)
    found = [
        epsilon_of((Rounds("fixed", 1000, n, 4.0, count=20),), DELTA) for n in (10, 100, 500, 999)
    ]
    assert found[0] < found[1] < everybody
    assert found[2] == found[3] == everybody
    assert found[0] > epsilon_of((Rounds("poisson", 1000, 10, 4.0, count=20),), DELTA)


@pytest.mark.parametrize(("share", "multiplier", "count"), [(0.1, 1.0, 50), (0.3, 3.0, 200)])
def test_poisson_is_what_privacy_losses_say(share: float, multiplier: float, count: int) -> None:
    """Renyi divergences against the distribution of the loss itself, which is nearly exact."""
    import dp_accounting
    from dp_accounting.pld import PLDAccountant

    event = dp_accounting.PoissonSampledDpEvent(share, dp_accounting.GaussianDpEvent(multiplier))
    nearly = PLDAccountant(dp_accounting.NeighboringRelation.REPLACE_SPECIAL)
    least = nearly.compose(event, count).get_epsilon(DELTA)
    found = epsilon_of((Rounds("poisson", 1000, 1000 * share, multiplier, count=count),), DELTA)
    assert least <= found <= 1.25 * least


def test_opacus_says_the_same() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
    other = accountants.RDPAccountant()
    for _ in range(50):
        other.step(noise_multiplier=1.5, sample_rate=0.2)
    found = epsilon_of((Rounds("poisson", 100, 20, 1.5, count=50),), DELTA)
    assert found == pytest.approx(other.get_epsilon(DELTA), rel=0.02)


@settings(max_examples=15, deadline=None)
@given(target=st.floats(0.5, 20), count=st.integers(1, 100))
def test_the_least_noise_is_enough_and_hardly_less_would_be(target: float, count: int) -> None:
    def rounds(multiplier: float) -> tuple[Rounds, ...]:
        return (Rounds("all", 20, 20, multiplier, count=count),)

    found = least_multiplier(rounds, target, DELTA)
    assert epsilon_of(rounds(found), DELTA) <= target
    assert epsilon_of(rounds(found * 0.997), DELTA) > target


def test_rounds_are_counted_apart_where_they_differ() -> None:
    one, other = Rounds("all", 4, 4, 1.0), Rounds("all", 4, 4, 2.0)
    spent: tuple[Rounds, ...] = ()
    for more in (one, one, other, one):
        spent = and_one(spent, more)
    assert [rounds.count for rounds in spent] == [2, 1, 1]
    assert unpack(pack(spent)) == spent
    assert epsilon_of(spent, DELTA) > epsilon_of(spent[:2], DELTA) > 0
    assert epsilon_of((), DELTA) == 0


@pytest.mark.parametrize("spent", [torch.zeros(2), torch.full((1, 6), 9.0), torch.zeros(1, 6)])
def test_a_checkpoint_that_says_something_else_is_a_sentence(spent: torch.Tensor) -> None:
    with pytest.raises(InputError, match="does not say what its rounds have spent"):
        unpack(spent)


def test_cohorts_drawn_in_two_ways_are_accounted_without_the_draw() -> None:
    mixed = epsilon_of((Rounds("poisson", 40, 4, 2.0), Rounds("fixed", 40, 4, 2.0)), DELTA)
    assert mixed == epsilon_of((Rounds("all", 40, 4, 2.0, count=2),), DELTA)
