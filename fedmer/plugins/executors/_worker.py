"""One process that trains clients, and the server's handle on it."""

import os
import pickle
import signal
import threading
import time
import traceback
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.multiprocessing
from torch import Tensor

from fedmer.contracts.client import ClientMemory
from fedmer.errors import InputError
from fedmer.foreign import foreign
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.weights import FlatWeights, copy_weights

_PATIENCE = 5.0
"""Seconds that a worker has to end by itself."""


@dataclass(frozen=True)
class Job:
    """One client to train.

    Args:
        client: Its id.
        memory: What it kept from earlier rounds.
    """

    client: int
    memory: ClientMemory = field(default_factory=ClientMemory)


@dataclass(frozen=True)
class Answer:
    """What came of a job.

    Args:
        summary: The client's, unless it failed.
        memory: What the client keeps.
        weights: Those of its weights that travel; good until the worker's next job.
        compressed: Bytes of them that cross, where a mechanism has compressed them.
        failure: What went wrong.
    """

    summary: Summary | None = None
    memory: ClientMemory = field(default_factory=ClientMemory)
    weights: Weights | None = None
    compressed: int | None = None
    failure: Exception | None = None


class Worker:
    """A process with a copy of the client side, and two vectors that it shares with the server.

    Args:
        trainer: The client side; forked with all data, so that nothing is sent twice.
        place: Which worker it is, from 0.
    """

    def __init__(self, trainer: LocalTrainer, place: int) -> None:
        self.place = place
        self.job: Job | None = None
        sent = trainer.sent(trainer.weights)
        self._down = _shared(sent)
        self._up = _shared(sent)
        context = torch.multiprocessing.get_context("fork")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(
            target=_work, args=(trainer, theirs, self._down, self._up, os.getpid()), daemon=True
        )
        self.process.start()
        theirs.close()

    def open(self, message: bytes, weights: Weights | None) -> None:
        """Begin a round: what everybody may know, and the weights."""
        if weights is not None:
            copy_weights(self._down, weights)
        self._send((message, weights is not None))

    def give(self, job: Job) -> None:
        """Let it train a client."""
        self.job = job
        self._send(job)

    def take(self) -> Answer | None:
        """What came of the job; None if the process died."""
        self.job = None
        try:
            summary, memory, attached, sent, compressed, failure = pickle.loads(
                self.pipe.recv_bytes()
            )
        except (EOFError, OSError):
            self.process.join(_PATIENCE)
            return None
        trained: Weights = self._up if sent else {}
        weights = ({**trained, **attached} if attached else trained) or None
        return Answer(summary, memory, weights, compressed, failure)

    def close(self) -> None:
        """End the process, at once if it is at work."""
        if self.job is not None:
            self.process.terminate()
        self._send(None)
        self.process.join(_PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.pipe.close()

    def _send(self, message: Any) -> None:
        try:
            self.pipe.send_bytes(pickle.dumps(message))
        except OSError:
            # It died; whoever waits for its answer finds out and starts another.
            return


def _shared(like: FlatWeights) -> FlatWeights:
    vectors = {
        kind: torch.empty(len(vector), dtype=kind).share_memory_()  # type: ignore[no-untyped-call]
        for kind, vector in like.vectors.items()
    }
    return FlatWeights(like.layout, vectors)


def _work(
    trainer: LocalTrainer, pipe: Any, down: FlatWeights, up: FlatWeights, parent: int
) -> None:
    """The life of a worker: rounds and jobs come in, answers go out, until None comes."""
    # Ctrl-C and a hang-up reach the whole group, and the server ends its workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()
    torch.set_num_threads(1)
    received = Broadcast(0)
    while True:
        try:
            message = pickle.loads(pipe.recv_bytes())
        except (EOFError, OSError):
            return
        if message is None:
            return
        if not isinstance(message, Job):
            known: Broadcast = pickle.loads(message[0])
            received = Broadcast(known.round, down if message[1] else None, known.tensors)
            continue
        pipe.send_bytes(pickle.dumps(_answer(trainer, received, message, up)))


def _answer(
    trainer: LocalTrainer, received: Broadcast, job: Job, up: FlatWeights
) -> tuple[Summary | None, ClientMemory, dict[str, Tensor], bool, int | None, Exception | None]:
    try:
        summary, update, memory = trainer.work(job.client, received, job.memory)
    except InputError as error:
        return None, ClientMemory(), {}, False, None, error
    except Exception as error:  # noqa: BLE001 - raised again on the other side
        text = traceback.format_exc()
        failure = foreign(error) or RuntimeError(f"client {job.client} failed:\n{text}")
        return None, ClientMemory(), {}, False, None, failure
    attached: dict[str, Tensor] = {}
    trained = update is not None and trainer.aggregator.trains(received)
    if update is not None:
        # Copies, since a view would bring all of its vector.
        attached = {n: value.clone() for n, value in update.weights.items() if n not in up}
    if update is not None and trained:
        sent = {name: update.weights[name] for name in up} if attached else update.weights
        copy_weights(up, sent)
    compressed = None if update is None else update.compressed
    return summary, memory, attached, trained, compressed, None


def _leave_with(parent: int) -> None:
    """End this process soon after its parent is gone, even in the middle of a client."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(1)
