"""What the scripts of all peers share: the row, one client's part of a round, the answer."""

import argparse
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from benchmarks.workloads import Cohort, build
from fedmer.client import EmotionClient
from fedmer.data.batch import EpochOrder, collate
from fedmer.data.client_data import ClientData
from fedmer.losses.distillation import SelfDistillation

BATCH = 16


def local_epoch(client: EmotionClient, data: ClientData, number: int, round: int) -> float:
    """One epoch of a new Adam over a client's batches; returns the last loss.

    Args:
        client: Trained in place.
        data: The client's own.
        number: Its id.
        round: From 0.
    """
    client.train()
    optimizer = client.configure_optimizers()
    order = EpochOrder(len(data.train), 0, number, BATCH)
    order.set_epoch(round)
    places = list(order)
    loss = torch.zeros(())
    for start in range(0, len(places), BATCH):
        batch = collate([data.train[place] for place in places[start : start + BATCH]])
        optimizer.zero_grad()
        loss = client.training_step(batch, 0)
        torch.autograd.backward(loss)
        optimizer.step()
    return float(loss.detach())


def row_of_the_table() -> argparse.Namespace:
    """What a peer's script is asked to train."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", required=True)
    parser.add_argument("--cohort", type=Cohort.of, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--weights", required=True, help="Where the final weights go.")
    return parser.parse_args()


@functools.cache
def data_of(cohort: Cohort) -> list[ClientData]:
    """The clients of a row of the table, made once a process."""
    return cohort.data()


@functools.cache
def resident(name: str) -> EmotionClient:
    """A workload's network and loss, with the weights that every framework begins with."""
    torch.set_num_threads(1)
    return EmotionClient(build(name), SelfDistillation())


def answer(
    seconds: Sequence[float], weights: Mapping[str, Any], path: str, memory: float
) -> dict[str, Any]:
    """What a peer's script prints as its last line: seconds of every round, the first apart."""
    torch.save({name: torch.as_tensor(value) for name, value in weights.items()}, path)
    return {"first": seconds[0], "rounds": list(seconds[1:]), "memory": memory}
