"""The ClientApp of a node: looks at its own data, trains on it, and sends what it may.

Flower starts a process for every message, so whatever a node keeps is in its folder.
"""

import json
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

import fedmer
from fedmer.data.remote import Request
from fedmer.data.standardise import Statistics
from fedmer.errors import InputError
from fedmer.flower import client_half
from fedmer.flower.node import NodeData, NodeMemory, shape_for
from fedmer.flower.wire import difference, put, put_failure, take
from fedmer.local import LocalTrainer
from fedmer.parts import build_trainer
from fedmer.plugins import registry
from fedmer.weights import Layout

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server what it may know of this node's data."""
    return _answered(message, context, _describe)


@app.train("fit")
def fit(message: Message, context: Context) -> Message:
    """Train for a round."""
    return _answered(message, context, _fit)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Score this node's holdout."""
    return _answered(message, context, _score)


@app.train()
def mask(message: Message, context: Context) -> Message:
    """Take part in one stage of a masked sum."""
    return client_half.mask(message, context)


def _answered(
    message: Message, context: Context, work: Callable[[RecordDict, Context], RecordDict]
) -> Message:
    """Do what is asked, in the time that there is, and say in a sentence if it cannot be done."""
    try:
        head: Any = message.content["run"]
        # Whoever waits has given up by then, and a node that hangs takes no other message.
        clock = threading.Timer(float(head["seconds"]), os._exit, [1])
        clock.daemon = True
        clock.start()
        if head["version"] != fedmer.__version__:
            raise InputError(
                f"it has fedmer {fedmer.__version__}, and the server {head['version']}; install "
                "the same version on both"
            )
        content = work(message.content, context)
        clock.cancel()
    except InputError as error:
        content = RecordDict()
        put_failure(content, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the server has to know
        # The whole story stays here: what an exception says may hold data.
        traceback.print_exc(file=sys.stderr)
        content = RecordDict()
        put_failure(content, f"{type(error).__name__}; its own log says more")
    return Message(content, reply_to=message)


def _describe(content: RecordDict, context: Context) -> RecordDict:
    request = _request(content)
    own = _data(context, request).describe(request)
    answer = RecordDict()
    counts = {f"{name}.count": np.array([m.count]) for name, m in own.moments.items()}
    sums = {f"{name}.total": m.total for name, m in own.moments.items()}
    squares = {f"{name}.squares": m.squares for name, m in own.moments.items()}
    import torch

    arrays = {k: torch.from_numpy(v) for k, v in {**counts, **sums, **squares}.items()}
    put(answer, "numbers", {"counts": own.counts, **arrays})
    answer["description"] = ConfigRecord(
        {
            "labels": list(own.labels),
            "modalities": list(own.features),
            "widths": list(own.features.values()),
            "speakers": own.speakers,
            "held": own.held,
        }
    )
    return answer


def _fit(content: RecordDict, context: Context) -> RecordDict:
    head: Any = content["round"]
    trainer = _trainer(content, context)
    memory = NodeMemory(_folder(content, context))
    answer, remembered = client_half.fit(trainer, content, context, memory.before(head["round"]))
    memory.after(head["round"], remembered)
    return answer


def _score(content: RecordDict, context: Context) -> RecordDict:
    head: Any = content["round"]
    memory = NodeMemory(_folder(content, context)).before(head["round"])
    return client_half.score(_trainer(content, context), content, memory)


def _trainer(content: RecordDict, context: Context) -> LocalTrainer:
    """The client side of this node, as the server's settings say.

    Raises:
        InputError: Its data are of another kind, or its network is another.
    """
    for kind in ("networks", "aggregators"):
        registry.load(kind)
    head: Any = content["run"]
    settings = json.loads(head["settings"])
    data = _data(context, _request(content))
    theirs = (list(head["labels"]), dict(zip(head["modalities"], head["widths"], strict=True)))
    own = (list(data.corpus.label_names), dict(data.corpus.shape.features))
    if own != theirs:
        raise InputError(
            f"its corpus has the emotions {own[0]} and the features {own[1]}, and this run has "
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
    theirs = take(content, "weights").layout
    if theirs != trainer.own.layout:
        own = type(trainer.client.network).__name__
        size = sum(p.numel() for p in trainer.client.network.parameters())
        raise InputError(
            f"its network {own} has {size} parameters, and the server's {name} "
            f"{difference(trainer.own.layout, Layout(theirs.parts))}; install the same plugins"
        )


def _request(content: RecordDict) -> Request:
    head: Any = content["run"]
    return Request(str(head["standardise"]), float(head["holdout"]), int(head["seed"]))


def _data(context: Context, request: Request) -> NodeData:
    return NodeData.read(Path(str(context.node_config["data"])), request)


def _folder(content: RecordDict, context: Context) -> Path:
    head: Any = content["run"]
    name = str(head["run"])
    if not re.fullmatch(r"[0-9a-f]{32}", name):
        raise InputError(f"the run is called '{name}', expected 32 hexadecimal digits")
    return Path(str(context.node_config["folder"])) / "state" / name
