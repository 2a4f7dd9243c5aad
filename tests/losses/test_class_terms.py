"""Offsets on logits: what they are in formulas, at their limits, and where they hold."""

import math
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from fedmer.errors import InputError
from fedmer.losses.class_terms import Calibration, ClassTerms, logit_offsets
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.steps import LocalTraining
from tests.federations import federation, same_bits, small_corpus, weights_of
from tests.losses.test_distillation import Case, cases, gradients, quick

CALIBRATIONS = [kind for kind in get_args(Calibration) if kind != "none"]
COUNTS = st.lists(st.integers(0, 30), min_size=2, max_size=5).map(torch.tensor)


def offsets(kind: str, counts: Tensor, everybody: Tensor, strength: float = 1.0) -> Tensor:
    found = logit_offsets(kind, strength, counts, everybody)  # type: ignore[arg-type]
    assert found is not None
    return found


@quick
@given(counts=COUNTS, seed=st.integers(0, 1000))
def test_offsets_make_the_softmax_of_the_papers(counts: Tensor, seed: int) -> None:
    assume(counts.sum() > 0)
    random = torch.Generator().manual_seed(seed)
    everybody = counts + torch.randint(1, 30, counts.shape, generator=random)
    scores = torch.randn(len(counts), generator=random).double().exp()
    local, shared = counts / counts.sum(), everybody / everybody.sum()
    for kind, factor in (
        ("restricted", (counts > 0).double()), ("balanced", local), ("prior", local / shared)
    ):  # fmt: skip
        found = (scores.log() + offsets(kind, counts, everybody)).softmax(dim=-1)
        expected = scores * factor / (scores * factor).sum()
        torch.testing.assert_close(found, expected.to(found.dtype), atol=1e-5, rtol=1e-5)


@quick
@given(counts=COUNTS, strength=st.sampled_from([0.25, 1.0]))
def test_limits(counts: Tensor, strength: float) -> None:
    twice = counts * 2
    for kind in CALIBRATIONS:
        nobody = counts == 0
        assert (offsets(kind, counts, twice, strength)[nobody] == 0).all(), "held by nobody"
        alone = torch.zeros_like(counts)
        assert (offsets(kind, alone, twice, strength) == 0).all(), "a client without an utterance"
        assert logit_offsets(kind, 0.0, counts, twice) is None  # type: ignore[arg-type]
        finite = offsets(kind, counts, twice + 1, strength)
        assert finite.isfinite().all()
        # Noise may have made everybody's count less than the client's own, or negative.
        assert offsets(kind, counts, torch.full_like(counts, -3), strength).isfinite().all()
    assert offsets("prior", counts, twice, strength).abs().max() < 1e-6, "everybody's shares"
    one, other = offsets("balanced", counts, twice), offsets("balanced", 7 * counts, twice)
    torch.testing.assert_close(one, other)
    assert (offsets("restricted", counts, twice, strength)[counts > 0] == 0).all()


def test_a_softened_restriction_counts_absent_classes_in_part() -> None:
    found = offsets("restricted", torch.tensor([1, 0]), torch.tensor([1, 1]), strength=0.75)
    assert found.tolist() == pytest.approx([0.0, math.log(0.25)])


@quick
@given(
    case=cases(),
    kind=st.sampled_from(CALIBRATIONS),
    teacher=st.sampled_from(["fused", "global"]),
    temperature=st.sampled_from([0.5, 8.0]),
    seed=st.integers(0, 1000),
)
def test_gradients_are_finite_and_none_reaches_a_class_that_the_client_lacks(
    case: Case, kind: str, teacher: str, temperature: float, seed: int
) -> None:
    counts = torch.bincount(case.batch.labels[case.batch.labelled], minlength=case.classes)
    assume(counts.sum() > 0)
    absent = counts == 0
    terms = ClassTerms(offsets=offsets(kind, counts, counts + 1))
    loss = SelfDistillation(temperature, distillation=0.0, teacher=teacher)  # type: ignore[arg-type]
    guidance = torch.randn(case.output.logits.shape, generator=torch.Generator().manual_seed(seed))
    value = loss(case.output, case.batch, terms, guidance)
    for name, gradient in gradients(value, case).items():
        assert (gradient[..., absent] == 0).all(), name
    loss.distillation = 1.0
    value = loss(case.output, case.batch, terms, guidance if teacher == "global" else None)
    assert value.isfinite()
    for name, gradient in gradients(value, case).items():
        assert gradient.isfinite().all(), name


@quick
@given(case=cases(labelled=1.0), seed=st.integers(0, 1000))
def test_the_loss_is_the_cross_entropy_of_moved_logits(case: Case, seed: int) -> None:
    batch, counted = case.batch, case.batch.labelled
    assume(counted.any())
    moved = torch.randn(case.classes, generator=torch.Generator().manual_seed(seed))
    loss = SelfDistillation(distillation=0.0)
    expected = F.cross_entropy(
        case.output.logits[batch.labelled] + moved, batch.labels[batch.labelled]
    )
    for name, logits in case.output.students.items():
        counted = batch.labelled & batch.present[name]
        if counted.any():
            expected = expected + F.cross_entropy(logits[counted] + moved, batch.labels[counted])
    found = loss(case.output, batch, ClassTerms(offsets=moved))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"calibration": "balanced", "calibration_strength": -1.0}, "is -1.0; .* of 0 or more"),
        ({"calibration": "prior", "calibration_strength": math.inf}, "is inf; .* of 0 or more"),
        ({"calibration": "balanced", "calibration_strength": math.nan}, "is nan"),
        ({"calibration": "restricted", "calibration_strength": 1.5}, "is 1.5; .* 0 to 1"),
    ],
)
def test_strengths_out_of_range(words: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        SelfDistillation(**words)  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [{"calibration": "prior"}, {"class_weights": "global"}])
def test_counts_that_nobody_told(words: dict[str, str]) -> None:
    loss, own = SelfDistillation(**words), torch.tensor([3, 1])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="needs how often each emotion occurs at all clients"):
        loss.terms(own, torch.zeros(2))


@pytest.mark.parametrize("kind", CALIBRATIONS)
def test_predictions_are_never_moved(kind: str) -> None:
    plain = federation(FedAvg())
    moved = federation(FedAvg(), loss=SelfDistillation(calibration=kind))  # type: ignore[arg-type]
    excerpts = plain.trainer.data[0].train
    before = plain.trainer.evaluate(excerpts, plain.knowledge())
    moved.trainer.client.class_terms = moved.trainer.class_terms[0]
    assert moved.trainer.class_terms[0].offsets is not None
    assert moved.trainer.evaluate(excerpts, moved.knowledge()) == before


@pytest.mark.parametrize("teacher", ["fused", "global"])
def test_clients_have_their_own_offsets_with_any_executor(teacher: str) -> None:
    def trained(executor: Inline | Workers, calibration: str) -> dict[str, Tensor]:
        loss = SelfDistillation(teacher=teacher, calibration=calibration)  # type: ignore[arg-type]
        training = LocalTraining(batch_size=2)
        loop = federation(FedAvg(), loss=loss, executor=executor, training=training)
        for number in range(2):
            loop.run_round(number)
        loop.executor.close()
        return weights_of(loop)

    one = trained(Inline(), "balanced")
    assert same_bits(one, trained(Workers(2), "balanced"))
    assert not same_bits(one, trained(Inline(), "none"))


def test_offsets_are_those_of_the_clients_own_counts() -> None:
    corpus = small_corpus()
    loop = federation(FedAvg(), corpus, loss=SelfDistillation(calibration="prior"))
    classes = corpus.shape.classes
    counts = {i: data.class_counts(classes) for i, data in loop.trainer.data.items()}
    everybody = torch.stack(list(counts.values())).sum(dim=0)
    for client, terms in loop.trainer.class_terms.items():
        assert terms.offsets is not None
        assert torch.equal(terms.offsets, offsets("prior", counts[client], everybody))
    assert len({tuple(own.offsets.tolist()) for own in loop.trainer.class_terms.values()}) > 1
