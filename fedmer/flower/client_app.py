"""The ClientApp of a node: passes each message on to the node's worker, and masks by itself.

Flower starts a process for every message, so this one imports next to nothing.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedmer.flower.records import put_failure
from fedmer.flower.resident import work

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
    from fedmer.flower import masking

    return masking.mask(message, context)


def _answered(kind: str, message: Message, context: Context) -> Message:
    try:
        content, context.state = work(kind, message.content, context.node_config, context.state)
    except ConnectionError as error:
        content = RecordDict()
        put_failure(content, str(error))
    return Message(content, reply_to=message)
