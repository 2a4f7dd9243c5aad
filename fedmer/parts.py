"""The parts of a client that a configuration names, as the arguments of a parser.

The command line adds them to its own; a node of a deployment, which gets them as text from its
server, adds them to a parser of its own and lets nothing in that it does not know.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser
from lightning_fabric import Fabric
from torch import Tensor

from fedmer.client import EmotionClient, OptimizerCallable
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.local import LocalTrainer, LocalTraining
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins import registry
from fedmer.plugins.aggregators.base import Aggregator
from fedmer.plugins.networks.base import Network
from fedmer.seeds import derive

CLIENT_PARTS = ("network", "aggregator", "optimizer", "loss", "local")
"""What of a run's configuration a client needs."""


def add_client_parts(parser: ArgumentParser) -> None:
    """Add one argument, or group of arguments, for each of :data:`CLIENT_PARTS`."""
    parser.add_argument(
        "--network", type=Callable[[CorpusShape], Network], help="Network of every client."
    )
    parser.add_subclass_arguments(Aggregator, "aggregator", help="Aggregation rule: %s")
    parser.add_argument("--optimizer", type=OptimizerCallable, help="Optimizer of a client.")
    parser.add_class_arguments(SelfDistillation, "loss")
    parser.add_class_arguments(LocalTraining, "local")


def check_classes(settings: Any) -> None:
    """Refuse settings that name a class which is neither ours, torch's, nor an installed plugin.

    What names a class has it imported and called, so that it is not left to the other side which.

    Raises:
        InputError: One does.

    >>> check_classes({"optimizer": {"class_path": "subprocess.Popen"}})
    Traceback (most recent call last):
    fedmer.errors.InputError: the settings name subprocess.Popen, which is not a part that is \
installed here
    """
    installed = {plugin.path for kind in registry.KINDS for plugin in registry.plugins(kind)}
    for path in _class_paths(settings):
        ours = path.startswith(("fedmer.plugins.", "torch.optim.")) and path.count("..") == 0
        if path not in installed and not ours:
            raise InputError(
                f"the settings name {path}, which is not a part that is installed here"
            )


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
        parsed = parser.parse_object({key: settings[key] for key in CLIENT_PARTS})
        parts = parser.instantiate_classes(parsed)
    except (ArgumentError, ValueError, KeyError) as error:
        raise InputError(f"the settings cannot be used here: {error}") from error
    seed = int(settings["seed"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        network = parts.network(shape)
    client = EmotionClient(network, parts.loss, parts.optimizer, seed)
    fabric = Fabric(accelerator="auto", devices=1, precision=settings["precision"])
    return LocalTrainer(client, data, parts.aggregator, parts.local, fabric, class_counts)


def _class_paths(settings: Any) -> Iterator[str]:
    if isinstance(settings, Mapping):
        if isinstance(settings.get("class_path"), str):
            yield settings["class_path"]
        settings = list(settings.values())
    if isinstance(settings, list):
        for part in settings:
            yield from _class_paths(part)
