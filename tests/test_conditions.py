"""Clients that are bad: whom it concerns, what they do, and what it never touches."""

import importlib
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts import Condition, ConditionContext, Executor
from fedmer.data.client_data import ClientData
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.conditions.broken_modality import BrokenModality
from fedmer.plugins.conditions.collusion import Collusion
from fedmer.plugins.conditions.feature_noise import FeatureNoise
from fedmer.plugins.conditions.few_examples import FewExamples
from fedmer.plugins.conditions.label_absence import LabelAbsence
from fedmer.plugins.conditions.label_flip import LabelFlip
from fedmer.plugins.conditions.label_noise import LabelNoise
from fedmer.plugins.conditions.missing_at_test import MissingAtTest
from fedmer.plugins.conditions.model_replacement import ModelReplacement
from fedmer.plugins.conditions.nan_update import NaNUpdate
from fedmer.plugins.conditions.random_update import RandomUpdate
from fedmer.plugins.conditions.scaling import Scaling
from fedmer.plugins.conditions.sign_flip import SignFlip
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.registry import plugins
from fedmer.prototypes import Prototypes, PrototypeSet
from tests.federations import federation, same_bits, weights_of

CORPUS = synthetic_corpus(seed=0, dialogues=40, features={"text": 6, "audio": 4})
CONTEXT = ConditionContext(client=1, among=[1, 3], clients=6, classes=6, seed=7, common=8)
MATRIX = [[0.0] * 6 for _ in range(6)]
MATRIX[0][2] = 3.0
MATRIX[1] = [1.0, 9.0, 0.0, 1.0, 0.0, 0.0]


class Hostile(Condition):
    """Changes all that it can reach, in place too."""

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        assert not data.holdout
        for part in data.train:
            for rows in part.features.values():
                rows.fill_(1e9)
            part.labels.fill_(0)
        return ClientData("other", data.train, data.train)


def every_condition() -> list[type[Condition]]:
    """Those that hold for clients; MissingAtTest holds for none."""
    found = [Hostile]
    for plugin in plugins("conditions"):
        module, _, name = plugin.path.rpartition(".")
        found.append(getattr(importlib.import_module(module), name))
    return [kind for kind in found if kind is not MissingAtTest]


def module_of(conditions: Condition | list[Condition] | None) -> FederatedDataModule:
    data = FederatedDataModule(Dialogue(6), conditions=conditions, holdout=0.2)
    data._corpus = CORPUS
    data.setup("fit")
    return data


def numbers(parts: Any) -> list[torch.Tensor]:
    return [
        tensor
        for part in parts
        for tensor in (*part.features.values(), *part.present.values(), part.labels, part.labelled)
    ]


def same(one: Any, other: Any) -> bool:
    one, other = numbers(one), numbers(other)
    pairs = zip(one, other, strict=len(one) == len(other))
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in pairs)


PLAIN = module_of(None).clients


@pytest.mark.parametrize("kind", every_condition())
def test_chosen_clients_alone_change_and_nothing_that_is_scored(kind: type[Condition]) -> None:
    condition = kind(fraction=0.5)
    data, clean = module_of(condition), module_of(None)
    among = condition.chosen(6, seed=0)
    assert len(among) == 3
    for number, (before, after) in enumerate(zip(PLAIN, data.clients, strict=True)):
        assert same(before.holdout, after.holdout)
        assert before.holdout
        assert before.name == after.name
        changes = kind.on_data is not Condition.on_data and number in among
        assert same(before.train, after.train) != changes, number
        assert after.examples >= 1
        assert all(part.labelled.any() for part in after.train)
    for part in ("val", "test"):
        assert same(clean.excerpts(part), data.excerpts(part))
        assert clean.excerpts(part)
    again = module_of(kind(fraction=0.5)).clients
    assert all(same(a.train, b.train) for a, b in zip(data.clients, again, strict=True))


@pytest.mark.parametrize(
    "condition",
    [kind(severity=0.0) for kind in every_condition()[1:] if kind.severity_is_a_share]
    + [FeatureNoise(severity=0.0), Scaling(severity=1.0)],
    ids=lambda condition: type(condition).__name__,
)
def test_where_nothing_is_wrong_nothing_changes(condition: Condition) -> None:
    assert same(condition.on_data(PLAIN[0], CONTEXT).train, PLAIN[0].train)
    _, update = condition.on_sent(Summary(1, 3), sent(), RECEIVED, CONTEXT)
    assert update is not None
    torch.testing.assert_close(update.weights, sent().weights)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.floats(0, 1), st.integers(0, 99))
def test_a_larger_fraction_holds_for_those_of_a_smaller_one(
    clients: int, one: float, other: float, seed: int
) -> None:
    one, other = sorted((one, other))
    few, many = (LabelFlip(fraction=f).chosen(clients, seed) for f in (one, other))
    assert set(few) <= set(many)
    assert abs(len(few) - one * clients) <= 0.5
    assert few == sorted(few)
    assert SignFlip(fraction=one).chosen(clients, seed) == few
    assert LabelNoise(fraction=1.0).chosen(clients, seed) == list(range(clients))


def test_another_seed_chooses_others() -> None:
    one = LabelFlip(0.3).chosen(30, seed=0)
    assert LabelFlip(0.3, seed=1).chosen(30, seed=0) != one
    assert LabelFlip(0.3).chosen(30, seed=1) != one


def labels_of(data: ClientData) -> torch.Tensor:
    return torch.cat([part.labels for part in data.train])


def test_labels_are_shifted_confused_or_gone() -> None:
    before, known = labels_of(PLAIN[1]), torch.cat([p.labelled for p in PLAIN[1].train])
    flipped = labels_of(LabelFlip().on_data(PLAIN[1], CONTEXT))
    assert torch.equal(flipped, torch.where(known, (before + 1) % 6, before))
    noisy = labels_of(LabelNoise(severity=0.3).on_data(PLAIN[1], CONTEXT))
    assert abs(float((noisy != before)[known].float().mean()) - 0.3) < 0.1
    assert len(set(((noisy - before) % 6)[known & (noisy != before)].tolist())) == 5
    confused = labels_of(LabelNoise(severity=1.0, confusion=MATRIX).on_data(PLAIN[1], CONTEXT))
    assert set(confused[before == 0].tolist()) <= {2}
    assert set(confused[before == 1].tolist()) == {0, 3}
    assert torch.equal(confused[before > 1], before[before > 1])
    absent = LabelAbsence(severity=0.7).on_data(PLAIN[1], CONTEXT)
    assert abs(absent.examples / PLAIN[1].examples - 0.3) < 0.12
    assert LabelAbsence(severity=1.0).on_data(PLAIN[1], CONTEXT).examples == 1
    for part in absent.train:
        assert (part.labels[~part.labelled] == -1).all()
        assert (part.labels[part.labelled] >= 0).all()


def test_features_are_noisy_loud_or_stuck() -> None:
    lacking = [replace(part, present={**part.present, "text": part.present["text"].clone()},
                       features={**part.features, "text": part.features["text"].clone()})
               for part in PLAIN[1].train]  # fmt: skip
    lacking[0].present["text"][1] = False
    lacking[0].features["text"][1] = 0
    data = replace(PLAIN[1], train=lacking)

    def rows(of: ClientData, name: str) -> torch.Tensor:
        return torch.cat([part.features[name] for part in of.train])

    noisy = FeatureNoise(severity=2.0, gain=3.0, modalities=["text"]).on_data(data, CONTEXT)
    rest = rows(noisy, "text") - 3 * rows(data, "text")
    assert abs(float(rest.std()) - 2) < 0.15
    assert (rest[1] == 0).all()
    assert torch.equal(rows(noisy, "audio"), rows(data, "audio"))
    stuck = BrokenModality(modality="text").on_data(data, CONTEXT)
    found = rows(stuck, "text")
    assert (found[1] == 0).all()
    assert torch.equal(found[2:], found[:1].expand(len(found) - 2, -1))
    assert torch.equal(rows(stuck, "audio"), rows(data, "audio"))
    drawn = {
        name for seed in range(20) for name in ("text", "audio")
        if not torch.equal(rows(BrokenModality().on_data(data, replace(CONTEXT, seed=seed)), name),
                           rows(data, name))
    }  # fmt: skip
    assert drawn == {"text", "audio"}


def test_few_examples_are_at_least_one_dialogue_in_its_order() -> None:
    names = [part.dialogue for part in PLAIN[1].train]
    for severity, count in ((1.0, 1), (0.5, round(0.5 * len(names))), (0.0, len(names))):
        kept = [
            part.dialogue
            for part in FewExamples(severity=severity).on_data(PLAIN[1], CONTEXT).train
        ]
        assert len(kept) == count
        assert kept == [name for name in names if name in kept]


START = {"w": torch.tensor([1.0, -2.0, 0.5]), "seen": torch.tensor(4)}
PROTOTYPES = PrototypeSet({"fused": Prototypes(torch.ones(6, 2), torch.arange(6) < 3)})
RECEIVED = Broadcast(2, START, PROTOTYPES.pack())


def sent() -> Update:
    weights = {"w": torch.tensor([2.0, -2.0, 1.0]), "seen": torch.tensor(5), "more/": torch.ones(1)}
    return Update(1, weights)


def after(condition: Condition, **context: Any) -> dict[str, torch.Tensor]:
    before = sent()
    _, update = condition.on_sent(Summary(1, 3), before, RECEIVED, replace(CONTEXT, **context))
    assert update is not None
    assert same_bits(before.weights, sent().weights), "nothing changes in place"
    assert torch.equal(update.weights["seen"], torch.tensor(5))
    return {"w": update.weights["w"] - START["w"], "more/": update.weights["more/"]}


def test_attackers_send_what_their_equation_says() -> None:
    change = sent().weights["w"] - START["w"]
    assert torch.equal(after(SignFlip(severity=2.0))["w"], -2 * change)
    assert torch.equal(after(SignFlip())["more/"], -torch.ones(1))
    assert torch.equal(after(Scaling())["w"], 10 * change)
    # Three times as many clients as attackers: alone in moving, they make the mean their network.
    assert torch.equal(after(ModelReplacement())["w"], 3 * change)
    length = torch.cat([change, torch.ones(1)]).norm()
    for kind in (RandomUpdate, Collusion):
        found = torch.cat(list(after(kind(severity=0.5)).values()))
        assert float(found.norm()) == pytest.approx(0.5 * float(length), rel=1e-5)
    alone, other = (after(RandomUpdate(), seed=seed)["w"] for seed in (1, 2))
    assert not torch.allclose(alone, other)
    together, other = (after(Collusion(), seed=seed)["w"] for seed in (1, 2))
    assert torch.equal(together, other)
    assert not torch.equal(together, after(Collusion(), common=9)["w"])
    assert after(NaNUpdate(severity=0.3))["w"].isnan().tolist() == [True, False, False]


def test_colluders_weigh_the_most_that_distance_gives() -> None:
    counts = torch.tensor([5, 5, 5, 5, 0, 0])
    own = PrototypeSet({"fused": Prototypes(torch.full((6, 2), 4.0), counts > 0, counts)})
    summary, _ = Collusion().on_sent(Summary(1, 20, tensors=own.pack()), sent(), RECEIVED, CONTEXT)
    found = PrototypeSet.unpack(summary.tensors)["fused"]
    assert found.means[:, 0].tolist() == [1, 1, 1, 4, 4, 4]
    assert found.counts is counts
    rule, loop = Distance(), federation(FedAvg())
    loop.state.tensors = PROTOTYPES.pack()
    weights = rule.weigh(
        [replace(summary, client=0), Summary(1, 20, tensors=own.pack())], loop.state
    )
    assert weights[0] > 2 * weights[1]


def loop_with(
    conditions: list[Condition], executor: Executor | None = None, rule: Any = None
) -> FederatedLoop:
    data = module_of(conditions)
    loop = federation(rule or FedAvg(), CORPUS, data.clients, executor=executor)
    loop.trainer.conditions = data.conditions
    return loop


def test_a_run_is_the_same_on_every_executor_and_after_a_stop() -> None:
    bad: list[Condition] = [LabelFlip(0.4), RandomUpdate(0.2), Collusion(0.2, seed=1)]
    found = []
    for executor in (Inline(), Workers(2)):
        loop = loop_with(bad, executor, Distance())
        for number in range(2):
            loop.run_round(number)
        executor.close()
        found.append(weights_of(loop))
    assert same_bits(*found)
    assert not same_bits(found[0], weights_of(loop_with([])))


@pytest.mark.parametrize("make", [Inline, lambda: Workers(2)])
def test_a_round_goes_on_without_clients_that_send_nan(make: Any) -> None:
    condition = NaNUpdate(0.3, severity=0.01)
    among = condition.chosen(6, 0)
    executor = make()
    loop = loop_with([condition], executor, FedAvg())
    report = loop.run_round(0)
    executor.close()
    assert set(report.failures) == set(among)
    for client in among:
        assert report.failures[client].startswith(f"client {client} was left out: its update holds")
    expected = loop_with([], Inline(), FedAvg())
    expected.selector = SimpleNamespace(  # type: ignore[assignment]
        select=lambda *_: [c for c in range(6) if c not in among]
    )
    expected.run_round(0)
    assert same_bits(weights_of(loop), weights_of(expected))


def test_weights_of_a_rule_that_sends_none_cannot_be_attacked() -> None:
    with pytest.raises(InputError, match=r"--conditions SignFlip changes the weights .* send none"):
        loop_with([SignFlip(1.0)], rule=FedProto()).run_round(0)


def test_clients_on_machines_of_their_own_have_no_conditions() -> None:
    data = FederatedDataModule(Dialogue(6), conditions=LabelFlip())
    executor = SimpleNamespace(remote=object())
    data.trainer = SimpleNamespace(lightning_module=SimpleNamespace(executor=executor))  # type: ignore[assignment]
    with pytest.raises(InputError, match="--conditions change clients of a simulation"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LabelFlip(1.5), r"LabelFlip: fraction is 1.5; expected a share .* \[0, 1\]"),
        (lambda: LabelFlip(float("nan")), "LabelFlip: fraction is nan"),
        (lambda: LabelAbsence(severity=2.0), r"LabelAbsence: severity is 2.0; .* in \[0, 1\]"),
        (lambda: Scaling(severity=-1.0), "Scaling: severity is -1.0; expected a number of 0 or m"),
        (lambda: SignFlip(severity=float("inf")), "SignFlip: severity is inf"),
        (lambda: FeatureNoise(gain=float("nan")), "FeatureNoise: gain is nan"),
        (lambda: LabelNoise(confusion=[[1.0, 2.0]]), "confusion has rows of other lengths"),
        (lambda: LabelNoise(confusion=[[1, -1], [1, 1]]), "confusion has a number below 0"),
        (
            lambda: LabelNoise(confusion=[[1, 1], [1, 1]]).on_data(PLAIN[0], CONTEXT),
            "LabelNoise: confusion has 2 rows, and the corpus has 6 emotions",
        ),
        (
            lambda: FeatureNoise(modalities=["smell"]).on_data(PLAIN[0], CONTEXT),
            "FeatureNoise: the corpus has no modality 'smell'; it has text, audio",
        ),
        (
            lambda: BrokenModality(modality="smell").on_data(PLAIN[0], CONTEXT),
            "BrokenModality: the corpus has no modality 'smell'",
        ),
        (lambda: Condition(), "a condition has options but no name; add --conditions NAME"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        make()
