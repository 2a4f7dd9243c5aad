"""What a client does with a message: train, or score its holdout."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

from fedmer.contracts.client import ClientMemory
from fedmer.flower.class_rows import rows_of
from fedmer.flower.node import masking
from fedmer.flower.terms import digest_of
from fedmer.flower.wire import put_answer, take_broadcast
from fedmer.local import LocalTrainer
from fedmer.messages import Update
from fedmer.weights import Layout


def fit(
    trainer: LocalTrainer, content: RecordDict, state: RecordDict, memory: ClientMemory
) -> tuple[RecordDict, ClientMemory]:
    """Train; returns the answer, and what the client remembers.

    Raises:
        InputError: The message does not fit the network, or what comes of training is not finite.
    """
    head: Any = content["round"]
    device = trainer.fabric.device
    received = take_broadcast(
        content, head["round"], Layout.of(trainer.sent(trainer.weights)), device
    )
    summary, update, memory = trainer.work(head["client"], received, memory)
    if head["keep"] and update is not None:
        digest = digest_of(content)
        keep_difference(state, update, received.weights or {}, digest, trainer)
        update = None
    answer = RecordDict()
    put_answer(answer, summary, update)
    return answer, memory


@torch.no_grad()
def keep_difference(
    state: RecordDict,
    update: Update,
    received: Mapping[str, Tensor],
    digest: bytes,
    trainer: LocalTrainer,
) -> None:
    """Keep what training changed with the node, until its weight is known.

    What a rule attaches, and its summary, have no received value and are kept as they are.
    """
    parts = [
        (value - received[name] if name in received else value).flatten()
        for name, value in update.weights.items()
    ]
    axes = trainer.client.network.class_parameters
    shapes = [(name, value.shape) for name, value in update.weights.items()]
    rows, needed = rows_of(shapes, axes, trainer.aggregator.sums)
    masking.keep(state, torch.cat(parts).cpu().numpy(), digest, rows, needed)


def score(trainer: LocalTrainer, content: RecordDict, memory: ClientMemory) -> RecordDict:
    """Score the holdout; the answer has a ``(C * C,)`` count of truth and guess, or nothing."""
    head: Any = content["round"]
    received = take_broadcast(content, head["round"], device=trainer.fabric.device)
    trainer.prepare(received, memory)
    scores = trainer.evaluate(trainer.data[head["client"]].holdout, received)
    counts = [] if scores is None else [n for row in scores.confusion for n in row]
    return RecordDict({"confusion": ConfigRecord({"counts": counts})})


def to_bytes(memory: ClientMemory) -> bytes:
    """What a client remembers, as bytes."""
    buffer = io.BytesIO()
    torch.save(memory.state_dict(), buffer)
    return buffer.getvalue()


def from_bytes(data: bytes) -> ClientMemory:
    """The inverse of :func:`to_bytes`; executes nothing."""
    # Whoever remembered it may have had another device.
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return ClientMemory.from_state(state)
