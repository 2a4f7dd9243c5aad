"""What must hold of every network (METHOD, section 4.3), those that join later included."""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch, Excerpt, collate, excerpt
from fedmer.data.corpus import ConversationCorpus, CorpusShape
from fedmer.data.partition import whole
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.registry import plugins
from fedmer.running_mean import ClientWeight, RunningMean
from fedmer.weights import load_weights
from tests.strategies import corpora, corpus_of, make_conversation, random_corpus

SMALL = {"hidden": 8, "heads": 2}
"""For networks that have such hyperparameters."""

every_network = pytest.mark.parametrize(
    "path", [pytest.param(p.path, id=p.name) for p in plugins("networks") if p.package == "fedmer"]
)
few = settings(max_examples=8, deadline=None)


def build(path: str, shape: CorpusShape, seed: int = 0, **settings: object) -> Network:
    """A small network without dropout, its weights a function of the seed."""
    module, _, name = path.rpartition(".")
    kind: type[Network] = getattr(importlib.import_module(module), name)
    wanted = {**SMALL, "dropout": 0.0, **settings}
    known = inspect.signature(kind).parameters
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return kind(shape, **{key: value for key, value in wanted.items() if key in known})


def excerpts_of(corpus: ConversationCorpus) -> list[Excerpt]:
    return [excerpt(corpus, whole(dialogue, i)) for i, dialogue in enumerate(corpus.conversations)]


def parts(output: NetworkOutput) -> dict[str, Tensor]:
    """Everything that a network says, by name."""
    return {
        "logits": output.logits,
        **{f"student {name}": value for name, value in output.students.items()},
        **{f"embedding {name}": value for name, value in output.embeddings.items()},
    }


@torch.no_grad()
def read(network: Network, batch: Batch) -> dict[str, Tensor]:
    return parts(network.eval()(batch))


def loss_of(network: Network, batch: Batch) -> Tensor:
    loss: Tensor = SelfDistillation()(network(batch), batch)
    return loss


def ragged(modalities: Mapping[str, int], lengths: Sequence[int], classes: int = 3) -> Batch:
    """Dialogues of unequal lengths, every utterance labelled and every modality there."""
    conversations = [
        make_conversation(
            f"d{i}",
            [("AB"[(i + t) % 2], (i + t * t) % classes) for t in range(length)],
            modalities=modalities,
        )
        for i, length in enumerate(lengths)
    ]
    batch = collate(excerpts_of(corpus_of(conversations, classes)))
    features = {name: torch.randn(rows.shape) for name, rows in batch.features.items()}
    for rows in features.values():
        rows[~batch.context] = 0
    return dataclasses.replace(
        batch, features=features, present={name: batch.context.clone() for name in modalities}
    )


def shape_of(modalities: Mapping[str, int], classes: int = 3) -> CorpusShape:
    return CorpusShape(modalities, classes, speakers=2)


@every_network
@few
@given(corpus=corpora(), data=st.data())
def test_a_dialogue_is_read_alike_alone_and_in_any_batch(
    path: str, corpus: ConversationCorpus, data: st.DataObject
) -> None:
    network = build(path, corpus.shape)
    excerpts = excerpts_of(corpus)
    chosen = data.draw(st.lists(st.sampled_from(range(len(excerpts))), min_size=1, max_size=5))
    long = max(excerpts, key=len)
    company = [excerpts[i] for i in chosen] + [long]
    together = read(network, collate(company))
    for place, one in enumerate(company):
        alone = read(network, collate([one]))
        assert alone.keys() == together.keys()
        for name, value in alone.items():
            torch.testing.assert_close(
                together[name][place, : len(one)], value[0], atol=1e-5, rtol=0, msg=name
            )


@every_network
@few
@given(corpus=corpora(), seed=st.integers(0, 1000))
def test_labels_are_not_looked_at(path: str, corpus: ConversationCorpus, seed: int) -> None:
    network = build(path, corpus.shape)
    batch = collate(excerpts_of(corpus))
    random = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, corpus.shape.classes, batch.labels.shape, generator=random)
    labelled = torch.rand(batch.labels.shape, generator=random) < 0.5
    before = read(network, batch)
    after = read(network, dataclasses.replace(batch, labels=labels, labelled=labelled))
    for name, value in before.items():
        assert torch.equal(after[name], value), name


@every_network
@few
@given(corpus=corpora(), data=st.data())
def test_rows_of_a_missing_modality_are_not_looked_at(
    path: str, corpus: ConversationCorpus, data: st.DataObject
) -> None:
    network = build(path, corpus.shape)
    batch = with_gaps(collate(excerpts_of(corpus)), data)
    other = dataclasses.replace(
        batch,
        features={
            name: torch.where(batch.present[name][..., None], rows, 7.0)
            for name, rows in batch.features.items()
        },
    )
    before, after = read(network, batch), read(network, other)
    for name, value in before.items():
        torch.testing.assert_close(
            after[name][batch.context], value[batch.context], atol=1e-5, rtol=0, msg=name
        )


@every_network
@few
@given(seed=st.integers(0, 1000))
def test_rows_that_are_there_are_looked_at(path: str, seed: int) -> None:
    """Every modality matters to its utterance, and to others just if the network says so."""
    torch.manual_seed(seed)
    # Of a narrower layer, every rectified neuron is sometimes silent.
    network = build(path, shape_of({"text": 3, "audio": 2}), seed, hidden=16)
    batch = ragged({"text": 3, "audio": 2}, [4])
    before = read(network, batch)["logits"]
    elsewhere = []
    for name in batch.features:
        features = {key: rows.clone() for key, rows in batch.features.items()}
        features[name][0, 0] += 3
        after = read(network, dataclasses.replace(batch, features=features))["logits"]
        moved = (after - before).abs().amax(dim=-1)[0]
        assert moved[0] > 1e-6, name
        elsewhere.append(moved[1:])
    # Some networks let one modality alone tell of other utterances, and some look back only.
    reach = torch.stack(elsewhere).amax(dim=0)
    assert (reach > 1e-6).all() if network.reads_context else (reach == 0).all()


@every_network
def test_the_logits_are_an_affine_function_of_the_fused_embedding(path: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    said = read(build(path, shape_of(modalities), window=1), ragged(modalities, [40, 40]))
    fused, logits = (said[name].flatten(0, 1).double() for name in ("embedding fused", "logits"))
    inputs = torch.cat([fused, torch.ones_like(fused[:, :1])], dim=-1)
    assert inputs.shape[1] < len(inputs) // 2, "too few utterances to tell"
    # 'gelsd' knows how to treat neurons that never fire, which make the problem rank-deficient.
    fit = torch.linalg.lstsq(inputs, logits, driver="gelsd").solution
    torch.testing.assert_close(inputs @ fit, logits, atol=1e-4, rtol=1e-4)
    assert logits.std(dim=0).min() > 1e-3


@every_network
def test_class_parameters_are_those_with_a_row_a_class(path: str) -> None:
    """One class more adds a row to each and to nothing else; their rows are the logits'."""
    modalities = {"text": 5, "audio": 3, "visual": 4}
    network, larger = (build(path, shape_of(modalities, classes)) for classes in (3, 4))
    axes, grown = network.class_parameters, dict(larger.named_parameters())
    for name, parameter in network.named_parameters():
        expected = list(parameter.shape)
        if name in axes:
            assert expected[axes[name]] == 3
            expected[axes[name]] = 4
        assert list(grown[name].shape) == expected
    batch, order = ragged(modalities, [4, 2]), torch.tensor([2, 0, 1])
    before = read(network, batch)
    with torch.no_grad():
        for name, axis in axes.items():
            parameter = network.get_parameter(name)
            parameter.copy_(parameter.index_select(axis, order))
    for name, value in read(network, batch).items():
        expected_rows = before[name] if name.startswith("embedding") else before[name][..., order]
        torch.testing.assert_close(value, expected_rows, atol=1e-6, rtol=0, msg=name)


@every_network
def test_more_people_than_the_corpus_had_are_read(path: str) -> None:
    """A test dialogue may have more people than any training dialogue."""
    modalities = {"text": 3, "audio": 2}
    batch = ragged(modalities, [7, 3])
    batch.roles = (batch.positions % 5) * batch.context
    for name, value in read(build(path, shape_of(modalities)), batch).items():
        assert value.isfinite().all(), name


@every_network
@few
@given(corpus=corpora(), data=st.data())
def test_what_is_missing_leaves_output_and_gradients_finite(
    path: str, corpus: ConversationCorpus, data: st.DataObject
) -> None:
    network = build(path, corpus.shape, dropout=0.3)
    batch = with_gaps(collate(excerpts_of(corpus)), data)
    for name, value in read(network, batch).items():
        assert value[batch.context].isfinite().all(), name
    network.train()
    loss = loss_of(network, batch)
    torch.autograd.backward(loss)
    assert loss.isfinite()
    for name, parameter in network.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


@every_network
def test_unequal_lengths_give_every_parameter_a_finite_gradient(path: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2, "visual": 4}
    network = build(path, shape_of(modalities), dropout=0.3).train()
    torch.autograd.backward(loss_of(network, ragged(modalities, [9, 1, 4])))
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} is never used"
            assert parameter.grad.isfinite().all(), name


@every_network
def test_padding_moves_no_gradient(path: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = build(path, shape_of(modalities)).eval()
    short = ragged(modalities, [5, 3])
    padded = collate([*unpadded(short), unpadded(ragged(modalities, [12]))[0]])
    padded.labelled[2] = False

    def gradients(batch: Batch) -> dict[str, Tensor]:
        network.zero_grad()
        torch.autograd.backward(loss_of(network, batch))
        named = network.named_parameters()
        return {name: p.grad.clone() for name, p in named if p.grad is not None}

    before, after = gradients(short), gradients(padded)
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-5, rtol=1e-4, msg=name)


@every_network
def test_one_batch_is_learnt_by_heart(path: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 6, "audio": 4}
    network = build(path, shape_of(modalities), hidden=16).train()
    batch = ragged(modalities, [7, 5, 3])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    first = loss_of(network, batch).item()
    for _ in range(60):
        loss = loss_of(network.train(), batch)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        if loss.item() < 0.2 * first:
            right = read(network, batch)["logits"].argmax(dim=-1) == batch.labels
            if right[batch.labelled].all():
                return
    pytest.fail(f"the loss went from {first:.3f} to {loss.item():.3f} in 60 steps")


@every_network
@pytest.mark.parametrize("count", [1, 2, 3])
def test_one_two_or_three_modalities(path: str, count: int) -> None:
    modalities = dict(list({"audio": 2, "text": 3, "visual": 4}.items())[:count])
    network = build(path, shape_of(modalities, classes=5))
    batch = ragged(modalities, [4, 2], classes=5)
    output = network(batch)
    assert output.logits.shape == (2, 4, 5)
    assert set(output.students) <= set(modalities)
    assert all(student.shape == (2, 4, 5) for student in output.students.values())
    assert "fused" in output.embeddings
    for embedding in output.embeddings.values():
        assert embedding.shape[:2] == (2, 4)
        assert embedding.ndim == 3
    assert all(value.isfinite().all() for value in parts(output).values())


@every_network
def test_hyperparameters_out_of_range_are_refused_by_name(path: str) -> None:
    module, _, name = path.rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    drops = "dropout" in inspect.signature(kind).parameters
    bad: list[tuple[str, float]] = [
        ("dropout", value) for value in (1.0, -0.1, float("nan")) if drops
    ]
    for parameter in inspect.signature(kind).parameters.values():
        if type(parameter.default) is int and parameter.name != "random_seed":
            least = 0 if parameter.name in ("window", "random_features") else 1
            bad += [(parameter.name, value) for value in {-8, least - 1}]
    for key, value in bad:
        with pytest.raises(InputError, match=rf"\b{key} is {value}\b"):
            build(path, shape_of({"text": 3, "audio": 2}), **{key: value})
    if "heads" in inspect.signature(kind).parameters:
        with pytest.raises(InputError, match="hidden is 10 and heads is 4; expected hidden to be"):
            build(path, shape_of({"text": 3}), hidden=10, heads=4)


@every_network
def test_weights_and_dropout_are_functions_of_the_seed(path: str) -> None:
    modalities = {"text": 3, "audio": 2}
    batch = ragged(modalities, [6, 2])
    networks = [build(path, shape_of(modalities), seed, dropout=0.5) for seed in (0, 0, 1)]
    one, same, other = (dict(network.state_dict()) for network in networks)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)

    def step(seed: int, disturbance: int) -> Tensor:
        np.random.seed(disturbance)  # noqa: NPY002 - a network must not draw from it
        torch.manual_seed(seed)
        logits: Tensor = networks[0].train()(batch).logits
        return logits

    assert torch.equal(step(0, 0), step(0, 1))
    drops = any(isinstance(module, Dropout | torch.nn.Dropout) for module in networks[0].modules())
    assert torch.equal(step(0, 0), step(1, 0)) != drops


@every_network
def test_the_mean_of_two_networks_is_a_network(path: str) -> None:
    corpus = random_corpus(0, dialogues=2, turns=5, classes=3, modalities={"text": 3, "audio": 2})
    batch = collate(excerpts_of(corpus))
    first, second, third, fourth = (build(path, corpus.shape, seed) for seed in range(4))
    mean = RunningMean()
    for network in (first, second):
        mean.add(dict(network.state_dict()), ClientWeight(1.0))
    for network in (third, fourth):
        load_weights(network, mean.result())
    halves = zip(third.parameters(), first.parameters(), second.parameters(), strict=True)
    for between, one, other in halves:
        torch.testing.assert_close(between, (one + other) / 2)
    # A state dict is the whole of a network: two that were not alike now are.
    said, again = read(third, batch), read(fourth, batch)
    for name, value in said.items():
        assert value.isfinite().all(), name
        assert torch.equal(again[name], value), name
    assert not torch.equal(read(first, batch)["logits"], said["logits"])


def with_gaps(batch: Batch, data: st.DataObject) -> Batch:
    """Take modalities, sometimes all, away from whole dialogues and from single utterances."""
    kinds = st.sampled_from(["as it is", "never", "some"])
    present = {}
    for name, there in batch.present.items():
        rows = []
        for row in there:
            kind = data.draw(kinds, label=name)
            kept = [kind != "never"] * len(row)
            if kind == "some":
                kept = data.draw(st.lists(st.booleans(), min_size=len(row), max_size=len(row)))
            rows.append(row & torch.tensor(kept))
        present[name] = torch.stack(rows)
    rows = {name: features * present[name][..., None] for name, features in batch.features.items()}
    return dataclasses.replace(batch, features=rows, present=present)


def unpadded(batch: Batch) -> list[Excerpt]:
    return [
        Excerpt(
            dialogue=str(row),
            turns=torch.arange(size),
            features={name: rows[row, :size] for name, rows in batch.features.items()},
            present={name: there[row, :size] for name, there in batch.present.items()},
            labels=batch.labels[row, :size],
            labelled=batch.labelled[row, :size],
            roles=batch.roles[row, :size],
            positions=batch.positions[row, :size],
        )
        for row, size in enumerate(batch.context.sum(dim=1).tolist())
    ]
