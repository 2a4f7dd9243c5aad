"""The parts of a client that a configuration names, as the arguments of a parser.

The command line adds them to its own; a node of a deployment, which gets them as text from its
server, adds them to a parser of its own and lets nothing in that it does not know.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from fedmer.client import EmotionClient, LRSchedulerCallable, OptimizerCallable
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network
from fedmer.contracts.privacy import Privacy
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.local import LocalTrainer, fabric_for
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators._closed_form import ClosedForm
from fedmer.protection import in_order
from fedmer.seeds import derive
from fedmer.steps import LocalTraining
from fedmer.trust import CLIENT, check_classes, only

CLIENT_PARTS = ("network", "aggregator", "privacy", "optimizer", "lr_scheduler", "loss", "local")
"""What of a run's configuration a client needs."""


def add_client_parts(parser: ArgumentParser) -> None:
    """Add one argument, or group of arguments, for each of :data:`CLIENT_PARTS`."""
    parser.add_argument(
        "--network", type=Callable[[CorpusShape], Network], help="Network of every client."
    )
    parser.add_subclass_arguments(Aggregator, "aggregator", help="Aggregation rule: %s")
    parser.add_argument(
        "--privacy",
        type=Privacy | list[Privacy] | None,
        default=None,
        help="What protects what clients send: a mechanism, or a list of them.",
    )
    parser.add_argument("--optimizer", type=OptimizerCallable, help="Optimizer of a client.")
    parser.add_argument(
        "--lr_scheduler",
        type=LRSchedulerCallable | None,
        default=None,
        help="Scheduler of clients' learning rate, a step a round.",
    )
    parser.add_class_arguments(SelfDistillation, "loss")
    parser.add_class_arguments(LocalTraining, "local")


def build_trainer(
    settings: Mapping[str, Any],
    shape: CorpusShape,
    data: Mapping[int, ClientData],
    class_counts: Tensor | None = None,
) -> LocalTrainer:
    """The client side, out of a configuration's own values.

    Args:
        settings: :data:`CLIENT_PARTS`, and ``seed`` and ``precision``.
        shape: What the network is built for.
        data: The clients that are here.
        class_counts: ``(C,)``, at all clients together.

    Raises:
        InputError: A part is unknown here, or a value is out of range.
    """
    check_classes(settings)
    parser = ArgumentParser(exit_on_error=False)
    add_client_parts(parser)
    try:
        with only(CLIENT):
            parsed = parser.parse_object({key: _values(settings, key) for key in CLIENT_PARTS})
            parts = parser.instantiate(parsed)
        seed = int(settings["seed"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            network = parts.network(shape)
        client = EmotionClient(network, parts.loss, parts.optimizer, seed, parts.lr_scheduler)
        fabric = fabric_for("auto", settings["precision"])
    except (ArgumentError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:500]
        raise InputError(f"the settings cannot be used here: {why}") from error
    return LocalTrainer(
        client,
        data,
        # Which rounds are in closed form, if any, the server says.
        ClosedForm(parts.aggregator),
        parts.local,
        fabric,
        class_counts,
        in_order(parts.privacy),
    )


def _values(settings: Mapping[str, Any], key: str) -> Any:
    value = settings[key]
    right = isinstance(value, Mapping) or (
        (key in ("lr_scheduler", "privacy") and value is None)
        or (key == "privacy" and isinstance(value, list))
    )
    if not right:
        raise InputError(f"{key} is no group of settings")
    return value
