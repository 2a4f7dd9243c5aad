"""SelfMM: its centres, its generated targets and what they cost, by hand."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.plugins.networks.self_mm import SelfMM
from tests.networks.test_contract import ragged, shape_of, with_gaps

MODALITIES = {"text": 3, "audio": 2}


def built(seed: int = 0, **settings: float) -> SelfMM:
    torch.manual_seed(seed)
    network = SelfMM(shape_of(MODALITIES), hidden=6, heads=2, dropout=0.0, **settings)  # type: ignore[arg-type]
    torch.nn.init.normal_(network.centres)
    return network


def moved(network: SelfMM, batch: Batch) -> torch.Tensor:
    """The centres after a step on a batch, place by place."""
    output = network.eval()(batch)
    shares = output.logits.softmax(dim=-1)
    expected = network.centres.clone()
    for place, site in enumerate([*MODALITIES, "fused"]):
        for emotion in range(3):
            total, weight = torch.zeros(6), torch.tensor(0.0)
            for b, t in batch.context.nonzero().tolist():
                if site == "fused" or batch.present[site][b, t]:
                    weight = weight + shares[b, t, emotion]
                    total = total + shares[b, t, emotion] * output.embeddings[site][b, t]
            if weight > 0:
                step = network.momentum * weight / (weight + 1)
                expected[place, emotion] += step * (total / weight - expected[place, emotion])
    return expected


@settings(max_examples=10, deadline=None)
@given(data=st.data(), seed=st.integers(0, 100))
def test_targets_and_centres_are_those_of_the_equations(data: st.DataObject, seed: int) -> None:
    network = built(seed, generated=0.5)
    batch = with_gaps(ragged(MODALITIES, [4, 2]), data)
    with torch.no_grad():
        expected = moved(network, batch)
        output = network.train()(batch)
    torch.testing.assert_close(network.centres, expected, atol=1e-5, rtol=1e-4)
    assert output.auxiliary is not None

    def near(site: str, b: int, t: int) -> torch.Tensor:
        place = [*MODALITIES, "fused"].index(site)
        far = (output.embeddings[site][b, t] - network.centres[place]).square().sum(dim=-1)
        return 1 - far / far.mean()

    for b, t in batch.context.nonzero().tolist():
        common, cost = output.logits[b, t].softmax(dim=-1), torch.tensor(0.0)
        for name in MODALITIES:
            if batch.present[name][b, t]:
                shift = near(name, b, t) - near("fused", b, t)
                target = (output.logits[b, t] + shift).softmax(dim=-1)
                weight = torch.tanh((target - common).abs().sum() / 2)
                said = output.students[name][b, t].log_softmax(dim=-1)
                cost = cost + weight * F.kl_div(said, target, reduction="sum")
        torch.testing.assert_close(output.auxiliary[b, t], 0.5 * cost, atol=1e-5, rtol=1e-4)


def test_generated_targets_train_the_students_and_not_the_fused_branch() -> None:
    network = built().train()
    auxiliary = network(ragged(MODALITIES, [4, 2])).auxiliary
    assert auxiliary is not None
    torch.autograd.backward(auxiliary.sum())
    assert network.head.weight.grad is None
    assert network.fuse.weight.grad is None
    for student in network.students.values():
        assert isinstance(student, torch.nn.Linear)
        assert student.weight.grad is not None
        assert student.weight.grad.abs().sum() > 0


def test_centres_move_in_training_only_and_travel_with_the_weights() -> None:
    network, batch = built(), ragged(MODALITIES, [4, 2])
    before = network.centres.clone()
    network.eval()(batch)
    assert torch.equal(network.centres, before)
    network.train()(batch)
    assert not torch.equal(network.centres, before)
    assert "centres" in network.state_dict()


def test_without_centres_yet_nothing_shifts_a_target() -> None:
    network = built(momentum=1e-9)
    torch.nn.init.zeros_(network.centres)
    auxiliary = network.train()(ragged(MODALITIES, [4, 2])).auxiliary
    assert auxiliary is not None
    assert auxiliary.abs().max() < 1e-5


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"momentum": 0.0}, "momentum is 0.0; expected a number above 0, at most 1"),
        ({"momentum": 1.1}, "momentum is 1.1; expected"),
        ({"generated": -1.0}, "generated is -1.0; expected 0 or more"),
    ],
)
def test_what_makes_no_sense_is_refused(option: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        built(**option)
