"""What a node sends, byte for byte: nothing of one utterance, no names, no words, no order of
labels."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

import fedmer
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats.native import write
from fedmer.data.remote import Request
from fedmer.data.standardise import statistics
from fedmer.defaults import DEFAULTS
from fedmer.flower.node import work as node_work
from fedmer.flower.node.data import NodeData
from fedmer.flower.node.policy import Policy
from fedmer.flower.server.deployment import _description
from fedmer.flower.wire import RefusedError, header, put, put_broadcast, take, take_answer
from fedmer.messages import Broadcast
from fedmer.parts import CLIENT_PARTS, build_trainer
from tests.federations import small_corpus
from tests.flower.test_parts import part

RUN = "0123456789abcdef" * 2
WORDS = "a sentence that nobody else may read"
NETWORK = part("networks", "SDT", hidden=8, heads=2)


def telling(corpus: ConversationCorpus) -> ConversationCorpus:
    """The same dialogues, with names and words that are found again wherever they turn up."""
    dialogues = []
    for number, dialogue in enumerate(corpus.conversations):
        dialogues.append(
            Conversation(
                id=f"secret-dialogue-{number}",
                features=dialogue.features,
                present=dialogue.present,
                speakers=np.array([f"secret-person-{name}" for name in dialogue.speakers]),
                labels=dialogue.labels,
                split=dialogue.split,
                utterances=tuple(f"{WORDS} {i}" for i in range(len(dialogue))),
            )
        )
    return ConversationCorpus("secret-corpus", dialogues, corpus.label_names)


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    write(telling(small_corpus()), tmp_path / "secret-file.npz")
    Policy(secure_sum=False).write(tmp_path / "policy.json")
    return {"data": str(tmp_path / "secret-file.npz"), "folder": str(tmp_path)}


def head(settings: Any, corpus: ConversationCorpus, standardise: str) -> ConfigRecord:
    return ConfigRecord(
        {
            "version": fedmer.__version__,
            "seconds": 600.0,
            "standardise": standardise,
            "holdout": 0.2,
            "seed": 0,
            "run": RUN,
            "attempt": "f" * 32,
            "begin": 0,
            "settings": json.dumps(settings),
            "network": "SDT",
            "labels": list(corpus.label_names),
            "modalities": list(corpus.shape.features),
            "widths": list(corpus.shape.features.values()),
            "speakers": corpus.shape.speakers,
            "extractors": [""] * len(corpus.shape.features),
        }
    )


def asked(kind: str, content: RecordDict, own: dict[str, str]) -> RecordDict:
    found = node_work.answer(kind, content, own, RecordDict())
    assert "failure" not in found, dict(found.config_records["failure"])
    return found


class Crossing:
    """The answers of a node to describe, fit (twice) and evaluate, under a rule."""

    def __init__(self, rule: str, standardise: str, own: dict[str, str]) -> None:
        path = Path(own["data"])
        self.corpus = NodeData.read(path, Request(standardise, 0.2, 0)).corpus
        settings = {key: deepcopy(DEFAULTS[key]) for key in CLIENT_PARTS}
        settings |= {"network": NETWORK, "aggregator": part("aggregators", rule)}
        settings |= {"seed": 0, "precision": "32-true"}
        run = head(settings, self.corpus, standardise)
        self.request = Request(standardise, 0.2, 0)
        self.answers: dict[str, RecordDict] = {}
        asking = RecordDict({"run": run})
        self.answers["describe"] = asked("describe", asking, own)
        told = _description("node", self.answers["describe"])
        numbers: dict[str, torch.Tensor] = {"class_counts": told.counts}
        self.statistics = statistics([told.moments])
        for name, found in self.statistics.items():
            numbers[f"{name}.mean"] = torch.from_numpy(found.mean)
            numbers[f"{name}.deviation"] = torch.from_numpy(found.deviation)
        data = {0: NodeData.read(path, self.request).client(None)}
        self.trainer = build_trainer(settings, self.corpus.shape, data)
        weights = dict(self.trainer.weights.clone()) if self.trainer.exchanged else None
        tensors: dict[str, torch.Tensor] = {}
        for round in (0, 1):
            message = RecordDict({"run": run, "round": header(round, 0)})
            put_broadcast(message, Broadcast(round, weights, tensors))
            put(message, "statistics", numbers)
            name = f"fit {round}"
            self.answers[name] = asked("fit", message, own)
        message["round"] = header(2, 0)
        self.answers["evaluate"] = asked("score", message, own)

    @property
    def labels(self) -> list[list[int]]:
        return [dialogue.labels.tolist() for dialogue in self.corpus.conversations]

    def rows(self) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
        """Every feature vector, as it is in the file and as the network sees it."""
        for dialogue in self.corpus.conversations:
            for name, features in dialogue.features.items():
                for i in np.flatnonzero(dialogue.present[name]):
                    yield f"{dialogue.id} {i} {name}", features[i]
                    if name in self.statistics:
                        row = self.statistics[name].standardise(features[i : i + 1])[0]
                        yield f"{dialogue.id} {i} {name}, standardised", row


def whole(content: RecordDict) -> bytes:
    """All that Flower would send of it."""
    return b"".join(part.deflate() for part in get_all_nested_objects(content).values())


def arrays(content: RecordDict) -> Iterator[np.ndarray[Any, Any]]:
    for record in content.array_records.values():
        for array in record.values():
            yield array.numpy()


def numbers_in(content: RecordDict) -> Iterator[list[float]]:
    """All sequences of numbers: arrays, and lists of the configuration."""
    for array in arrays(content):
        yield array.ravel().tolist()
    for record in content.config_records.values():
        values = list(record.values())
        yield [v for v in values if isinstance(v, int | float)]
        for value in values:
            if isinstance(value, list) and value and not isinstance(value[0], str):
                yield list(value)


def finds(row: np.ndarray[Any, Any], found: np.ndarray[Any, Any]) -> bool:
    """Does the row stand anywhere in the numbers, up to rounding and whatever its sign?"""
    if found.size < row.size:
        return False
    numbers, wanted = np.abs(found.astype(np.float64)), np.abs(row.astype(np.float64))
    begins = np.isclose(numbers[: found.size - row.size + 1], wanted[0], rtol=1e-3, atol=1e-6)
    return any(
        np.allclose(numbers[i : i + row.size], wanted, rtol=1e-3, atol=1e-6)
        for i in np.flatnonzero(begins)
    )


@pytest.mark.parametrize("standardise", ["federated", "none"])
@pytest.mark.parametrize("rule", ["FedAvg", "Distance", "FedProto"])
def test_nothing_of_one_turn_goes_up(rule: str, standardise: str, own: dict[str, str]) -> None:
    sent = Crossing(rule, standardise, own)
    rows = list(sent.rows())
    assert len(rows) > 400
    for phase, content in sent.answers.items():
        raw = whole(content)
        for word in (b"secret", b"Ses0", WORDS.encode()):
            assert word not in raw, (phase, word)
        found = [array.ravel() for array in arrays(content) if array.dtype.kind == "f"]
        for what, row in rows:
            for kind in (np.float32, np.float64):
                assert row.astype(kind).tobytes() not in raw, (phase, what)
            assert not any(finds(row, vector) for vector in found), (phase, what)
        for sequence in numbers_in(content):
            for labels in sent.labels:
                assert not _within(labels, sequence), (phase, labels)


@pytest.mark.parametrize("rule", ["FedAvg", "Distance", "FedProto"])
def test_what_goes_up_is_what_the_manual_lists(rule: str, own: dict[str, str]) -> None:
    sent = Crossing(rule, "federated", own)
    described = sent.answers["describe"]
    assert set(described) == {"numbers", "numbers.layout", "description"}
    assert set(described.config_records["description"]) == {
        *("labels", "modalities", "widths", "speakers", "held", "extractors"),
    }
    assert set(take(described, "numbers")) == {
        "counts",
        *(f"{m}.{what}" for m in ("text", "audio") for what in ("count", "total", "squares")),
    }
    averages = rule != "FedProto"
    for name in ("fit 0", "fit 1"):
        content = sent.answers[name]
        expected = {"summary", "summary.tensors", "summary.tensors.layout"}
        assert set(content) == expected | ({"update", "update.layout"} if averages else set())
        summary, update = take_answer(content, 0)
        assert set(content.config_records["summary"]) == {"examples", "train_loss", "steps"}
        assert summary.examples == int(take(described, "numbers")["counts"].sum())
        assert (update is not None) == averages
        if update is not None:
            assert list(update.weights) == list(sent.trainer.weights)
        for tensor in summary.tensors.values():
            # A row a class at most, and never one an utterance.
            assert tensor.ndim == 0 or tensor.shape[0] == sent.corpus.shape.classes
    (name,) = sent.answers["evaluate"]
    assert name == "confusion"
    assert set(sent.answers["evaluate"].config_records[name]) == {"counts"}


def test_a_search_that_finds_nothing_could_find_something(own: dict[str, str]) -> None:
    """The searches of this file, on messages that do leak."""
    sent = Crossing("FedAvg", "federated", own)
    _, row = next(sent.rows())
    leak = RecordDict()
    put(leak, "w", {"x": torch.from_numpy(np.concatenate([[1.0], -row, [2.0]]).astype(np.float32))})
    assert any(finds(row, array.ravel()) for array in arrays(leak))
    plain = RecordDict()
    put(plain, "w", {"x": torch.from_numpy(row.copy())})
    assert row.tobytes() in whole(plain)
    plain["c"] = ConfigRecord({"n": [9, *sent.labels[0], 9], "s": "secret"})
    assert any(_within(sent.labels[0], sequence) for sequence in numbers_in(plain))
    assert b"secret" in whole(plain)


def test_a_failure_tells_its_kind_and_no_more(
    own: dict[str, str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise ValueError("the features of secret-person-Ann are 0.25")

    monkeypatch.setattr(node_work, "_describe", broken)
    content = RecordDict({"run": ConfigRecord({"version": fedmer.__version__, "seconds": 60.0})})
    answer = node_work.answer("describe", content, own, RecordDict())
    assert b"secret" not in whole(answer)
    said = answer.config_records["failure"]["sentence"]
    assert said == "ValueError; its own log says more"
    assert "secret-person-Ann" in capfd.readouterr().err


@pytest.mark.parametrize("change", [{"version": "0.0.9"}, {"run": "../../etc"}])
def test_a_node_refuses_what_does_not_fit(change: dict[str, Any], own: dict[str, str]) -> None:
    corpus = NodeData.read(Path(own["data"]), Request("none", 0.2, 0)).corpus
    settings = {key: deepcopy(DEFAULTS[key]) for key in CLIENT_PARTS}
    settings |= {"network": NETWORK, "seed": 0, "precision": "32-true"}
    message = RecordDict({"run": ConfigRecord(dict(head(settings, corpus, "none")) | change)})
    message["round"] = header(0, 0)
    put(message, "statistics", {"class_counts": torch.ones(corpus.shape.classes).long()})
    put(message, "tensors", {})
    answer = node_work.answer("fit", message, own, RecordDict())
    said = str(answer.config_records["failure"]["sentence"])
    expected = {
        "version": f"it has fedmer {fedmer.__version__}, and the server 0.0.9; install the same",
        "run": "the run is called '../../etc', expected 32 hexadecimal digits",
    }
    assert expected[next(iter(change))] in said


@pytest.mark.parametrize(
    ("tensors", "told"),
    [
        ({"counts": torch.tensor([1.5, 2.0])}, {}),
        ({"counts": torch.tensor([-1, 2])}, {}),
        ({"counts": torch.tensor([0, 0])}, {}),
        ({"counts": torch.tensor([1, 2, 3])}, {}),
        ({"counts": torch.tensor([2**62, 2**62])}, {}),
        ({"x.count": torch.tensor([3, 4])}, {}),
        ({"x.count": torch.tensor([-3])}, {}),
        ({"x.total": torch.ones(5).double()}, {}),
        ({"x.squares": -torch.ones(4).double()}, {}),
        ({}, {"widths": [5]}),
        ({}, {"widths": [0]}),
        ({}, {"widths": [4, 4]}),
        ({}, {"widths": ["four"]}),
        ({}, {"speakers": 0}),
        ({}, {"speakers": 10**6}),
        ({}, {"held": -1}),
        ({}, {"labels": []}),
        ({}, {"extractors": []}),
        ({}, {"extractors": [3]}),
        ({}, {"extractors": ["{"]}),
        ({}, {"extractors": ["[" * 4000]}),
        ({}, {"extractors": [ExtractorRecord("a.B", {"x": "y" * 4000}).to_json()]}),
        ({}, {"extractors": [ExtractorRecord("a.B", digest="\x1b[2J").to_json()]}),
        ({}, {"labels": ["a", "\x1b[2J"]}),
        ({}, {"labels": ["a", "b" * 201]}),
        ({"counts": torch.tensor([1, 10**13])}, {}),
        ({"counts": torch.ones(2000).long()}, {"labels": ["a"] * 2000}),
    ],
)
def test_a_description_that_cannot_be_is_refused(
    tensors: dict[str, torch.Tensor], told: dict[str, Any]
) -> None:
    sums = {"x.count": torch.tensor([3])}
    sums |= {f"x.{what}": torch.ones(4, dtype=torch.float64) for what in ("total", "squares")}
    facts = {"labels": ["a", "b"], "modalities": ["x"], "widths": [4], "speakers": 2, "held": 0}
    facts |= {"extractors": [""]}

    def content(tensors: dict[str, torch.Tensor], told: dict[str, Any]) -> RecordDict:
        found = RecordDict({"description": ConfigRecord(facts | told)})
        put(found, "numbers", {"counts": torch.tensor([1, 2]), **sums, **tensors})
        return found

    assert _description("node", content({}, {})).counts.tolist() == [1, 2]
    with pytest.raises(
        RefusedError, match=r"its description (is impossible|cannot be read)|record of|what made"
    ):
        _description("node", content(tensors, told))


def _within(labels: list[int], sequence: list[float]) -> bool:
    """Do the labels of a dialogue stand in a sequence of numbers, in order and side by side?"""
    size = len(labels)
    return any(sequence[i : i + size] == labels for i in range(len(sequence) - size + 1))
