"""The parts of a client that a configuration names, as the arguments of a parser.

The command line adds them to its own; a node of a deployment, which gets them as text from its
server, adds them to a parser of its own and lets nothing in that it does not know.
"""

import functools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from fedmer.client import EmotionClient, LRSchedulerCallable, OptimizerCallable
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.local import LocalTrainer, LocalTraining, fabric_for
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins import registry
from fedmer.seeds import derive

CLIENT_PARTS = ("network", "aggregator", "optimizer", "lr_scheduler", "loss", "local")
"""What of a run's configuration a client needs."""

_OURS = ("fedmer.plugins.", "fedmer.schedules.", "torch.optim.")
_PLAIN = re.compile(r"[\w -]*|[-+]?[\d.]+(e[-+]?\d+)?")


def add_client_parts(parser: ArgumentParser) -> None:
    """Add one argument, or group of arguments, for each of :data:`CLIENT_PARTS`."""
    parser.add_argument(
        "--network", type=Callable[[CorpusShape], Network], help="Network of every client."
    )
    parser.add_subclass_arguments(Aggregator, "aggregator", help="Aggregation rule: %s")
    parser.add_argument("--optimizer", type=OptimizerCallable, help="Optimizer of a client.")
    parser.add_argument(
        "--lr_scheduler",
        type=LRSchedulerCallable | None,
        default=None,
        help="Scheduler of a client's learning rate, stepped once a round.",
    )
    parser.add_class_arguments(SelfDistillation, "loss")
    parser.add_class_arguments(LocalTraining, "local")


def check_classes(settings: Any) -> None:
    """Refuse settings that name a class which is neither ours, torch's, nor an installed plugin.

    What names a class has it imported and called, so that it is not left to the other side which. A
    parser takes a plain text for the name of a class or for more settings too, where a class may
    stand; so texts have to be words or numbers.

    Raises:
        InputError: One does.

    >>> check_classes({"optimizer": {"class_path": "subprocess.Popen"}})
    Traceback (most recent call last):
    fedmer.errors.InputError: the settings name subprocess.Popen, which is not a part that is \
installed here
    """
    _check(settings, _installed())


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
    return LocalTrainer(client, data, parts.aggregator, parts.local, fabric, class_counts)


@functools.cache
def _installed() -> set[str]:
    """Paths of all plugins; those of a client are imported, and what they take with them."""
    for kind in ("networks", "aggregators"):
        registry.load(kind)
    return {plugin.path for kind in registry.KINDS for plugin in registry.plugins(kind)}


def _values(settings: Mapping[str, Any], key: str) -> Any:
    if not isinstance(settings[key], Mapping) and not (
        key == "lr_scheduler" and settings[key] is None
    ):
        raise InputError(f"{key} is no group of settings")
    return settings[key]


def _check(settings: Any, installed: set[str]) -> None:
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            if key != "class_path":
                _check(value, installed)
            elif str(value) not in installed and not _is_ours(str(value)):
                raise InputError(
                    f"the settings name {value}, which is not a part that is installed here"
                )
    elif isinstance(settings, list | tuple):
        for part in settings:
            _check(part, installed)
    elif isinstance(settings, str) and not _PLAIN.fullmatch(settings):
        raise InputError(f"the settings say '{settings}', expected a word or a number")


def _is_ours(path: str) -> bool:
    """Whether it is a class of fedmer's plugins or torch's optimizers, and not of what they import.

    Nothing is imported to find out.
    """
    place, _, name = path.rpartition(".")
    found = vars(sys.modules[place]).get(name) if place in sys.modules else None
    if not isinstance(found, type):
        return False
    return path.startswith(_OURS) and f"{found.__module__}.".startswith(_OURS)
