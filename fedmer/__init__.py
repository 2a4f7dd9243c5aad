"""Federated multimodal emotion recognition in conversations, on PyTorch Lightning.

Every plugin and every contract can be imported from here, as can what joins them:

>>> from fedmer import SDT, Distance, FederatedModule, Partitioner

Nothing of it is imported before it is asked for.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_JOINERS = {
    "FederatedModule": "fedmer.federated",
    "FederatedDataModule": "fedmer.data.datamodule",
    "read_corpus": "fedmer.data.formats",
    "synthetic_corpus": "fedmer.data.synthetic",
}


def __getattr__(name: str) -> Any:
    if name in _JOINERS:
        return getattr(import_module(_JOINERS[name]), name)
    if name[:1].isupper():  # else it may be a module of fedmer, which Python tries next
        from fedmer import contracts
        from fedmer.plugins import registry

        if name in contracts.__all__:
            return getattr(contracts, name)
        for kind in registry.KINDS:
            for plugin in registry.plugins(kind):
                if plugin.name == name:
                    return getattr(import_module(plugin.path.rpartition(".")[0]), name)
    raise AttributeError(f"module 'fedmer' has no attribute '{name}'")
