"""What a module takes out of a checkpoint, and whether the checkpoint is of the same run."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network
from fedmer.contracts.selector import Selector
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.network_average import ServerOptions
from fedmer.parts import CLIENT_PARTS, add_client_parts
from fedmer.plugins import registry
from fedmer.trust import CLIENT, check_classes, only

PLAIN = ("start", "finish", "evaluate_clients", "seed")


def made_of(
    saved: Any, source: str, given: Iterable[str] = (), trust: bool = False
) -> dict[str, Any]:
    """Make all parts.

    Args:
        saved: The entry ``hyper_parameters`` of a checkpoint.
        source: The checkpoint, for the sentence.
        given: Names of what need not be made.
        trust: May it name classes that are neither fedmer's nor those of installed plugins?

    Raises:
        InputError: Something is missing, is no known part, or does not take its options.
    """
    for kind in ("networks", "aggregators", "selectors", "privacy"):
        registry.load(kind)
    parser = ArgumentParser(exit_on_error=False)
    add_client_parts(parser)
    parser.add_class_arguments(ServerOptions, "server")
    parser.add_subclass_arguments(Selector, "selector")
    names = (*CLIENT_PARTS, "server", "selector")
    try:
        if not isinstance(saved, Mapping):
            raise ValueError("it names no hyperparameters; give all parts as arguments")
        parts = {name: saved[name] for name in names}
        if not trust:
            check_classes({name: part for name, part in parts.items() if name not in given})
        with nullcontext() if trust else only((*CLIENT, "fedmer.plugins.selectors")):
            made = parser.instantiate(parser.parse_object(parts))
        plain = {name: saved[name] for name in PLAIN}
    except (ArgumentError, ValueError, KeyError, TypeError) as error:
        why = " ".join(str(error).split())[:500].removesuffix(".")
        raise InputError(f"{source} cannot be built here: {why}.") from error
    return {**{name: made[name] for name in names}, **plain}


def shape_of(saved: Mapping[str, Any]) -> CorpusShape:
    """What the network of a checkpoint was built for."""
    data = saved["FederatedDataModule"]
    # Checkpoints made before 0.1 do not say how many people.
    return CorpusShape(data["features"], len(data["labels"]), data.get("speakers", 2))


def check_parts(saved: Mapping[str, Any], aggregator: Aggregator, network: Network) -> None:
    """See that a checkpoint is of this rule, and of this network at these sizes.

    Raises:
        InputError: It is not.
    """
    for what, name in (("aggregator", aggregator.name), ("network", type(network).__name__)):
        if saved["fedmer"][what] != name:
            raise InputError(
                f"The checkpoint was made with {what} {saved['fedmer'][what]}, but this run has "
                f"{name}; pass the config.yaml beside it with --config."
            )
    theirs = {name: value.shape for name, value in weights_of(saved).items()}
    if {name: value.shape for name, value in network.state_dict().items()} != theirs:
        raise InputError(
            "The checkpoint's network has other sizes than this run's; pass the config.yaml "
            "beside it with --config, and the corpus that it was trained on."
        )


def check_clients(saved: Mapping[str, Any], sizes: Sequence[int], remote: bool) -> None:
    """See that a run that goes on has the clients of its checkpoint.

    Args:
        saved: The checkpoint.
        sizes: Labelled utterances of this run's clients, by id.
        remote: Are they elsewhere, where some may not have been met?

    Raises:
        InputError: There are more or fewer, they hold other dialogues, or are elsewhere than then.
    """
    theirs = saved["fedmer"]["sizes"]
    same = len(theirs) == len(sizes) if remote else theirs == sizes
    if not same:
        raise InputError(
            f"The checkpoint's {len(theirs)} clients hold other dialogues than this run's "
            f"{len(sizes)}; pass the config.yaml beside it with --config, and the same corpus."
        )
    if was_remote(saved) != remote:
        raise InputError(
            "The checkpoint is of a run whose clients were elsewhere than this run's; go on with "
            "the same --executor and --executor.federation."
        )


def was_remote(saved: Mapping[str, Any]) -> bool:
    """Was the data of the clients of a checkpoint on other machines?"""
    found: bool = saved["fedmer"].get("remote", False)
    return found


def weights_of(saved: Mapping[str, Any]) -> dict[str, Tensor]:
    """The network's, by its own names."""
    start = "network."
    every = saved["state_dict"].items()
    return {name.removeprefix(start): value for name, value in every if name.startswith(start)}
