"""Which parameters stay with their clients, by the names of a network's parts."""

from collections.abc import Collection, Sequence

from torch import nn

from fedmer.contracts.network import Network
from fedmer.errors import InputError


def personal_parts(network: nn.Module, parts: Sequence[str] | None) -> Collection[str]:
    """Names of the parameters and buffers of some parts, or of the heads.

    Args:
        network: Where they are.
        parts: Such as ``head`` or ``encoder.norm``: each stands for all names that have it between
            their dots. None is the heads, as the network's ``class_parameters`` name them.

    >>> network = nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)})
    >>> sorted(personal_parts(network, ["head"]))
    ['head.bias', 'head.weight']
    """
    if parts is None:
        return set(network.class_parameters) if isinstance(network, Network) else ()
    return {
        name for name in network.state_dict() if any(f".{part}." in f".{name}." for part in parts)
    }


def check_parts(network: nn.Module, parts: Sequence[str] | None) -> None:
    """See that every part is there, and that something else is left to travel.

    Raises:
        InputError: It is not.
    """
    kind = type(network).__name__
    if parts is None and not personal_parts(network, None):
        raise InputError(
            f"{kind} names no parameter with a row a class (class_parameters), so that nobody "
            "knows its head; name its personal parts by --aggregator.personal."
        )
    for part in parts or ():
        if not personal_parts(network, [part]):
            known = ", ".join(dict.fromkeys(name.split(".")[0] for name in network.state_dict()))
            raise InputError(
                f"aggregator.personal names '{part}', and {kind} has no such part; it has {known}, "
                "and parts of these."
            )
    if len(personal_parts(network, parts)) == len(network.state_dict()):
        raise InputError(
            f"aggregator.personal names all of {kind}, so that nothing travels; use --aggregator "
            "Local, or name fewer parts."
        )
