"""The ClientApp of a node: passes each message on to the node's worker, and masks by itself.

Flower starts a process for every message, so this one imports next to nothing.
"""

import os
import time
from logging import INFO, WARNING
from typing import Any

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.logger import log

from fedmer.flower.node.resident import note, work
from fedmer.flower.records import put_failure, take_failure
from fedmer.printable import printable

app = ClientApp()


@app.query()
def describe(message: Message, context: Context) -> Message:
    """Tell the server what it may know of this node's data."""
    return _answered("describe", message, context)


@app.train("fit")
def fit(message: Message, context: Context) -> Message:
    """Train for a round."""
    return _answered("fit", message, context)


@app.evaluate()
def score(message: Message, context: Context) -> Message:
    """Score this node's holdout."""
    return _answered("score", message, context)


@app.train()
def mask(message: Message, context: Context) -> Message:
    """Take part in one stage of a masked sum."""
    from fedmer.flower.node import masking

    began = time.monotonic()
    what = f"round {message.metadata.group_id}: masked sum, stage {_stage(message)}"
    answer = masking.mask(message, context)
    refused = take_failure(answer.content) if answer.has_content() else None
    note(context.node_config, message.content, answer.content if answer.has_content() else None)
    if refused is None:
        log(INFO, "%s done in %.1f s", what, time.monotonic() - began)
    else:
        log(WARNING, "%s refused: %s", what, printable(refused))
    return answer


def _stage(message: Message) -> str:
    head: Any = message.content.get("secaggplus_configs", {})
    return printable(str(head.get("stage", "unknown")))[:40]


def _answered(kind: str, message: Message, context: Context) -> Message:
    try:
        content, context.state = work(kind, message.content, context.node_config, context.state)
    except ConnectionError as error:
        content = RecordDict()
        put_failure(content, str(error))
    return Message(content, reply_to=message)
