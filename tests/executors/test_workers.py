"""Workers: the bits of Inline, and what happens when processes die."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator, ClientRound
from fedmer.contracts.executor import Executor
from fedmer.errors import InputError
from fedmer.foreign import ForeignError
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.steps import LocalTraining
from tests.federations import federation, same_bits, weights_of

TRAINING = LocalTraining(epochs=2, batch_size=2, optimizer_state="keep")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def outcome(rule: Aggregator, executor: Executor, rounds: int = 3) -> dict[str, Tensor]:
    """Global weights, the rule's tensors and what clients keep."""
    loop = federation(rule, selector=Uniform(0.5), training=TRAINING, executor=executor)
    try:
        for number in range(rounds):
            loop.run_round(number)
    finally:
        executor.close()
    found = weights_of(loop) | {f"rule {n}": v for n, v in loop.state.tensors.items()}
    for client, memory in loop.trainer.memory.items():
        for kind, kept in memory.state_dict().items():
            tensors = kept["state"][0] if kind == "optimizer" else kept
            found |= {f"{client} {kind} {n}": torch.as_tensor(v) for n, v in tensors.items()}
    return found


@pytest.mark.parametrize("rule", [FedAvg, Distance, SCAFFOLD, Local])
def test_any_number_of_workers_gives_the_bits_of_inline(rule: type[Aggregator]) -> None:
    expected = outcome(rule(), Inline())
    assert same_bits(outcome(rule(), Workers(1, spool_gb=1e-5)), expected)
    assert same_bits(outcome(rule(), Workers(3)), expected)


class DiesOnce(FedAvg):
    """Kills the process of client 2 in the first round, the first time."""

    def __init__(self, mark: Path, always: bool = False) -> None:
        self.mark, self.always, self.parent = mark, always, os.getpid()

    def on_before_optimizer_step(self, own: ClientRound) -> None:
        fresh = self.always or not self.mark.exists()
        if own.received.round == 0 and own.steps == 1 and fresh and os.getpid() != self.parent:
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def test_a_client_whose_worker_dies_is_trained_again(tmp_path: Path) -> None:
    expected = outcome(FedAvg(), Inline())
    mark = tmp_path / "died"
    assert same_bits(outcome(DiesOnce(mark), Workers(2)), expected)
    assert mark.exists()


def test_a_client_whose_workers_always_die_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"died 3 times, at last with exit code -9; .* Inline"):
        outcome(DiesOnce(tmp_path / "died", always=True), Workers(2))


class Diverges(FedAvg):
    """A client half that breaks."""

    def on_before_optimizer_step(self, own: ClientRound) -> None:
        raise InputError("This client cannot go on.")


def test_a_clients_sentence_comes_through() -> None:
    executor = Workers(2)
    with pytest.raises(InputError, match=r"This client cannot go on\."):
        outcome(Diverges(), executor)


class Breaks(FedAvg):
    """A client half with a mistake in it."""

    def on_before_optimizer_step(self, own: ClientRound) -> None:
        raise KeyError("no such name")


def test_a_mistake_in_a_client_half_comes_through_with_its_place() -> None:
    said = (
        r"Breaks\.on_before_optimizer_step of .*test_workers\.py, line .*KeyError: 'no such name'"
    )
    with pytest.raises(ForeignError, match=said) as error:
        outcome(Breaks(), Workers(2))
    assert "fedmer/local.py" in error.value.trace


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_the_run(signal_: int, tmp_path: Path) -> None:
    program = (
        # A shell that starts tests in the background has them ignore SIGINT, and so all they start.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from tests.federations import federation\n"
        "from fedmer.plugins.aggregators.fed_avg import FedAvg\n"
        "from fedmer.plugins.executors.workers import Workers\n"
        "loop = federation(FedAvg(), executor=Workers(2))\n"
        "loop.run_round(0)\n"
        "print(*(w.process.pid for w in loop.executor._workers), flush=True)\n"
        "for number in range(1, 10**6): loop.run_round(number)\n"
    )
    root = Path(__file__).parents[2]
    run = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    children = [int(number) for number in run.stdout.readline().split()]
    assert len(children) == 2
    run.send_signal(signal_)
    try:
        run.wait(20)
    finally:
        run.kill()
    until = time.monotonic() + 20
    while any(alive(pid) for pid in children) and time.monotonic() < until:
        time.sleep(0.1)
    assert [pid for pid in children if alive(pid)] == []


def alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z"


def test_less_than_no_workers_are_refused() -> None:
    with pytest.raises(InputError, match=r"executor.workers is -1; expected 0 or more\."):
        Workers(-1)
    with pytest.raises(InputError, match=r"executor.spool_gb is -1; expected 0 or more\."):
        Workers(1, spool_gb=-1)
