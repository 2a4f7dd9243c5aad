"""What networks hide from themselves in training: whom, how often, and what it may not change."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.network import Network
from fedmer.data.missing import kept
from fedmer.errors import InputError
from fedmer.plugins.networks._modalities import there
from fedmer.plugins.networks.mmin import MMIN
from fedmer.plugins.networks.mplmm import MPLMM
from fedmer.plugins.networks.tfr_net import TFRNet
from tests.networks.test_contract import ragged, shape_of, with_gaps

MODALITIES = {"text": 3, "audio": 2, "visual": 4}
COMPARING: list[type[Network]] = [TFRNet, MMIN]
HIDING = [*COMPARING, MPLMM]
comparing_networks = pytest.mark.parametrize("kind", COMPARING)
hiding_networks = pytest.mark.parametrize("kind", HIDING)


@settings(max_examples=20, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000), rate=st.sampled_from([0.0, 0.3, 0.99]))
def test_an_utterance_keeps_one_of_the_modalities_that_it_has(
    data: st.DataObject, seed: int, rate: float
) -> None:
    present = there(with_gaps(ragged(MODALITIES, [5, 3, 1]), data))
    torch.manual_seed(seed)
    left = kept(present, rate)
    assert list(left) == list(present)
    had, has = (torch.stack(list(found.values())) for found in (present, left))
    assert not (has & ~had).any()
    assert torch.equal(has.any(dim=0), had.any(dim=0))
    if rate == 0:
        assert torch.equal(has, had)


def test_modalities_are_hidden_as_often_as_asked() -> None:
    torch.manual_seed(0)
    present = {name: torch.ones(100, 100, dtype=torch.bool) for name in MODALITIES}
    left = torch.stack(list(kept(present, 0.3).values()))
    # All three are drawn in 2.7 % of utterances, and one of them is given back.
    assert (~left).float().mean(dim=(1, 2)).tolist() == pytest.approx([0.3 - 0.009] * 3, abs=0.015)


@hiding_networks
def test_nothing_is_hidden_outside_training(kind: type[Network]) -> None:
    torch.manual_seed(0)
    network = kind(shape_of(MODALITIES), missing_rate=0.9, dropout=0.0).eval()  # type: ignore[call-arg]
    batch = ragged(MODALITIES, [5, 3])
    output = network(batch)
    assert torch.equal(output.logits, network(batch).logits)
    assert output.auxiliary is None
    network.train()
    assert not torch.equal(output.logits, network(batch).logits)


@hiding_networks
def test_one_modality_is_never_hidden(kind: type[Network]) -> None:
    torch.manual_seed(0)
    network = kind(shape_of({"audio": 3}), missing_rate=0.9, dropout=0.0)  # type: ignore[call-arg]
    batch = ragged({"audio": 3}, [5, 3])
    trained = network(batch).logits
    torch.testing.assert_close(trained, network.eval()(batch).logits)


@hiding_networks
@pytest.mark.parametrize("rate", [1.0, -0.1, float("nan")])
def test_rates_that_are_none_are_refused(kind: type[Network], rate: float) -> None:
    with pytest.raises(InputError, match=rf"missing_rate is {rate}; expected a number in \[0, 1\)"):
        kind(shape_of(MODALITIES), missing_rate=rate)  # type: ignore[call-arg]


@hiding_networks
def test_no_value_is_waited_for(kind: type[Network]) -> None:
    network = kind(shape_of(MODALITIES)).to("meta").train()
    output = network(ragged(MODALITIES, [4, 2]).to("meta"))
    assert output.logits.shape == (2, 4, 3)
    if kind in COMPARING:
        assert output.auxiliary is not None
        assert output.auxiliary.shape == (2, 4)


@comparing_networks
def test_what_is_missing_for_good_is_compared_with_nothing(kind: type[Network]) -> None:
    """Whatever stands in its place, and however often it is drawn."""
    network = kind(shape_of(MODALITIES), missing_rate=0.5, dropout=0.0)  # type: ignore[call-arg]
    batch = ragged(MODALITIES, [5, 3])
    batch.present["audio"][:, 1:] = False
    rows = batch.features["audio"].where(batch.present["audio"][..., None], torch.tensor(7.0))
    other = dataclasses.replace(batch, features={**batch.features, "audio": rows})
    found = []
    for one in (batch, other):
        torch.manual_seed(3)
        found.append(network(one).auxiliary)
    torch.testing.assert_close(found[0], found[1])
    assert (found[0] > 0).any()


def test_a_reconstruction_is_compared_with_what_was_hidden() -> None:
    torch.manual_seed(0)
    network = TFRNet(shape_of(MODALITIES), hidden=6, heads=2, dropout=0.0, reconstruction=0.5)
    batch = ragged(MODALITIES, [5, 3])
    torch.manual_seed(1)
    output = network(batch)
    assert output.auxiliary is not None
    torch.manual_seed(1)
    left = kept(there(batch), network.missing_rate)
    away = 0
    for b, t in batch.context.nonzero().tolist():
        expected = torch.tensor(0.0)
        for name in MODALITIES:
            if not left[name][b, t]:
                away += 1
                found = network.reconstruct[name](output.embeddings[name][b, t])
                expected = expected + F.smooth_l1_loss(found, batch.features[name][b, t])
        torch.testing.assert_close(output.auxiliary[b, t], 0.5 * expected)
    assert away > 0


def test_what_is_imagined_and_recalled_is_compared_modality_by_modality() -> None:
    torch.manual_seed(0)
    network = MMIN(shape_of(MODALITIES), hidden=6, heads=2, dropout=0.0, imagination=0.5, cycle=2.0)
    batch = ragged(MODALITIES, [5, 3])
    torch.manual_seed(1)
    output = network(batch)
    assert output.auxiliary is not None
    torch.manual_seed(1)
    present = there(batch)
    left = kept(present, network.missing_rate)
    known, whole = network.encode(batch, left), network.encode(batch, present)
    imagined = torch.cat([output.embeddings[name] for name in MODALITIES], dim=-1)
    recalled, _ = network.recall(imagined)
    away = 0
    for b, t in batch.context.nonzero().tolist():
        expected = torch.tensor(0.0)
        for place, name in enumerate(MODALITIES):
            own = slice(6 * place, 6 * place + 6)
            if left[name][b, t]:
                expected = expected + 2 * F.mse_loss(recalled[b, t, own], known[b, t, own])
            else:
                away += 1
                assert (known[b, t, own] == 0).all()
                expected = expected + 0.5 * F.mse_loss(imagined[b, t, own], whole[b, t, own])
        torch.testing.assert_close(output.auxiliary[b, t], expected)
    assert away > 0


def test_nothing_is_imagined_by_changing_what_is_to_be_imagined() -> None:
    """The encoders learn from the auxiliary loss by what they read, not by what it aims at."""
    torch.manual_seed(0)
    network = MMIN(
        shape_of(MODALITIES), hidden=6, heads=2, dropout=0.0, missing_rate=0.5, cycle=0.0
    )
    batch = ragged(MODALITIES, [9])
    batch.features["text"].requires_grad_()
    torch.manual_seed(1)
    output = network(batch)
    torch.manual_seed(1)
    left = kept(there(batch), network.missing_rate)
    assert output.auxiliary is not None
    torch.autograd.backward(output.auxiliary.sum())
    assert not left["text"].all()
    gradient = batch.features["text"].grad
    assert gradient is not None
    assert (gradient[~left["text"]] == 0).all()
    assert (gradient[left["text"]] != 0).any()


def test_prompts_stand_in_for_what_is_missing_and_for_nothing_else() -> None:
    torch.manual_seed(0)
    network = MPLMM(shape_of(MODALITIES), hidden=6, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    batch.present["audio"][0, 1] = False
    present = there(batch)
    before = network.complete(batch, present)
    offers = [
        network.offer[name](network.project.layers[name](batch.features[name][0, 1]))
        for name in ("text", "visual")
    ]
    prompts = network.prompts
    joined = torch.cat([prompts.generative["audio"], (offers[0] + offers[1]) / 2])
    expected = network.generate["audio"](joined) + prompts.signals["audio"][0]
    torch.testing.assert_close(before["audio"][0, 1], expected)
    torch.nn.init.normal_(prompts.generative["audio"])
    after = network.complete(batch, present)
    assert not torch.allclose(after["audio"][0, 1], before["audio"][0, 1])
    batch.present["audio"][0, 1] = True
    for name, rows in after.items():
        others = [0, 2, 3] if name == "audio" else [0, 1, 2, 3]
        assert torch.equal(rows[0, others], before[name][0, others])


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_each_set_of_modalities_has_a_prompt_of_its_own(data: st.DataObject) -> None:
    torch.manual_seed(0)
    prompts = MPLMM(shape_of(MODALITIES), hidden=6, heads=2).prompts
    present = there(with_gaps(ragged(MODALITIES, [6, 3]), data))
    found = prompts.kind(present).flatten(0, 1)
    sets = torch.stack(list(present.values()), dim=-1).flatten(0, 1)
    alike = (sets[:, None] == sets).all(dim=-1)
    assert torch.equal(torch.isclose(found[:, None], found, atol=1e-6).all(dim=-1), alike)


def test_all_prompts_and_nothing_else_begin_with_prompts() -> None:
    network = MPLMM(shape_of(MODALITIES), hidden=6, heads=2)
    named = [name for name, _ in network.named_parameters() if name.startswith("prompts.")]
    assert len(named) == 3 * len(MODALITIES)
