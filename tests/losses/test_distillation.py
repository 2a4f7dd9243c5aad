"""The loss of SDT against torch's own functions on the rows that count."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED
from fedmer.errors import InputError
from fedmer.losses.class_terms import ClassTerms, inverse_frequencies
from fedmer.losses.distillation import SelfDistillation, cross_entropy

quick = settings(max_examples=25, deadline=None)


@dataclasses.dataclass
class Case:
    """What a network said of a batch, and the batch; everything that a loss looks at."""

    output: NetworkOutput
    batch: Batch
    classes: int

    @property
    def logits(self) -> dict[str, Tensor]:
        return {"teacher": self.output.logits, **self.output.students}


@st.composite
def cases(draw: st.DrawFn, students: int | None = None, labelled: float = 0.6) -> Case:
    """Random logits, small or huge; labels outside M are any number that a label could be."""
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    size = (draw(st.integers(1, 3)), draw(st.integers(1, 5)))
    classes = draw(st.integers(2, 5))
    count = draw(st.integers(0, 3)) if students is None else students
    scale = draw(st.sampled_from([1.0, 30.0]))

    def mask(share: float) -> Tensor:
        return torch.rand(size, generator=random) < share

    def logits() -> Tensor:
        return (scale * torch.randn(*size, classes, generator=random)).requires_grad_()

    context = mask(0.9)
    labels = torch.randint(UNLABELLED, classes, size, generator=random)
    batch = Batch(
        features={},
        present={f"m{i}": mask(0.7) & context for i in range(count)},
        context=context,
        labelled=mask(labelled) & context & (labels != UNLABELLED),
        labels=labels,
        roles=torch.zeros(size, dtype=torch.int64),
        positions=torch.zeros(size, dtype=torch.int64),
    )
    output = NetworkOutput(logits(), {f"m{i}": logits() for i in range(count)})
    return Case(output, batch, classes)


def by_torch(loss: SelfDistillation, case: Case, class_weights: Tensor | None) -> Tensor:
    """The same loss on flattened labelled rows."""
    batch, temperature = case.batch, loss.temperature

    def entropy(logits: Tensor, counted: Tensor) -> Tensor:
        if not counted.any():
            return logits.new_zeros(())
        return F.cross_entropy(logits[counted], batch.labels[counted], class_weights)

    total = loss.task * entropy(case.output.logits, batch.labelled)
    for name, logits in case.output.students.items():
        counted = batch.labelled & batch.present[name]
        total = total + loss.students * entropy(logits, counted)
        if counted.any():
            teacher = case.output.logits[counted]
            target = (teacher.detach() if loss.detach_teacher else teacher) / temperature
            prediction = F.log_softmax(logits[counted] / temperature, dim=-1)
            target = F.log_softmax(target, dim=-1)
            total = total + loss.distillation * F.kl_div(
                prediction, target, reduction="batchmean", log_target=True
            )
    return total


def gradients(value: Tensor, case: Case) -> dict[str, Tensor]:
    """The value's gradient by the teacher's and every student's logits; zero where unused."""
    given = torch.autograd.grad(
        value, list(case.logits.values()), allow_unused=True, materialize_grads=True
    )
    return dict(zip(case.logits, given, strict=True))


@quick
@given(
    case=cases(),
    factors=st.tuples(*[st.sampled_from([0.0, 0.5, 2.0])] * 3),
    temperature=st.sampled_from([0.5, 1.0, 8.0]),
    detach=st.booleans(),
    weighted=st.booleans(),
)
def test_value_and_gradient_are_those_of_torch_on_the_rows_that_count(
    case: Case,
    factors: tuple[float, float, float],
    temperature: float,
    detach: bool,
    weighted: bool,
) -> None:
    loss = SelfDistillation(temperature, *factors, detach_teacher=detach)
    class_weights = torch.arange(1.0, case.classes + 1).square() if weighted else None
    actual = loss(case.output, case.batch, ClassTerms(class_weights))
    expected = by_torch(loss, case, class_weights)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)
    if not expected.requires_grad:
        expected = expected + 0 * sum(logits.sum() for logits in case.logits.values())
    ours, theirs = gradients(actual, case), gradients(expected, case)
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=1e-5, rtol=1e-4, msg=name)
        # Rows outside M, and a student's rows without its modality, get exactly nothing.
        counted = case.batch.labelled & case.batch.present.get(name, case.batch.labelled)
        assert (gradient[~counted] == 0).all(), name


@quick
@given(case=cases(), seed=st.integers(0, 1000))
def test_labels_outside_m_never_matter(case: Case, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    batch = case.batch
    other = torch.randint(UNLABELLED, case.classes, batch.labels.shape, generator=random)
    changed = dataclasses.replace(batch, labels=torch.where(batch.labelled, batch.labels, other))
    terms = ClassTerms(torch.arange(1.0, case.classes + 1), -torch.arange(float(case.classes)))
    one = SelfDistillation()(case.output, batch, terms)
    two = SelfDistillation()(case.output, changed, terms)
    assert torch.equal(one, two)
    before, after = gradients(one, case), gradients(two, case)
    assert all(torch.equal(before[name], after[name]) for name in before)


def certain(students: int = 1) -> Case:
    """A case with one labelled utterance of two, and one student."""
    random = torch.Generator().manual_seed(0)
    labelled = torch.tensor([[True, False]])
    batch = Batch(
        features={},
        present={f"m{i}": torch.ones_like(labelled) for i in range(students)},
        context=torch.ones_like(labelled),
        labelled=labelled,
        labels=torch.tensor([[2, UNLABELLED]]),
        roles=torch.zeros(1, 2, dtype=torch.int64),
        positions=torch.zeros(1, 2, dtype=torch.int64),
    )

    def logits() -> Tensor:
        return torch.randn(1, 2, 3, generator=random).requires_grad_()

    return Case(NetworkOutput(logits(), {f"m{i}": logits() for i in range(students)}), batch, 3)


def test_distillation_teaches_the_teacher_unless_it_is_detached() -> None:
    case = certain()
    for detach in (False, True):
        loss = SelfDistillation(task=0, students=0, detach_teacher=detach)
        teacher = gradients(loss(case.output, case.batch), case)["teacher"]
        student = gradients(loss(case.output, case.batch), case)["m0"]
        assert bool((teacher == 0).all()) == detach
        assert (student[0, 0] != 0).any()


def test_a_student_is_not_judged_where_its_modality_is_missing() -> None:
    case = certain(students=2)
    case.batch.present["m0"][0, 0] = False
    found = gradients(SelfDistillation()(case.output, case.batch), case)
    assert (found["m0"] == 0).all()
    assert (found["m1"][0, 0] != 0).all()
    case.batch.present["m1"][0, 0] = False
    alone = SelfDistillation()(NetworkOutput(case.output.logits), case.batch)
    assert torch.equal(SelfDistillation()(case.output, case.batch), alone)


@quick
@given(case=cases(students=1), temperature=st.sampled_from([0.25, 2.0, 8.0]))
def test_temperature_only_divides_logits(case: Case, temperature: float) -> None:
    """There is no factor T^2: T times larger logits at temperature T are the same."""
    teacher, student = case.output.logits, case.output.students["m0"]
    plain = SelfDistillation(1.0).divergence(teacher, student, case.batch.labelled)
    scaled = SelfDistillation(temperature).divergence(
        temperature * teacher, temperature * student, case.batch.labelled
    )
    torch.testing.assert_close(plain, scaled, atol=1e-5, rtol=1e-4)
    assert plain >= -1e-6


@quick
@given(case=cases(labelled=0.0))
def test_a_batch_without_labels_is_worth_nothing(case: Case) -> None:
    value = SelfDistillation()(case.output, case.batch, ClassTerms(torch.ones(case.classes)))
    assert value.item() == 0
    for gradient in gradients(value, case).values():
        assert (gradient == 0).all()


def test_a_class_of_weight_0_is_worth_nothing() -> None:
    case = certain()
    value = cross_entropy(
        case.output.logits, case.batch.labels, case.batch.labelled, torch.tensor([1.0, 1.0, 0.0])
    )
    assert value.item() == 0
    assert (gradients(value, case)["teacher"] == 0).all()


def test_half_precision_logits_are_judged_in_single_precision() -> None:
    case = certain()
    halves = NetworkOutput(
        case.output.logits.bfloat16(), {n: v.bfloat16() for n, v in case.output.students.items()}
    )
    wide = NetworkOutput(halves.logits.float(), {n: v.float() for n, v in halves.students.items()})
    value = SelfDistillation()(halves, case.batch)
    assert value.dtype == torch.float32
    assert torch.equal(value, SelfDistillation()(wide, case.batch))


@quick
@given(st.lists(st.integers(0, 50), min_size=1, max_size=7).filter(any))
def test_inverse_frequencies(counts: list[int]) -> None:
    weights = inverse_frequencies(torch.tensor(counts)).tolist()
    assert weights == pytest.approx([sum(counts) / n if n else 0.0 for n in counts])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: SelfDistillation(0.0), r"temperature is 0\.0; expected a number above 0"),
        (lambda: SelfDistillation(float("nan")), "temperature is nan"),
        (lambda: SelfDistillation(task=-1), r"loss factor task is -1; expected 0 or more"),
        (lambda: SelfDistillation(students=-1), "loss factor students is -1"),
        (lambda: SelfDistillation(distillation=float("nan")), "loss factor distillation is nan"),
    ],
)
def test_values_out_of_range_are_refused(make: Callable[[], object], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        make()


@quick
@given(case=cases(students=2), seed=st.integers(0, 1000))
def test_a_global_teacher_is_the_target_and_gets_no_gradient(case: Case, seed: int) -> None:
    guidance = torch.randn(case.output.logits.shape, generator=torch.Generator().manual_seed(seed))
    loss = SelfDistillation(temperature=2.0, task=0, students=0, teacher="global")
    value = loss(case.output, case.batch, guidance=guidance)
    expected = sum(
        loss.divergence(guidance, logits, case.batch.labelled & case.batch.present[name])
        for name, logits in case.output.students.items()
    )
    torch.testing.assert_close(value, expected)
    (gradient,) = torch.autograd.grad(value, [case.output.logits], allow_unused=True)
    assert gradient is None or not gradient.any()


@quick
@given(case=cases(students=2))
def test_a_global_teacher_who_says_what_the_fused_branch_says_changes_no_value(case: Case) -> None:
    said = case.output.logits.detach()
    one = SelfDistillation()(case.output, case.batch)
    other = SelfDistillation(teacher="global")(case.output, case.batch, guidance=said)
    torch.testing.assert_close(one, other)


@settings(max_examples=1)
@given(case=cases(students=1))
def test_a_global_teacher_must_be_there(case: Case) -> None:
    with pytest.raises(InputError, match=r"loss\.teacher is 'global', but nobody sent a network"):
        SelfDistillation(teacher="global")(case.output, case.batch)


@quick
@given(case=cases(), seed=st.integers(0, 1000))
def test_what_a_network_minimises_besides_is_added_as_a_mean_over_m(case: Case, seed: int) -> None:
    loss = SelfDistillation()
    random = torch.Generator().manual_seed(seed)
    auxiliary = torch.rand(case.batch.context.shape, generator=random).requires_grad_()
    with_it = loss(dataclasses.replace(case.output, auxiliary=auxiliary), case.batch)
    counted = auxiliary[case.batch.labelled]
    expected = counted.mean() if counted.numel() else torch.tensor(0.0)
    torch.testing.assert_close(with_it, loss(case.output, case.batch) + expected)
    torch.autograd.backward(with_it)
    assert auxiliary.grad is not None
    assert (auxiliary.grad[~case.batch.labelled] == 0).all()
