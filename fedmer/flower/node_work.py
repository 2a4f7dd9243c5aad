"""What a node does when it is asked: looks at its own data, trains on it, and sends what it may."""

import json
import os
import re
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
from fedmer.flower import client_half
from fedmer.flower.node import NodeData, NodeMemory, shape_for
from fedmer.flower.records import put_failure
from fedmer.flower.wire import difference, layout_of, put, take
from fedmer.local import LocalTrainer
from fedmer.parts import build_trainer
from fedmer.plugins import registry


def answer(kind: str, content: RecordDict, own: Mapping[str, Any], state: RecordDict) -> RecordDict:
    """Do what is asked, in the time that there is, and say in a sentence if it cannot be done.

    Args:
        kind: ``describe``, ``fit`` or ``score``.
        content: What the server sent.
        own: The node's ``folder`` and ``data``.
        state: What Flower keeps for the node; changed in place.
    """
    result = RecordDict()
    try:
        head: Any = content["run"]
        # Whoever waits has given up by then, and a node that hangs takes no other message.
        clock = threading.Timer(float(head["seconds"]), os._exit, [1])
        clock.daemon = True
        clock.start()
        try:
            _check_version(str(head["version"]))
            return {"describe": _describe, "fit": _fit, "score": _score}[kind](content, own, state)
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


def _describe(content: RecordDict, own: Mapping[str, Any], state: RecordDict) -> RecordDict:
    request = _request(content)
    told = _data(own, request).describe(request)
    answer = RecordDict()
    counts = {f"{name}.count": np.array([m.count]) for name, m in told.moments.items()}
    sums = {f"{name}.total": m.total for name, m in told.moments.items()}
    squares = {f"{name}.squares": m.squares for name, m in told.moments.items()}
    arrays = {k: torch.from_numpy(v) for k, v in {**counts, **sums, **squares}.items()}
    put(answer, "numbers", {"counts": told.counts, **arrays})
    answer["description"] = ConfigRecord(
        {
            "labels": list(told.labels),
            "modalities": list(told.features),
            "widths": list(told.features.values()),
            "speakers": told.speakers,
            "held": told.held,
        }
    )
    return answer


def _fit(content: RecordDict, own: Mapping[str, Any], state: RecordDict) -> RecordDict:
    head: Any = content["round"]
    trainer = _trainer(content, own)
    memory = _memory(content, own)
    answer, remembered = client_half.fit(trainer, content, state, memory.before(head["round"]))
    memory.after(head["round"], remembered)
    return answer


def _score(content: RecordDict, own: Mapping[str, Any], state: RecordDict) -> RecordDict:
    head: Any = content["round"]
    memory = _memory(content, own).before(head["round"])
    return client_half.score(_trainer(content, own), content, memory)


def _trainer(content: RecordDict, own: Mapping[str, Any]) -> LocalTrainer:
    """The client side of this node, as the server's settings say.

    Raises:
        InputError: Its data are of another kind, or its network is another.
    """
    for kind in ("networks", "aggregators"):
        registry.load(kind)
    head: Any = content["run"]
    settings = json.loads(head["settings"])
    data = _data(own, _request(content))
    theirs = (list(head["labels"]), dict(zip(head["modalities"], head["widths"], strict=True)))
    ours = (list(data.corpus.label_names), dict(data.corpus.shape.features))
    if ours != theirs:
        raise InputError(
            f"its corpus has the emotions {ours[0]} and the features {ours[1]}, and this run has "
            f"{theirs[0]} and {theirs[1]}"
        )
    numbers = take(content, "statistics")
    statistics: dict[str, Statistics] | None = None
    if head["standardise"] == "federated":
        statistics = {
            name: Statistics(numbers[f"{name}.mean"].numpy(), numbers[f"{name}.deviation"].numpy())
            for name in data.corpus.shape.features
        }
    elif head["standardise"] == "local":
        statistics = data.own_statistics()
    round_head: Any = content["round"]
    held = {round_head["client"]: data.client(statistics)}
    shape = shape_for(data.corpus, head["speakers"])
    trainer = build_trainer(settings, shape, held, numbers["class_counts"])
    _check_network(trainer, content, str(head["network"]))
    return trainer


def _check_network(trainer: LocalTrainer, content: RecordDict, name: str) -> None:
    if "weights" not in content:
        return
    theirs = layout_of(content, "weights")
    if theirs != trainer.own.layout:
        own = type(trainer.client.network).__name__
        size = sum(p.numel() for p in trainer.client.network.parameters())
        raise InputError(
            f"its network {own} has {size} parameters, and the server's {name} "
            f"{difference(theirs, trainer.own.layout)}; install the same plugins"
        )


def _request(content: RecordDict) -> Request:
    head: Any = content["run"]
    return Request(str(head["standardise"]), float(head["holdout"]), int(head["seed"]))


def _data(own: Mapping[str, Any], request: Request) -> NodeData:
    return NodeData.read(Path(str(own["data"])), request)


def _memory(content: RecordDict, own: Mapping[str, Any]) -> NodeMemory:
    head: Any = content["run"]
    name = str(head["run"])
    if not re.fullmatch(r"[0-9a-f]{32}", name):
        raise InputError(f"the run is called '{name}', expected 32 hexadecimal digits")
    memory = NodeMemory(Path(str(own["folder"])) / "state" / name)
    memory.begin(str(head["attempt"]), int(head["begin"]))
    return memory
