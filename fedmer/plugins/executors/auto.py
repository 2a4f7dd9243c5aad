"""Auto, whichever executor is fastest on this machine."""

import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from fedmer.console import Console
from fedmer.contracts.aggregator import ServerState
from fedmer.contracts.client import ClientSide
from fedmer.contracts.executor import Executor
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers


class Auto(Executor):
    """Whichever of the others is fastest, found out in the first round.

    Every candidate trains its share of the first cohort, so that nothing is done twice; the one
    that needs the least time for a labelled utterance trains all later rounds. A line says which,
    and a checkpoint keeps it, so that a resumed run goes on with it where it is a candidate.
    ``Inline`` and ``Workers`` give the same bits; where ``Stacked`` is a candidate, results
    differ within its bounds between runs that choose otherwise. Name an executor to repeat a run.

    Args:
        spool_gb: See :class:`~fedmer.contracts.executor.Executor`.
    """

    trainer: LocalTrainer

    def __init__(self, spool_gb: float = 4.0) -> None:
        super().__init__(spool_gb)
        self.candidates: list[Executor] = []
        self.chosen: Executor | None = None

    def bind(self, trainer: ClientSide, state: ServerState) -> None:
        assert isinstance(trainer, LocalTrainer)
        super().bind(trainer, state)
        gigabytes = self.limit / 1e9
        self.candidates = [Inline(spool_gb=gigabytes)]
        if trainer.fabric.device.type == "cpu" and (os.cpu_count() or 1) > 1:
            self.candidates.append(Workers(spool_gb=gigabytes))
        if not Stacked.obstacle(trainer):
            self.candidates.append(Stacked(spool_gb=gigabytes))
        for executor in self.candidates:
            executor.bind(trainer, state)
        self.chosen = self.candidates[0] if len(self.candidates) == 1 else None

    def open(self, received: Broadcast, cohort: Sequence[int]) -> None:
        super().open(received, cohort)
        self._first: dict[int, Summary] = {}
        if self.chosen is not None:
            self._begin(self.chosen, cohort)
        elif len(cohort) < len(self.candidates):
            self._begin(self.candidates[0], cohort)
        else:
            self._compare(cohort)

    def train(self, client: int) -> Summary | None:
        if client in self._first or client in self.failures:
            return self._first.get(client)
        return (self.chosen or self.candidates[0]).train(client)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "chosen": type(self.chosen).__name__}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        for executor in self.candidates:
            if type(executor).__name__ == state.get("chosen"):
                self.chosen = executor

    def close(self) -> None:
        for executor in self.candidates:
            executor.close()

    def _begin(self, executor: Executor, cohort: Sequence[int]) -> None:
        executor.open(self.received, cohort)
        # All add up here, in the order of the whole cohort.
        executor.collector, executor.traffic = self.collector, self.traffic
        executor.failures = self.failures

    def _compare(self, cohort: Sequence[int]) -> None:
        seconds: dict[str, float] = {}
        for place, executor in enumerate(self.candidates):
            # Every third client, say: shares of like sizes.
            share = cohort[place :: len(self.candidates)]
            began = time.perf_counter()
            self._begin(executor, share)
            summaries = {client: executor.train(client) for client in share}
            self._first |= {
                client: summary for client, summary in summaries.items() if summary is not None
            }
            turns = sum(self.trainer.data[client].examples for client in share)
            seconds[type(executor).__name__] = (time.perf_counter() - began) / turns
        name = min(seconds, key=lambda name: seconds[name])
        for executor in self.candidates:
            if type(executor).__name__ == name:
                self.chosen = executor
            else:
                executor.close()
        costs = ", ".join(f"{name} {1e3 * each:.2f} ms" for name, each in seconds.items())
        Console(stderr=True).print(
            f"executor: {name} from now on; a labelled utterance took {costs}"
        )
