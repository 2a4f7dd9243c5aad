"""Attention scores over modalities: what METHOD 3.2 asks of equations 3 to 7."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.networks.attention_score import AttentionScore, ModalityScores, pearson
from fedmer.plugins.networks.sdt import SDT

quick = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 1000)
NAMES = ["text", "audio", "visual"]
RHOS = st.sampled_from(["pearson", "abs", "one"])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def outputs_of(seed: int, modalities: int = 3, turns: int = 4, width: int = 6) -> dict[str, Tensor]:
    random = generator(seed)
    return {name: torch.randn(2, turns, width, generator=random) for name in NAMES[:modalities]}


def all_there(outputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.ones(rows.shape[:2], dtype=torch.bool) for name, rows in outputs.items()}


def some_there(outputs: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    random = generator(seed + 1)
    return {n: torch.rand(rows.shape[:2], generator=random) < 0.7 for n, rows in outputs.items()}


def scores_of(settings: AttentionScore, modalities: int = 3, seed: int = 0) -> ModalityScores:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ModalityScores(NAMES[:modalities], 6, settings)


def batch_of(seed: int, lengths: tuple[int, ...] = (5, 3)) -> Batch:
    """Three modalities, every utterance there."""
    random, longest = generator(seed), max(lengths)
    context = torch.arange(longest) < torch.tensor(lengths)[:, None]
    features = {
        name: torch.randn(len(lengths), longest, 3, generator=random) * context[..., None]
        for name in NAMES
    }
    return Batch(
        features=features,
        present={name: context.clone() for name in NAMES},
        context=context,
        labelled=context.clone(),
        labels=torch.randint(0, 4, context.shape, generator=random),
        roles=torch.zeros(context.shape, dtype=torch.int64),
        positions=torch.arange(longest).expand(context.shape),
    )


def network(settings: AttentionScore | None, modalities: int = 3, dropout: float = 0.0) -> SDT:
    shape = CorpusShape(dict.fromkeys(NAMES[:modalities], 3), classes=4, speakers=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return SDT(shape, hidden=8, heads=2, dropout=dropout, attention_score=settings)


@quick
@given(seed=SEEDS, modalities=st.integers(2, 3), axis=st.sampled_from(["modality", "utterance"]))
def test_attention_sums_to_one_on_its_axis(seed: int, modalities: int, axis: str) -> None:
    outputs = outputs_of(seed, modalities)
    module = scores_of(AttentionScore(axis=axis), modalities, seed)  # type: ignore[arg-type]
    there = torch.stack(list(some_there(outputs, seed).values()))
    dimension = 0 if axis == "modality" else -1
    attention = module.attention(outputs, there)
    expected = there.any(dim=dimension).float()
    torch.testing.assert_close(attention.sum(dim=dimension), expected)
    assert (attention[~there] == 0).all()


@quick
@given(
    seed=SEEDS, moved=st.floats(-50, 50), rho=RHOS, rho_min=st.sampled_from([0.0, 0.1]),
    renorm=st.booleans(),
)  # fmt: skip
def test_weights_are_not_negative_whatever_beta_is(
    seed: int, moved: float, rho: str, rho_min: float, renorm: bool
) -> None:
    kind = AttentionScore(rho=rho, rho_min=rho_min, renorm=renorm)  # type: ignore[arg-type]
    module, outputs = scores_of(kind, seed=seed), outputs_of(seed)
    assert module.moved is not None
    torch.nn.init.constant_(module.moved, moved)
    present = some_there(outputs, seed)
    weights = module(outputs, present)
    for name, weight in weights.items():
        assert weight.shape == (2, 4, 1)
        assert weight.isfinite().all()
        assert (weight >= 0).all()
        assert (weight[~present[name]] == 0).all()
        if rho_min > 0 and moved >= 0:
            assert (weight[present[name]] > 0).all()


@quick
@given(seed=SEEDS, rho=RHOS)
def test_renormalised_weights_have_mean_one(seed: int, rho: str) -> None:
    outputs = outputs_of(seed)
    present = some_there(outputs, seed)
    module = scores_of(AttentionScore(rho=rho, rho_min=0.1, renorm=True), seed=seed)  # type: ignore[arg-type]
    total = torch.stack(list(module(outputs, present).values())).sum(dim=0)[..., 0]
    count = torch.stack(list(present.values())).sum(dim=0).float()
    torch.testing.assert_close(total, count)


@quick
@given(seed=SEEDS, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_likeness_is_that_of_affine_maps(seed: int, scale: float, shift: float) -> None:
    text = outputs_of(seed)["text"]
    module = scores_of(AttentionScore(), 2)
    there = torch.ones(2, 2, 4, dtype=torch.bool)
    same = module.likeness({"text": text, "audio": scale * text + shift}, there)
    torch.testing.assert_close(same, torch.ones(2, 2, 4), atol=1e-4, rtol=0)
    opposite = module.likeness({"text": text, "audio": shift - scale * text}, there)
    torch.testing.assert_close(opposite, torch.zeros(2, 2, 4), atol=1e-4, rtol=0)


@quick
@given(seed=SEEDS, rho=RHOS, scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_likeness_is_in_the_unit_interval_and_blind_to_positive_affine_maps(
    seed: int, rho: str, scale: float, shift: float
) -> None:
    outputs = outputs_of(seed)
    module = scores_of(AttentionScore(rho=rho))  # type: ignore[arg-type]
    there = torch.ones(3, 2, 4, dtype=torch.bool)
    before = module.likeness(outputs, there)
    assert ((before >= 0) & (before <= 1)).all()
    moved = {**outputs, "audio": scale * outputs["audio"] + shift}
    torch.testing.assert_close(module.likeness(moved, there), before, atol=1e-4, rtol=0)


@quick
@given(seed=SEEDS)
def test_the_coefficient_is_that_of_the_definition(seed: int) -> None:
    one, other = torch.randn(2, 5, 9, generator=generator(seed), dtype=torch.float64)
    expected = torch.stack(
        [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(one, other, strict=True)]
    )
    torch.testing.assert_close(pearson(one, other), expected)


@pytest.mark.parametrize("value", [0.0, 5.0])
def test_constant_outputs_have_likeness_one_half_and_finite_gradients(value: float) -> None:
    outputs = {name: torch.full((1, 2, 6), value, requires_grad=True) for name in NAMES}
    module = scores_of(AttentionScore(renorm=True))
    there = torch.ones(3, 1, 2, dtype=torch.bool)
    assert (module.likeness(outputs, there) == 0.5).all()
    weights = module(outputs, all_there(outputs))
    torch.autograd.backward(sum((weights[name] * outputs[name]).sum() for name in NAMES))
    for rows in outputs.values():
        assert rows.grad is not None
        assert rows.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in module.parameters())


def test_a_modality_stands_alone_where_the_one_before_it_is_missing() -> None:
    outputs = outputs_of(0)
    there = torch.ones(3, 2, 4, dtype=torch.bool)
    there[2, 0, 0] = False
    likeness = scores_of(AttentionScore()).likeness(outputs, there)
    assert likeness[0, 0, 0] == 0.5
    assert likeness[2, 0, 0] == 0.5
    assert likeness[1, 0, 0] != 0.5


@quick
@given(seed=SEEDS)
def test_turning_the_cycle_turns_the_weights(seed: int) -> None:
    """prev is cyclic: with W, V and beta turned as well, only the names change places."""
    outputs, module = outputs_of(seed), scores_of(AttentionScore(), seed=seed)
    turned = ModalityScores([*NAMES[1:], NAMES[0]], 6, AttentionScore())
    turned.load_state_dict(module.state_dict())
    before, after = module(outputs, all_there(outputs)), turned(outputs, all_there(outputs))
    for name in NAMES:
        torch.testing.assert_close(after[name], before[name])


@quick
@given(seed=SEEDS)
def test_weights_follow_the_equations(seed: int) -> None:
    outputs, module = (
        outputs_of(seed, turns=1),
        scores_of(AttentionScore(width=5, renorm=False), seed=seed),
    )
    weights = module(outputs, all_there(outputs))
    look = {name: module.look[name].weight.detach() for name in NAMES}
    score = {name: module.score[name].weight[0].detach() for name in NAMES}
    for dialogue in range(2):
        rows = {name: outputs[name][dialogue, 0] for name in NAMES}
        scores = [float(score[name] @ torch.tanh(look[name] @ rows[name])) for name in NAMES]
        attention = torch.softmax(torch.tensor(scores) / 5**0.5, dim=0)
        for i, name in enumerate(NAMES):
            pair = torch.stack([rows[name], rows[NAMES[i - 1]]])
            rho = (1 + float(torch.corrcoef(pair)[0, 1])) / 2
            expected = rho * (1 + 1.0 * float(attention[i]))
            assert weights[name][dialogue, 0, 0].item() == pytest.approx(expected, abs=1e-5)


def test_beta_starts_where_it_is_told_and_stays_above_minus_one() -> None:
    for start in (-0.5, 0.0, 1.0, 3.0):
        module = scores_of(AttentionScore(beta=start))
        assert module.beta().tolist() == [start] * 3
        assert module.moved is not None
        torch.nn.init.constant_(module.moved, -100.0)
        torch.testing.assert_close(module.beta(), torch.full((3,), -1.0), atol=1e-6, rtol=0)
    fixed = scores_of(AttentionScore(beta=2.0, learn_beta=False))
    assert fixed.beta().tolist() == [2.0] * 3
    assert "moved" not in dict(fixed.named_parameters())


def test_a_modality_that_takes_all_attention_vanishes_at_beta_minus_one() -> None:
    outputs = outputs_of(0)
    module = scores_of(AttentionScore(rho="one", renorm=False))
    assert module.moved is not None
    torch.nn.init.constant_(module.moved, -100.0)
    present = all_there(outputs)
    present["audio"][:] = present["visual"][:] = False
    weights = module(outputs, present)
    torch.testing.assert_close(weights["text"], torch.zeros(2, 4, 1), atol=1e-6, rtol=0)


def said(output: NetworkOutput) -> dict[str, Tensor]:
    return {"logits": output.logits, **output.students, **output.embeddings}


@pytest.mark.parametrize("renorm", [True, False])
@pytest.mark.parametrize("students", ["raw", "scaled"])
def test_without_effect_it_is_sdt_bit_for_bit_in_output_and_in_training(
    students: str, renorm: bool
) -> None:
    off = AttentionScore(rho="one", beta=0.0, learn_beta=False, renorm=renorm, students=students)  # type: ignore[arg-type]
    plain, scored = network(None, dropout=0.3), network(off, dropout=0.3)
    batch = batch_of(0, (4, 4))
    for seed in range(3):
        outputs = []
        for own in (plain, scored):
            torch.manual_seed(seed)
            optimizer = torch.optim.Adam(own.parameters(), lr=0.01)
            output = own.train()(batch)
            optimizer.zero_grad()
            torch.autograd.backward(SelfDistillation()(output, batch))
            optimizer.step()
            outputs.append(said(output))
        assert all(torch.equal(outputs[1][name], value) for name, value in outputs[0].items())
    shared = scored.state_dict()
    assert all(torch.equal(shared[name], value) for name, value in plain.state_dict().items())


def test_scores_are_learnt_from_the_first_step_and_not_at_beta_zero() -> None:
    for beta, moves in ((1.0, True), (0.0, False)):
        own, batch = network(AttentionScore(beta=beta)), batch_of(0)
        torch.autograd.backward(SelfDistillation()(own(batch), batch))
        assert own.scores is not None
        gradients = [
            own.scores.get_submodule(f"{layer}.{name}").weight.grad
            for layer in ("look", "score") for name in NAMES
        ]  # fmt: skip
        for gradient in gradients:
            assert gradient is not None
            assert bool((gradient != 0).any()) is moves


def test_scaled_students_read_what_raw_ones_do_not() -> None:
    raw, scaled = network(AttentionScore()), network(AttentionScore(students="scaled"))
    batch = batch_of(0)
    one, other = raw.eval()(batch), scaled.eval()(batch)
    assert torch.equal(one.logits, other.logits)
    for name in NAMES:
        assert not torch.equal(one.students[name], other.students[name])


def test_one_modality_has_nothing_to_weigh_and_is_sdt() -> None:
    with pytest.warns(UserWarning, match="text is the only modality, so that an attention score"):
        own = network(AttentionScore(), modalities=1)
    plain = network(None, modalities=1)
    batch = dataclasses.replace(batch_of(0))
    assert torch.equal(own.eval()(batch).logits, plain.eval()(batch).logits)
    assert own.scores is None


def test_a_dialogue_of_one_turn_works_on_either_axis() -> None:
    for axis in ("modality", "utterance"):
        own = network(AttentionScore(axis=axis))  # type: ignore[arg-type]
        assert own.eval()(batch_of(0, (1, 1))).logits.isfinite().all()


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"width": 0}, "attention_score.width is 0; expected at least 1"),
        ({"rho_min": 1.5}, "attention_score.rho_min is 1.5; expected a number in"),
        ({"beta": -1.0}, "attention_score.beta is -1.0; expected a number above -1"),
        ({"beta": float("nan")}, "attention_score.beta is nan"),
    ],
)
def test_values_out_of_range_are_refused(changed: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        AttentionScore(**changed)  # type: ignore[arg-type]


@quick
@given(seed=SEEDS, axis=st.sampled_from(["modality", "utterance"]), more=st.integers(1, 6))
def test_neither_padding_nor_company_changes_a_weight(seed: int, axis: str, more: int) -> None:
    own = network(AttentionScore(axis=axis, students="scaled")).eval()  # type: ignore[arg-type]
    together = batch_of(seed, (3 + more, 3))
    alone = dataclasses.replace(
        together,
        features={name: rows[1:, :3] for name, rows in together.features.items()},
        present={name: there[1:, :3] for name, there in together.present.items()},
        **{
            name: getattr(together, name)[1:, :3]
            for name in ("context", "labelled", "labels", "roles", "positions")
        },
    )
    with torch.no_grad():
        one, other = said(own(alone)), said(own(together))
    for name, value in one.items():
        torch.testing.assert_close(other[name][1:, :3], value, atol=1e-5, rtol=0, msg=name)
