"""What an honest client of this run sends, found by being one for a moment."""

import copy

import torch

from fedmer.contracts.client import ClientMemory
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError, NotFiniteError
from fedmer.local import LocalTrainer
from fedmer.messages import Broadcast
from fedmer.steps import LocalTraining
from fedmer.weights import Layout


class Rehearsal:
    """Trains one step on a made-up dialogue, for the names and shapes of what comes out.

    Whatever a client sends is compared with them before it is decoded.

    Args:
        trainer: The client side of the run; copied.
    """

    def __init__(self, trainer: LocalTrainer) -> None:
        client = copy.deepcopy(trainer.client)
        data = {0: ClientData("rehearsal", [made_up(client.network.shape)])}
        counts = data[0].class_counts(client.network.shape.classes)
        self._trainer = LocalTrainer(
            client,
            data,
            trainer.aggregator,
            LocalTraining(),
            trainer.fabric,
            counts,
            trainer.privacy,
        )

        self._found: dict[Layout, tuple[Layout, Layout | None]] = {}
        """By what clients may know, which in the first round is less than later."""

    def layouts(self, received: Broadcast) -> tuple[Layout, Layout | None]:
        """Of a summary's tensors, and of an update if the rule wants one."""
        known = Layout.of(received.tensors)
        if known not in self._found:
            try:
                summary, update, _ = self._trainer.work(0, received, ClientMemory())
            except NotFiniteError as error:
                raise InputError(
                    f"Round {received.round + 1}: of a client that trains one step on made-up "
                    f"features, {error}; lower the learning rate."
                ) from error
            sent = None if update is None else Layout.of(update.weights)
            self._found[known] = Layout.of(summary.tensors), sent
        return self._found[known]


def made_up(shape: CorpusShape) -> Excerpt:
    """A dialogue with every emotion once, of random features."""
    turns = shape.classes
    random = torch.Generator().manual_seed(0)
    return Excerpt(
        dialogue="made up",
        turns=torch.arange(turns),
        features={
            name: torch.randn(turns, width, generator=random)
            for name, width in shape.features.items()
        },
        present={name: torch.ones(turns, dtype=torch.bool) for name in shape.features},
        labels=torch.arange(turns),
        labelled=torch.ones(turns, dtype=torch.bool),
        roles=torch.arange(turns) % min(2, shape.speakers),
        positions=torch.arange(turns),
    )
