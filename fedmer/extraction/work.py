"""What is done for one utterance, here or in processes of their own."""

import functools
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.formats.tables.utterance import Utterance
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.extraction.making import ChosenExtractor

_AHEAD = 4
"""Tasks a process that wait for it; more would only take memory."""

Rows = Mapping[str, NDArray[np.float32] | str]
"""Modality -> features, or why there are none."""


@dataclass(frozen=True)
class Task:
    """One utterance, and what is to be made of it.

    Args:
        place: Of the row in its table.
        utterance: The row.
        modalities: Whose extractors are asked.
    """

    place: int
    utterance: Utterance
    modalities: Sequence[str]


def rows_of(task: Task, extractors: Mapping[str, Extractor]) -> Rows:
    """The features of one utterance; whatever goes wrong is that modality's alone."""
    clip = Clip(task.utterance)
    found: dict[str, NDArray[np.float32] | str] = {}
    for modality in task.modalities:
        try:
            row = np.asarray(extractors[modality].extract(clip), dtype=np.float32)
        except InputError as error:
            found[modality] = str(error)
        except Exception as error:  # noqa: BLE001 - whatever an extractor or a decoder raises
            found[modality] = f"{type(error).__name__}: {error}"
        else:
            good = row.ndim == 1 and np.isfinite(row).all()
            found[modality] = row if good else "its features are not a row of finite numbers"
    return found


def here(tasks: Iterable[Task], extractors: Mapping[str, Extractor]) -> Iterator[tuple[Task, Rows]]:
    """Do tasks one after the other in this process."""
    for task in tasks:
        yield task, rows_of(task, extractors)


def in_processes(
    tasks: Iterable[Task], chosen: Mapping[str, ChosenExtractor], jobs: int
) -> Iterator[tuple[Task, Rows]]:
    """Do tasks in ``jobs`` processes; results come as they are ready.

    A clip that kills its process, as some damaged files do with a decoder, has failed; the others
    that were in work are done again.
    """
    left = iter(tasks)
    described = _described(chosen)
    pool = _pool(jobs)
    running: dict[Future[Rows], Task] = {}
    try:
        while True:
            for task in islice(left, _AHEAD * jobs - len(running)):
                running[pool.submit(_in_worker, described, task)] = task
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
                suspects = list(running.values())
                running.clear()
                pool.shutdown(cancel_futures=True)
                pool = _pool(jobs)
                for task in suspects:
                    yield task, _alone(described, task)
                continue
            for future in done:
                yield running.pop(future), future.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _alone(described: str, task: Task) -> Rows:
    with _pool(1) as pool:
        try:
            return pool.submit(_in_worker, described, task).result()
        except BrokenProcessPool:
            return dict.fromkeys(task.modalities, "reading it ended the process that did so")


def _pool(jobs: int) -> ProcessPoolExecutor:
    # Started anew rather than forked: threads of torch and FFmpeg do not survive a fork.
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), _start)


def _start() -> None:
    # Ctrl-C reaches every process of a terminal; the one that waits for these ends them in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(described: str, task: Task) -> Rows:
    return rows_of(task, _made(described))


def _described(chosen: Mapping[str, ChosenExtractor]) -> str:
    return json.dumps({m: [choice.path, dict(choice.init_args)] for m, choice in chosen.items()})


@functools.cache
def _made(described: str) -> dict[str, Extractor]:
    """The extractors of a process, which makes them once."""
    return {m: ChosenExtractor(*of).make(m) for m, of in json.loads(described).items()}
