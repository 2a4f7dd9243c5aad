"""What distance weighting promises (METHOD 3.6), over random cohorts."""

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.losses import prototype
from fedmer.plugins.aggregators._distance_weights import (
    DistanceWeights,
    Radius,
    Weighting,
    weighted_means,
)
from fedmer.prototypes import Prototypes
from tests.aggregators.rules import SEEDS, generator

many = settings(max_examples=150, deadline=None)
FORMS: list[tuple[Weighting, Radius]] = [
    ("distance", "envelope"), ("distance", "clip"), ("softmax", "envelope"), ("counts", "envelope")
]  # fmt: skip
EVERY_FORM: list[tuple[Weighting, Radius]] = [*FORMS, ("robust", "envelope")]


@dataclass(frozen=True)
class Cohort:
    """What a server holds when it weighs: random prototypes of random clients."""

    local: Tensor
    counts: Tensor
    previous: Prototypes | None

    def weights(self, rule: DistanceWeights) -> Tensor:
        if rule.compares:
            return rule(rule.from_middle(self.local, self.counts), self.counts, self.previous)
        apart = None if self.previous is None else rule.apart(self.local, self.previous)
        return rule(apart, self.counts, self.previous)


def rule_of(
    form: tuple[Weighting, Radius] = ("distance", "envelope"),
    gamma: float = 0.0,
    epsilon: float = 1e-3,
    distance: prototype.Distance = "euclidean",
) -> DistanceWeights:
    return DistanceWeights(*form, epsilon, gamma, 1.0, distance)


@st.composite
def cohorts(draw: st.DrawFn, first_rounds: bool = True) -> Cohort:
    """Some classes held by nobody, some known from before, spreads from 0 to far outliers."""
    random = generator(draw(SEEDS))
    clients, classes, width = draw(st.integers(1, 6)), draw(st.integers(1, 4)), 3
    spread = draw(st.sampled_from([0.0, 0.1, 1.0, 100.0]))
    centre = torch.randn(classes, width, generator=random, dtype=torch.float64)
    noise = torch.randn(clients, classes, width, generator=random, dtype=torch.float64)
    counts = torch.randint(1, 50, (clients, classes), generator=random)
    counts *= torch.rand(clients, classes, generator=random) < 0.7
    local = (centre + spread * noise) * (counts > 0)[..., None]
    if first_rounds and draw(st.booleans()):
        return Cohort(local, counts, None)
    collapsed = draw(st.booleans())
    previous = torch.zeros_like(centre) + centre[:1] if collapsed else centre
    known = torch.rand(classes, generator=random) < 0.8
    return Cohort(local, counts, Prototypes(previous, known))


forms = st.sampled_from(FORMS)
every_form = st.sampled_from(EVERY_FORM)
gammas = st.sampled_from([0.0, 0.5, 1.0])


@many
@given(
    cohort=cohorts(), form=every_form, gamma=gammas, kind=st.sampled_from(["euclidean", "squared"])
)
def test_weights_are_shares_of_those_who_hold_a_class(
    cohort: Cohort, form: tuple[Weighting, Radius], gamma: float, kind: prototype.Distance
) -> None:
    weights = cohort.weights(rule_of(form, gamma, distance=kind))
    held = cohort.counts > 0
    assert weights.isfinite().all()
    assert (weights >= 0).all()
    assert (weights[~held] == 0).all()
    torch.testing.assert_close(weights.sum(dim=0), held.any(dim=0).double())


@many
@given(cohort=cohorts(), form=every_form, gamma=gammas)
def test_new_prototypes_lie_between_those_that_came_and_absent_classes_stay(
    cohort: Cohort, form: tuple[Weighting, Radius], gamma: float
) -> None:
    held = cohort.counts > 0
    nothing = Prototypes(torch.zeros(cohort.local.shape[1:]).double(), torch.zeros_like(held[0]))
    means = weighted_means(cohort.local, cohort.weights(rule_of(form, gamma)))
    old = cohort.previous or nothing
    new = old.joined_by(means, held.any(dim=0))
    fresh = new.means
    assert torch.equal(new.known, old.known | held.any(dim=0))
    for k in range(held.shape[1]):
        if held[:, k].any():
            rows = cohort.local[held[:, k], k]
            assert (fresh[k] >= rows.amin(dim=0)).all()
            assert (fresh[k] <= rows.amax(dim=0)).all()
        else:
            assert torch.equal(fresh[k], old.means[k])


@many
@given(cohort=cohorts(), form=every_form, gamma=gammas, data=st.data())
def test_the_order_of_clients_is_immaterial(
    cohort: Cohort, form: tuple[Weighting, Radius], gamma: float, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(cohort.local))))
    rule = rule_of(form, gamma)
    shuffled = replace(cohort, local=cohort.local[order], counts=cohort.counts[order])
    weights, other = cohort.weights(rule), shuffled.weights(rule)
    torch.testing.assert_close(other, weights[order])
    torch.testing.assert_close(
        weighted_means(shuffled.local, other),
        weighted_means(cohort.local, weights),
    )


@many
@given(
    cohort=cohorts(),
    form=st.sampled_from([FORMS[0], FORMS[1], FORMS[3], EVERY_FORM[4]]),
    gamma=gammas,
)
def test_weights_do_not_depend_on_the_origin_or_the_unit(
    cohort: Cohort, form: tuple[Weighting, Radius], gamma: float
) -> None:
    """The softmax is left out: its temperature has the unit of a distance."""
    shift, scale = torch.tensor([3.0, -2.0, 0.5]), 4.0
    old = cohort.previous
    previous = None if old is None else Prototypes(scale * old.means + shift, old.known)
    moved = replace(cohort, local=scale * cohort.local + shift, previous=previous)
    rule = rule_of(form, gamma)
    weights = cohort.weights(rule)
    torch.testing.assert_close(moved.weights(rule), weights, rtol=1e-5, atol=1e-7)
    held = (weights > 0).any(dim=0)
    torch.testing.assert_close(
        weighted_means(moved.local, weights)[held],
        (scale * weighted_means(cohort.local, weights) + shift)[held],
    )


@many
@given(cohort=cohorts(first_rounds=False), form=st.sampled_from(FORMS[:3]))
def test_who_is_nearer_counts_no_less(cohort: Cohort, form: tuple[Weighting, Radius]) -> None:
    weights = cohort.weights(rule_of(form))
    assert cohort.previous is not None
    apart = (cohort.local - cohort.previous.means).norm(dim=-1)
    for k in range(len(cohort.previous.known)):
        if cohort.previous.known[k]:
            holders = (cohort.counts[:, k] > 0).nonzero()[:, 0]
            in_order = weights[holders[apart[holders, k].argsort()], k]
            assert (in_order.diff() <= 1e-12).all()


@many
@given(
    cohort=cohorts(first_rounds=False),
    form=forms,
    radius=st.sampled_from([0.0, 0.1, 1.0, 50.0]),
    gamma=gammas,
)
def test_at_equal_distances_the_counts_alone_decide(
    cohort: Cohort, form: tuple[Weighting, Radius], radius: float, gamma: float
) -> None:
    """With gamma 0 that is FedProto's plain mean, with gamma 1 a mean over utterances."""
    held = cohort.counts > 0
    assert cohort.previous is not None
    drawn = torch.randn(cohort.local.shape, generator=generator(0), dtype=torch.float64)
    directions = torch.nn.functional.normalize(drawn, dim=-1)
    local = (cohort.previous.means + radius * directions) * held[..., None]
    known = torch.ones(held.shape[1], dtype=torch.bool)
    even = replace(cohort, local=local, previous=Prototypes(cohort.previous.means, known))
    by_count = cohort.counts.double().pow(gamma) * held
    expected = by_count / by_count.sum(dim=0).clamp(min=1e-300)
    torch.testing.assert_close(even.weights(rule_of(form, gamma)), expected, rtol=1e-6, atol=1e-9)


@many
@given(cohort=cohorts(), form=forms, gamma=gammas)
def test_without_a_previous_prototype_the_counts_alone_decide(
    cohort: Cohort, form: tuple[Weighting, Radius], gamma: float
) -> None:
    held = cohort.counts > 0
    by_count = cohort.counts.double().pow(gamma) * held
    expected = by_count / by_count.sum(dim=0).clamp(min=1e-300)
    unknown = Prototypes(torch.zeros(held.shape[1], 3), torch.zeros(held.shape[1]) > 0)
    for previous in (None, unknown):
        first = replace(cohort, previous=previous)
        torch.testing.assert_close(first.weights(rule_of(form, gamma)), expected)


@many
@given(cohort=cohorts(first_rounds=False), form=st.sampled_from(FORMS[:3]))
def test_another_class_matters_only_through_the_margin(
    cohort: Cohort, form: tuple[Weighting, Radius]
) -> None:
    """Whatever clients hold of class 1, class 0 is weighed alike."""
    if cohort.local.shape[1] > 1:
        local, counts = cohort.local.clone(), cohort.counts.clone()
        local[:, 1], counts[:, 1] = 7.0, 3
        other = replace(cohort, local=local, counts=counts)
        rule = rule_of(form)
        torch.testing.assert_close(other.weights(rule)[:, 0], cohort.weights(rule)[:, 0])


def test_two_clients_worked_out_by_hand() -> None:
    """Distances 1 and 3, margin 2: R = 3, scores 2 + 3e and 3e with e = 0.1."""
    previous = Prototypes(torch.tensor([[0.0, 0.0], [2.0, 0.0]]), torch.tensor([True, True]))
    local = torch.tensor([[[0.0, 1.0], [2.0, 0.0]], [[0.0, 3.0], [2.0, 0.0]]])
    counts = torch.tensor([[4, 4], [2, 0]])
    near = Cohort(local, counts, previous).weights(rule_of(epsilon=0.1))
    torch.testing.assert_close(near[:, 0], torch.tensor([2.3, 0.3]).double() / 2.6)
    torch.testing.assert_close(near[:, 1], torch.tensor([1.0, 0.0]).double())
    counted = Cohort(local, counts, previous).weights(rule_of(epsilon=0.1, gamma=1.0))
    torch.testing.assert_close(counted[:, 0], torch.tensor([9.2, 0.6]).double() / 9.8)
    clipped = Cohort(local, counts, previous).weights(rule_of(("distance", "clip")))
    assert clipped[:, 0].tolist() == [1.0, 0.0]
    soft = Cohort(local, counts, previous).weights(rule_of(("softmax", "envelope")))
    assert float(soft[0, 0] / soft[1, 0]) == pytest.approx(torch.e**2, rel=1e-6)
    fresh = weighted_means(local, near)
    torch.testing.assert_close(fresh[0], torch.tensor([0.0, (2.3 * 1 + 0.3 * 3) / 2.6]))


def test_a_client_with_very_many_turns_and_half_precision_stay_finite() -> None:
    random = generator(0)
    local = torch.randn(3, 2, 4, generator=random).half()
    counts = torch.tensor([[10**9, 1], [1, 1], [0, 0]])
    previous = Prototypes(torch.randn(2, 4).half(), torch.tensor([True, True]))
    weights = Cohort(local, counts, previous).weights(rule_of(gamma=1.0))
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(dim=0), torch.ones(2).double())
    assert weighted_means(local, weights).dtype == torch.float16


def test_robust_weights_see_a_client_whose_labels_are_shifted_and_not_who_has_few_utterances() -> (
    None
):
    random = generator(0)
    counts = torch.randint(2, 40, (20, 3), generator=random)
    counts[0] = 2
    means = torch.tensor([[0.0, 0, 0, 0], [2.0, 0, 0, 0], [0.0, 2, 0, 0]]).double()
    noise = torch.randn(20, 3, 4, generator=random).double() / counts.sqrt()[..., None]
    local = means + noise
    local[15:] = means.roll(1, dims=0) + noise[15:]
    far = Prototypes(torch.full((3, 4), 9.0), torch.ones(3, dtype=torch.bool))

    def share(weighting: Weighting, tau: float, of: slice) -> float:
        rule = DistanceWeights(weighting, "envelope", 0.1, 1.0, tau, "euclidean")
        return float(Cohort(local, counts, far).weights(rule)[of].sum() / 3)

    bad, small = slice(15, 20), slice(0, 1)
    assert share("robust", 0.25, bad) < 0.02 < 0.15 < share("counts", 1.0, bad)
    assert share("robust", 0.25, bad) < 0.2 * share("distance", 1.0, bad)
    assert share("robust", 0.25, small) > 0.5 * share("counts", 1.0, small)
    rule = DistanceWeights("robust", "envelope", 0.1, 1.0, 0.25, "euclidean")
    first, later = (Cohort(local, counts, old).weights(rule) for old in (None, far))
    assert torch.equal(first, later)


def test_robust_weights_of_three_clients_worked_out_by_hand() -> None:
    """Prototypes 0, 1, 4 of 4, 4, 1 utterances: the median is 1, z is 2, 0, 3 and its median 2."""
    local, counts = torch.tensor([0.0, 1.0, 4.0]).view(3, 1, 1), torch.tensor([[4], [4], [1]])
    rule = DistanceWeights("robust", "envelope", 0.1, 0.0, 0.5, "euclidean")
    scores = torch.tensor([-2.0, 0.0, -3.0]).double().exp()
    found = Cohort(local, counts, None).weights(rule)[:, 0]
    torch.testing.assert_close(found, scores / scores.sum())
