"""Network, rule and split out of a bundle's description, which may be anybody's."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from jsonargparse import ArgumentError, ArgumentParser, Namespace
from torch import nn

from fedmer.bundle.contents import PARTS, Contents
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network
from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins import registry
from fedmer.trust import CLIENT, check_classes, only


def build(
    contents: Contents, source: str, trusted: bool = False
) -> tuple[Network, Aggregator, Partitioner]:
    """Make the parts, and load the network's weights.

    Args:
        contents: The description and tensors.
        source: Where they come from, for the sentence.
        trusted: May it name classes that are neither fedmer's nor those of installed plugins?

    Raises:
        InputError: A class may not be named, does not exist or does not take its options, or the
            weights are not those of the network.
    """
    for kind in ("networks", "aggregators", "partitioners"):
        registry.load(kind)
    try:
        if not trusted:
            check_classes(contents.parts)
        # It may come from anybody, so nothing is imported that it names and that is no part.
        with nullcontext() if trusted else only(CLIENT):
            made = _instantiate(contents.parts)
        network = _network(made.network, contents)
        second = any(stage.personal for stage in made.aggregator.stages(network, 1))
        personal = second or bool(made.aggregator.personal_names(network))
    except (ArgumentError, ValueError, TypeError, KeyError) as error:
        why = " ".join(str(error).split())[:500].removesuffix(".")
        hint = "; --trust (trust=True) lets it name classes of your own" * ("part that" in why)
        raise InputError(f"{source} cannot be built here: {why}{hint}.") from error
    if personal:
        rule = type(made.aggregator).__name__
        raise InputError(
            f"{source} has no one model for new dialogues: {rule} keeps a personal network on "
            "every client."
        )
    return network, made.aggregator, made.partitioner


def _instantiate(parts: Mapping[str, Mapping[str, Any]]) -> Namespace:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=Callable[[CorpusShape], Network])
    parser.add_subclass_arguments(Aggregator, "aggregator")
    parser.add_subclass_arguments(Partitioner, "partitioner")
    parsed = parser.parse_object({name: dict(parts[name]) for name in PARTS})
    made: Namespace = parser.instantiate(parsed)
    return made


def _network(make: Callable[[CorpusShape], Network], contents: Contents) -> Network:
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # they were shown when it was trained
        # First without memory: a description of a few bytes can ask for any amount of it.
        with torch.device("meta"):
            _check_shapes(make(contents.shape), contents)
        network = make(contents.shape)
    network.load_state_dict(contents.weights)
    return network.eval().requires_grad_(False)


def _check_shapes(network: nn.Module, contents: Contents) -> None:
    wanted = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    given = {name: tuple(value.shape) for name, value in contents.weights.items()}
    for name in sorted(wanted.keys() | given.keys()):
        if wanted.get(name) != given.get(name):
            raise ValueError(
                f"its weights do not fit its network: '{name}' is {given.get(name, 'missing')} and "
                f"should be {wanted.get(name, 'absent')}"
            )
