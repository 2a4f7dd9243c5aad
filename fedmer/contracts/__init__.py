"""What the author of a plugin reads, and all of fedmer that a plugin has to import.

Each name is imported when it is first asked for, so that a split can be written and used without
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedmer.contracts.aggregator import Aggregator, ClientRound, ServerState, Stage
    from fedmer.contracts.condition import Condition, ConditionContext
    from fedmer.contracts.executor import Executor
    from fedmer.contracts.extractor import Extractor
    from fedmer.contracts.masked_sum import MaskedSum
    from fedmer.contracts.network import Network, NetworkOutput
    from fedmer.contracts.partitioner import Partitioner
    from fedmer.contracts.privacy import (
        ClientContext,
        Guarantee,
        LocalSteps,
        Plan,
        Privacy,
        ServerContext,
        StepNoise,
    )
    from fedmer.contracts.selector import Sampling, Selector

__all__ = [
    "Aggregator",
    "ClientContext",
    "ClientRound",
    "Condition",
    "ConditionContext",
    "Executor",
    "Extractor",
    "Guarantee",
    "LocalSteps",
    "MaskedSum",
    "Network",
    "NetworkOutput",
    "Partitioner",
    "Plan",
    "Privacy",
    "Sampling",
    "Selector",
    "ServerContext",
    "ServerState",
    "Stage",
    "StepNoise",
]

_HOME = {
    "ClientContext": "privacy",
    "ClientRound": "aggregator",
    "ConditionContext": "condition",
    "Guarantee": "privacy",
    "LocalSteps": "privacy",
    "MaskedSum": "masked_sum",
    "NetworkOutput": "network",
    "Plan": "privacy",
    "Sampling": "selector",
    "ServerContext": "privacy",
    "ServerState": "aggregator",
    "Stage": "aggregator",
    "StepNoise": "privacy",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{_HOME.get(name, name.lower())}"), name)
