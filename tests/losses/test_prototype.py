"""Class means, margins and the contrastive term of equation 9."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.losses.prototype import class_sums, contrastive, distances, margins

quick = settings(max_examples=40, deadline=None)
SEEDS = st.integers(0, 1000)
KINDS = st.sampled_from(["euclidean", "squared", "cosine"])


def some(seed: int, classes: int, width: int = 3) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings, labels, prototypes and which are known (at least one)."""
    random = torch.Generator().manual_seed(seed)
    known = torch.rand(classes, generator=random) < 0.7
    known[seed % classes] = True
    return (
        torch.randn(7, width, generator=random, dtype=torch.float64),
        torch.randint(0, classes, (7,), generator=random),
        torch.randn(classes, width, generator=random, dtype=torch.float64),
        known,
    )


@settings(max_examples=25, deadline=None)
@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 4)),
    classes=st.integers(1, 5),
    share=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 1000),
)
def test_class_sums_are_those_of_a_loop(
    size: tuple[int, int, int], classes: int, share: float, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    embeddings = torch.randn(size, generator=random)
    counted = torch.rand(size[:2], generator=random) < share
    labels = torch.randint(0, classes, size[:2], generator=random).masked_fill(~counted, -1)
    sums, counts = class_sums(embeddings, labels, counted, classes)
    expected, numbers = torch.zeros(classes, size[2]), [0] * classes
    for row, label in zip(embeddings.flatten(0, 1), labels.flatten().tolist(), strict=True):
        if label != -1:
            expected[label] += row
            numbers[label] += 1
    torch.testing.assert_close(sums, expected)
    assert counts.tolist() == numbers
    assert counts.dtype == torch.int64


def apart(one: Tensor, other: Tensor, kind: str) -> float:
    """A distance of two vectors, computed another way."""
    if kind == "cosine":
        return 1 - float(one @ other / (one.norm() * other.norm()))
    return float((one - other).norm()) ** (2 if kind == "squared" else 1)


@quick
@given(seed=SEEDS, classes=st.integers(1, 5), kind=KINDS, floor=st.sampled_from([0.0, 1.5]))
def test_the_term_is_that_of_a_loop(seed: int, classes: int, kind: str, floor: float) -> None:
    rows, labels, prototypes, known = some(seed, classes)
    found = contrastive(rows, labels, prototypes, known, kind, floor)  # type: ignore[arg-type]
    for row, label, value in zip(rows, labels.tolist(), found.tolist(), strict=True):
        rivals = [k for k in range(classes) if known[k] and k != label]
        expected = 0.0
        if known[label]:
            expected = apart(row, prototypes[label], kind)
            margin = min((apart(prototypes[label], prototypes[k], kind) for k in rivals), default=0)
            for k in rivals:
                expected += max(0.0, max(margin, floor) - apart(row, prototypes[k], kind))
        assert value == pytest.approx(expected, abs=1e-9)


@quick
@given(seed=SEEDS, classes=st.integers(1, 5), more=st.floats(0.01, 3))
def test_a_prototype_is_a_minimiser_up_to_its_margin_and_no_further(
    seed: int, classes: int, more: float
) -> None:
    _, _, prototypes, known = some(seed, classes)
    every = torch.arange(classes)
    at_home = contrastive(prototypes, every, prototypes, known)
    assert (at_home == 0).all()
    reach = margins(prototypes, known)
    alone = known.sum() < 2
    for label in range(classes):
        if known[label] and not alone:
            floor = float(reach[label]) + more
            beyond = contrastive(prototypes, every, prototypes, known, floor=floor)
            assert beyond[label] > 0


@quick
@given(seed=SEEDS, classes=st.integers(2, 5))
def test_the_term_is_never_negative_and_moves_with_the_space(seed: int, classes: int) -> None:
    rows, labels, prototypes, known = some(seed, classes)
    value = contrastive(rows, labels, prototypes, known)
    assert (value >= 0).all()
    random = torch.Generator().manual_seed(seed)
    turn, _ = torch.linalg.qr(torch.randn(3, 3, generator=random, dtype=torch.float64))
    shift = torch.randn(3, generator=random, dtype=torch.float64)
    moved = contrastive(rows @ turn + shift, labels, prototypes @ turn + shift, known)
    torch.testing.assert_close(moved, value)


@quick
@given(seed=SEEDS, classes=st.integers(2, 5))
def test_the_distance_of_a_mean_is_at_most_the_mean_distance(seed: int, classes: int) -> None:
    rows, _, prototypes, _ = some(seed, classes)
    of_mean = distances(rows.mean(dim=0), prototypes)
    assert (of_mean <= distances(rows, prototypes).mean(dim=0) + 1e-12).all()


@pytest.mark.parametrize("kind", ["euclidean", "squared", "cosine"])
def test_gradients_are_finite_at_the_prototype_and_at_zero(kind: str) -> None:
    prototypes = torch.tensor([[1.0, 2.0], [0.0, 0.0], [1.0, 2.0]])
    known = torch.ones(3, dtype=torch.bool)
    rows = torch.tensor([[1.0, 2.0], [0.0, 0.0]], requires_grad=True)
    term = contrastive(rows, torch.tensor([0, 1]), prototypes, known, kind)  # type: ignore[arg-type]
    torch.autograd.backward(term.sum())
    assert rows.grad is not None
    assert rows.grad.isfinite().all()


def test_margins_carry_no_gradient_and_a_lone_class_has_no_rival() -> None:
    prototypes = torch.randn(3, 2, requires_grad=True)
    known = torch.tensor([True, False, False])
    reach = margins(prototypes, known)
    assert not reach.requires_grad
    assert reach[0] == torch.inf
    rows = torch.randn(4, 2)
    found = contrastive(rows, torch.tensor([0, 0, 1, 2]), prototypes, known)
    torch.testing.assert_close(found[:2], (rows[:2] - prototypes[0]).norm(dim=1))
    assert found[2:].tolist() == [0, 0]
