"""Federated multimodal emotion recognition in conversations, on PyTorch Lightning.

Every plugin and every contract can be imported from here, as can what joins them:

>>> from fedmer import SDT, Distance, FederatedModule, Partitioner

Nothing of it is imported before it is asked for.
"""

import sys
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmer.api import Run, fit
    from fedmer.bundle.model import load
    from fedmer.data.corpus import Conversation
    from fedmer.data.formats import read_corpus
    from fedmer.data.formats.in_memory import corpus
    from fedmer.data.synthetic import synthetic_corpus
    from fedmer.datamodule import FederatedDataModule
    from fedmer.federated import FederatedModule
    from fedmer.losses.distillation import SelfDistillation
    from fedmer.network_average import ServerOptions
    from fedmer.steps import LocalTraining

__all__ = [
    "Conversation",
    "FederatedDataModule",
    "FederatedModule",
    "LocalTraining",
    "Run",
    "SelfDistillation",
    "ServerOptions",
    "corpus",
    "fit",
    "load",
    "read_corpus",
    "synthetic_corpus",
]

__version__ = "0.1.0"

_JOINERS = {
    "FederatedModule": "fedmer.federated",
    "FederatedDataModule": "fedmer.datamodule",
    "Conversation": "fedmer.data.corpus",
    "LocalTraining": "fedmer.steps",
    "Run": "fedmer.api",
    "SelfDistillation": "fedmer.losses.distillation",
    "ServerOptions": "fedmer.network_average",
    "corpus": "fedmer.data.formats.in_memory",
    "fit": "fedmer.api",
    "load": "fedmer.bundle.model",
    "read_corpus": "fedmer.data.formats",
    "synthetic_corpus": "fedmer.data.synthetic",
}


def __getattr__(name: str) -> Any:
    # jsonargparse asks every package above a class whether it has it, and would write a path that
    # names no file into each configuration. Lower case may be a module, which Python tries next.
    asking = sys._getframe(1).f_globals.get("__name__", "")
    if name[:1].isupper() and not asking.startswith("jsonargparse."):
        home = _homes().get(name)
        if home is not None:
            return getattr(import_module(home), name)
    if name in _JOINERS:
        return getattr(import_module(_JOINERS[name]), name)
    raise AttributeError(f"module 'fedmer' has no attribute '{name}'")


@cache
def _homes() -> dict[str, str]:
    """Name of every contract, plugin and joiner -> the module to import it from."""
    from fedmer import contracts
    from fedmer.plugins import registry

    every = [plugin for kind in registry.KINDS for plugin in registry.plugins(kind)]
    found = {plugin.name: plugin.path.rpartition(".")[0] for plugin in every}
    return found | dict.fromkeys(contracts.__all__, "fedmer.contracts") | _JOINERS
