"""What a node does when it is asked: looks at its own data, trains on it, and sends what it may."""

import os
import secrets
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.app import ConfigRecord, RecordDict

import fedmer
from fedmer.data.remote import Request
from fedmer.data.standardise import Statistics
from fedmer.errors import InputError
from fedmer.flower.extractors import put_extractors, take_extractors, unlike
from fedmer.flower.node import client_side
from fedmer.flower.node.data import NodeData, NodeMemory, shape_for
from fedmer.flower.node.first_answer import FirstAnswer
from fedmer.flower.node.policy import Policy
from fedmer.flower.node.request import (
    request_in,
    round_in,
    run_in,
    seconds_in,
    settings_in,
    speakers_in,
    statistics_in,
)
from fedmer.flower.records import put_failure
from fedmer.flower.wire import difference, layout_of, put
from fedmer.local import LocalTrainer
from fedmer.parts import build_trainer
from fedmer.plugins import registry
from fedmer.plugins.aggregators._closed_form import MARK
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.weights import Layout


def answer(
    kind: str, content: RecordDict, node: Mapping[str, Any], state: RecordDict
) -> RecordDict:
    """Do what is asked, in the time that there is, and say in a sentence if it cannot be done.

    Args:
        kind: ``describe``, ``fit`` or ``score``.
        content: What the server sent.
        node: The node's ``folder`` and ``data``.
        state: What Flower keeps for the node; changed in place.
    """
    result = RecordDict()
    try:
        policy = Policy.of(str(node["folder"]))
        policy.check_message(content)
        head: Any = content["run"]
        # Whoever waits has given up by then, and a node that hangs takes no other message.
        clock = threading.Timer(seconds_in(head), os._exit, [1])
        clock.daemon = True
        clock.start()
        try:
            _check_version(str(head["version"]))
            if kind == "describe":
                return _describe(content, node)
            if kind == "fit":
                return _fit(content, node, state, policy)
            return _score(content, node, policy)
        finally:
            clock.cancel()
    except InputError as error:
        put_failure(result, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the server has to know
        # The whole story stays here: what an exception says may hold data.
        traceback.print_exc(file=sys.stderr)
        put_failure(result, f"{type(error).__name__}; its own log says more")
    return result


def _check_version(theirs: str) -> None:
    if theirs != fedmer.__version__:
        raise InputError(
            f"it has fedmer {fedmer.__version__}, and the server {theirs}; install the same "
            "version on both"
        )


def _describe(content: RecordDict, node: Mapping[str, Any]) -> RecordDict:
    head: Any = content["run"]
    request = request_in(head)
    description = _data(node, request).describe(request)
    answer = RecordDict()
    counts = {f"{name}.count": np.array([m.count]) for name, m in description.moments.items()}
    sums = {f"{name}.total": m.total for name, m in description.moments.items()}
    squares = {f"{name}.squares": m.squares for name, m in description.moments.items()}
    arrays = {k: torch.from_numpy(v) for k, v in {**counts, **sums, **squares}.items()}
    put(answer, "numbers", {"counts": description.counts, **arrays})
    answer["description"] = ConfigRecord(
        {
            "labels": list(description.labels),
            "modalities": list(description.features),
            "widths": list(description.features.values()),
            "speakers": description.speakers,
            "held": description.held,
            "extractors": put_extractors(description.extractors, description.features),
        }
    )
    return answer


def _fit(
    content: RecordDict, node: Mapping[str, Any], state: RecordDict, policy: Policy
) -> RecordDict:
    round = round_in(content)
    head: Any = content["round"]
    trainer = _trainer(content, node, policy)
    masked = head["keep"] is True
    if trainer.exchanged:
        policy.check_update(masked)
    if masked or trainer.privacy:
        # If the order of batches and dropout could be had again, the sums of two runs with and
        # without this node would differ by its update; and so would noise be taken away again.
        trainer.client.seed = secrets.randbits(63)
    memory = _memory(content, node)
    answer, remembered = client_side.fit(trainer, content, state, memory.before(round))
    memory.after(round, remembered)
    return answer


def _score(content: RecordDict, node: Mapping[str, Any], policy: Policy) -> RecordDict:
    trainer = _trainer(content, node, policy)
    return client_side.score(trainer, content, _memory(content, node).before(round_in(content)))


def _trainer(content: RecordDict, node: Mapping[str, Any], policy: Policy) -> LocalTrainer:
    """The client side of this node, as the server's settings say.

    Raises:
        InputError: Its data are of another kind, its network is another, or its owner does not
            want the rule.
    """
    for kind in ("networks", "aggregators", "privacy"):
        registry.load(kind)
    head: Any = content["run"]
    settings = settings_in(head)
    request = request_in(head)
    data = _data(node, request)
    theirs = (list(head["labels"]), dict(zip(head["modalities"], head["widths"], strict=True)))
    expected = (list(data.corpus.label_names), dict(data.corpus.shape.features))
    if expected != theirs:
        raise InputError(
            f"its corpus has the emotions {expected[0]} and the features {expected[1]}, and this "
            f"run has {theirs[0]} and {theirs[1]}"
        )
    made = take_extractors(head["extractors"], list(data.corpus.shape.features))
    odd = unlike(data.corpus.extractors, made)
    if odd is not None:
        raise InputError(
            f"its features '{odd}' were made by {data.corpus.extractors[odd]}, and those of this "
            f"run by {made[odd]}; extract them again in that way"
        )
    counts, statistics = statistics_in(content, request.standardise, data.corpus.shape)
    by: dict[str, Statistics] | None = None
    if request.standardise != "none":
        by = statistics if request.standardise == "federated" else data.own_statistics()
    round_head: Any = content["round"]
    held = {round_head["client"]: data.client(by)}
    shape = shape_for(data.corpus, speakers_in(head))
    trainer = build_trainer(settings, shape, held, counts)
    policy.check_rule(trainer.aggregator.name)
    if any(name == MARK for name, _, _ in layout_of(content, "tensors").parts):
        policy.check_rule(Analytic.__name__)
    _check_network(trainer, content, str(head["network"]))
    return trainer


def _check_network(trainer: LocalTrainer, content: RecordDict, name: str) -> None:
    if "weights" not in content:
        return
    theirs = layout_of(content, "weights")
    expected = Layout.of(trainer.sent(trainer.weights))
    if theirs != expected:
        kind = type(trainer.client.network).__name__
        size = sum(p.numel() for p in trainer.client.network.parameters())
        raise InputError(
            f"its network {kind} has {size} parameters, and the server's {name} "
            f"{difference(theirs, expected)}; install the same plugins"
        )


def _data(node: Mapping[str, Any], request: Request) -> NodeData:
    first = FirstAnswer(Path(str(node["folder"])) / "state")
    return NodeData.read(Path(str(node["data"])), request, first)


def _memory(content: RecordDict, node: Mapping[str, Any]) -> NodeMemory:
    head: Any = content["run"]
    run, attempt, begin = run_in(head)
    memory = NodeMemory(Path(str(node["folder"])) / "state" / run)
    memory.begin(attempt, begin)
    return memory
