"""Workers, several clients at once in processes of their own."""

import atexit
import pickle
from collections import deque
from collections.abc import Sequence
from multiprocessing.connection import wait
from typing import Any

import torch
import torch.multiprocessing

from fedmer.contracts.aggregator import ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.executor import Executor
from fedmer.errors import InputError, NotFiniteError
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.executors._worker import Job, Worker

_TRIES = 3
"""A client whose worker died this often is not tried again."""


class Workers(Executor):
    """Several clients at once, in processes that stay for the whole run.

    Each worker trains on one resident network with one CPU thread. Weights cross in shared memory,
    and what clients keep goes with them from worker to worker. The cohort's largest clients begin
    first, and updates are added in the cohort's order, so that the result is that of
    :class:`~fedmer.plugins.executors.inline.Inline` bit for bit, however many workers there are. A
    worker that dies is replaced and its client trained again; when the run ends, however it ends,
    no worker stays behind.

    Args:
        workers: How many processes; 0 is one a CPU core.
        spool_gb: See :class:`~fedmer.contracts.executor.Executor`.

    Raises:
        InputError: ``workers`` or ``spool_gb`` is negative.
    """

    trainer: LocalTrainer

    def __init__(self, workers: int = 0, spool_gb: float = 4.0) -> None:
        super().__init__(spool_gb)
        if workers < 0:
            raise InputError(f"executor.workers is {workers}; expected 0 or more.")
        self.count = workers or torch.multiprocessing.cpu_count()
        self._workers: list[Worker] = []

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        assert isinstance(trainer, LocalTrainer)
        super().bind(trainer, state)
        device = trainer.fabric.device
        if device.type != "cpu":
            raise InputError(
                f"The executor Workers trains on the CPU, and this run is on {device}; use "
                "--executor Inline for one GPU, --executor Flower --executor.gpus 1 for several, "
                "or add --trainer.accelerator cpu."
            )
        self.close()
        torch.set_num_threads(1)

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        super().open(received, cohort)
        if not self._workers:
            # Begun with the first round: until then the run may still load a checkpoint.
            clients = len(self.trainer.data)
            atexit.register(self.close)
            self._workers = [Worker(self.trainer, k) for k in range(min(self.count, clients))]
        message = pickle.dumps(Broadcast(received.round, None, dict(received.tensors)))
        for worker in self._workers:
            worker.open(message, self.received.weights)
        self._message = message
        self._queue = deque(cohort)
        self._tries = dict.fromkeys(cohort, 0)
        self._done: dict[int, Summary | None] = {}
        for worker in self._workers:
            self._next_job(worker)

    def train(self, client: int) -> Summary | None:
        while client not in self._done:
            busy: dict[Any, Worker] = {}
            for worker in self._workers:
                if worker.job is not None:
                    busy[worker.pipe] = busy[worker.process.sentinel] = worker
            for worker in {id(w): w for w in map(busy.__getitem__, wait(list(busy)))}.values():
                self._receive(worker)
        return self._done[client]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()
        self._workers = []
        atexit.unregister(self.close)

    def _next_job(self, worker: Worker) -> None:
        if self._queue:
            client = self._queue.popleft()
            worker.give(Job(client, self.trainer.recall(client)))

    def _receive(self, worker: Worker) -> None:
        job = worker.job
        assert job is not None
        answer = worker.take()
        if answer is None:
            self._replace(worker, job)
            return
        if isinstance(answer.failure, NotFiniteError):
            self.leave_out(job.client, f"was left out: {answer.failure}")
        elif answer.failure is not None:
            self.close()
            raise answer.failure
        else:
            self.trainer.remember(job.client, answer.memory)
            update = None
            if answer.weights is not None:
                update = Update(job.client, answer.weights, answer.compressed)
            assert answer.summary is not None
            self.collect(answer.summary, update)
        self._next_job(worker)
        self._done[job.client] = answer.summary

    def _replace(self, worker: Worker, job: Job) -> None:
        """Start a new worker where one died, on the same client."""
        self._tries[job.client] += 1
        code = worker.process.exitcode
        worker.close()
        if self._tries[job.client] == _TRIES:
            self.close()
            raise InputError(
                f"The worker that trained client {job.client} died {_TRIES} times, at last with "
                f"exit code {code}; -9 usually means that memory ran out: use fewer workers, or "
                "--executor Inline to see what happens."
            )
        place = self._workers.index(worker)
        self._workers[place] = fresh = Worker(self.trainer, worker.place)
        fresh.open(self._message, self.received.weights)
        fresh.give(job)
