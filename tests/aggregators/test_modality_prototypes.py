"""ModalityPrototypes: what stands in for a missing modality, and where it never does."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fedmer
from fedmer.contracts import ServerState
from fedmer.data.batch import Batch, batch_of
from fedmer.data.missing import restricted
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.modality_prototypes import ModalityPrototypes
from fedmer.plugins.conditions.missing_modality import MissingModality
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.prototypes import Prototypes, PrototypeSet
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

KNOWN = PrototypeSet(
    {
        "text": Prototypes(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([True, True])),
        "audio": Prototypes(torch.tensor([[5.0], [9.0]]), torch.tensor([True, True])),
    }
)
RECEIVED = Broadcast(1, None, KNOWN.pack())


def batch() -> Batch:
    """Four utterances: all there; no audio, twice; nothing. And one place of padding."""
    text = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]])
    audio = torch.tensor([[[7.0], [0.0], [0.0], [0.0], [0.0]]])
    context = torch.tensor([[True, True, True, True, False]])
    return Batch(
        features={"text": text, "audio": audio},
        present={
            "text": torch.tensor([[True, True, True, False, False]]),
            "audio": torch.tensor([[True, False, False, False, False]]),
        },
        context=context,
        labelled=torch.tensor([[True, True, False, False, False]]),
        labels=torch.tensor([[0, 1, -1, -1, -1]]),
        roles=torch.zeros(1, 5, dtype=torch.int64),
        positions=torch.arange(5)[None],
    )


def test_what_is_missing_is_a_mixture_by_similarity() -> None:
    given = batch()
    found = ModalityPrototypes(tau=0.5).on_batch(given, RECEIVED)
    audio = found.features["audio"][0, :, 0]
    shares = torch.tensor([1.0 / 0.5, 0.0]).softmax(dim=0)
    expected = float(shares @ torch.tensor([5.0, 9.0]))
    torch.testing.assert_close(audio, torch.tensor([7.0, expected, 7.0, 7.0, 0.0]))
    torch.testing.assert_close(found.features["text"][0, 3], torch.tensor([0.5, 0.5]))
    assert torch.equal(found.features["text"][0, :3], given.features["text"][0, :3])
    for there in found.present.values():
        assert torch.equal(there, given.context)
    assert torch.equal(given.features["audio"], batch().features["audio"])


def test_the_class_is_told_in_training_alone_and_only_where_it_is_asked_for() -> None:
    rule, given = ModalityPrototypes(fill="label"), batch()
    told = rule.on_batch(given, RECEIVED, training=True).features["audio"][0, :, 0]
    assert told[1] == 9.0
    similar = ModalityPrototypes(fill="similar")
    for other in (
        rule.on_batch(given, RECEIVED),
        similar.on_batch(given, RECEIVED, training=True),
        similar.on_batch(replace(given, labels=given.labels * 0), RECEIVED, training=True),
    ):
        assert other.features["audio"][0, 1, 0] < 5.1
    assert torch.equal(told[2:], similar.on_batch(given, RECEIVED).features["audio"][0, 2:, 0])


def test_what_nobody_knows_stays_missing() -> None:
    assert ModalityPrototypes().on_batch(batch(), Broadcast(0)).features is not None
    given = batch()
    assert ModalityPrototypes().on_batch(given, Broadcast(0)) is given
    nobody = Prototypes(torch.zeros(2, 1), torch.tensor([False, False]))
    received = Broadcast(1, None, PrototypeSet({"text": KNOWN["text"], "audio": nobody}).pack())
    found = ModalityPrototypes().on_batch(given, received)
    assert torch.equal(found.present["audio"], given.present["audio"])
    assert torch.equal(found.features["audio"], given.features["audio"])
    one = Prototypes(torch.tensor([[0.0], [9.0]]), torch.tensor([False, True]))
    received = Broadcast(1, None, PrototypeSet({"text": KNOWN["text"], "audio": one}).pack())
    for training in (False, True):
        found = ModalityPrototypes(fill="label").on_batch(given, received, training)
        assert found.features["audio"][0, 1:4].flatten().tolist() == [9.0, 9.0, 9.0]


CORPUS = small_corpus()


def loop_of(rule: FedAvg, executor: Inline | Workers | None = None, rate: float = 0.6):  # type: ignore[no-untyped-def]
    condition = MissingModality(severity=rate)
    from fedmer.conditions import ClientConditions

    clients = clients_of(CORPUS, VirtualSpeaker(9))
    bad = ClientConditions(condition, len(clients), CORPUS.shape.classes, seed=0)
    lacking = [bad.data(number, data) for number, data in enumerate(clients)]
    return federation(rule, CORPUS, lacking, executor=executor)


@pytest.mark.parametrize("fill", ["similar", "mean", "zero"])
def test_the_server_joins_means_by_their_utterances(fill: str) -> None:
    loop = loop_of(ModalityPrototypes(fill=fill))  # type: ignore[arg-type]
    loop.run_round(0)
    found = PrototypeSet.unpack(loop.state.tensors)
    assert set(found) == {"text", "audio"}
    rows, labels = [], []
    for data in loop.trainer.data.values():
        for part in data.train:
            counted = part.labelled & part.present["audio"]
            rows.append(part.features["audio"][counted])
            labels.append(part.labels[counted])
    every, names = torch.cat(rows), torch.cat(labels)
    for k in range(CORPUS.shape.classes):
        expected = {
            "similar": every[names == k].mean(dim=0),
            "mean": every.mean(dim=0),
            "zero": torch.zeros(4),
        }[fill]
        torch.testing.assert_close(found["audio"].means[k], expected, atol=1e-5, rtol=1e-4)
    assert found["audio"].known.all()


def test_a_class_that_no_client_of_the_cohort_has_keeps_its_prototype() -> None:
    rule, state = ModalityPrototypes(), ServerState(torch.nn.Linear(1, 1))
    state.tensors |= KNOWN.pack()
    loop = loop_of(ModalityPrototypes())
    summary = loop.trainer.fit(0, loop.aggregator.broadcast(loop.state))[0]
    counts = torch.tensor([3, 0])
    means = {"text": torch.full((2, 2), 4.0), "audio": torch.full((2, 1), 4.0)}
    sent = {name: Prototypes(rows, counts > 0, counts) for name, rows in means.items()}
    weights = dict(state.network.state_dict())
    rule.step(state, [replace(summary, tensors=PrototypeSet(sent).pack())], {}, weights)
    found = PrototypeSet.unpack(state.tensors)
    assert found["audio"].means.tolist() == [[4.0], [9.0]]
    assert found["text"].means.tolist() == [[4.0, 4.0], [0.0, 1.0]]


def test_where_nothing_is_missing_it_is_fed_avg() -> None:
    ours, plain = loop_of(ModalityPrototypes(), rate=0.0), loop_of(FedAvg(), rate=0.0)
    for number in range(2):
        ours.run_round(number)
        plain.run_round(number)
    assert same_bits(weights_of(ours), weights_of(plain))
    lacking = loop_of(ModalityPrototypes())
    masked = loop_of(FedAvg())
    for number in range(2):
        lacking.run_round(number)
        masked.run_round(number)
    assert not same_bits(weights_of(lacking), weights_of(masked))


def test_it_is_the_same_in_processes_and_refuses_a_stack() -> None:
    found = []
    for executor in (Inline(), Workers(2)):
        loop = loop_of(ModalityPrototypes(), executor)
        for number in range(2):
            loop.run_round(number)
        executor.close()
        found.append(weights_of(loop))
    assert same_bits(*found)
    network = {"network_of": lambda corpus, seed: EarlyFusion(corpus.shape, hidden=8)}
    clients = clients_of(CORPUS, VirtualSpeaker(9))
    with pytest.raises(InputError, match="ModalityPrototypes changes what"):
        federation(ModalityPrototypes(), CORPUS, clients, executor=Stacked(), **network)  # type: ignore[arg-type]


def test_holdouts_and_the_model_by_itself_are_filled_too(here: Path) -> None:
    corpus = synthetic_corpus(seed=0, dialogues=25, features={"text": 6, "audio": 4})
    run = fedmer.fit(
        corpus,
        aggregator=ModalityPrototypes(),
        network=EarlyFusion(hidden=8),
        partitioner=Dialogue(3),
        conditions=MissingModality(),
        rounds=2,
    )
    model = run.model
    seen: list[Batch] = []
    model.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    dialogue = corpus.conversations[corpus.part("test")[0]]
    gone = np.zeros(len(dialogue), dtype=bool)
    model.predict(replace(dialogue, present={**dialogue.present, "audio": gone}))
    assert seen[0].present["audio"].all()
    assert (seen[0].features["audio"] != 0).any()
    whole = model.predict(dialogue)
    assert np.array_equal(whole.probabilities, run.model.predict(dialogue).probabilities)
    kept = np.load(run.folder / "prototypes.npz")
    assert kept["prototypes.audio"].shape == (2, 6, 4)


def test_a_client_scores_what_it_kept_back_with_what_stands_in() -> None:
    loop = loop_of(ModalityPrototypes())
    loop.run_round(0)
    trainer, knowledge = loop.trainer, loop.knowledge()
    seen: list[Batch] = []
    trainer.client.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    parts: Sequence = restricted(trainer.data[0].train, ["text"])  # type: ignore[type-arg]
    trainer.evaluate(parts, knowledge)
    assert torch.equal(seen[0].present["audio"], seen[0].context)


def test_the_batches_of_other_rules_are_left_alone() -> None:
    given = batch_of(CORPUS, [0, 1])
    assert FedAvg().on_batch(given, RECEIVED, training=True) is given


def test_a_temperature_of_zero_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"tau is 0; expected a number above 0"):
        ModalityPrototypes(tau=0)
