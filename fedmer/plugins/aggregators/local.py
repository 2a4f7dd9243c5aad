"""Local, no exchange at all."""

from collections.abc import Collection

from torch import nn

from fedmer.contracts.aggregator import Aggregator, Clear


class Local(Aggregator):
    """No exchange: every client trains alone, from the same start, and keeps its network.

    The lower end of the scale: what a client has without a federation. The upper end is any rule
    with the ``Central`` split, one client that holds everything.

    >>> import torch
    >>> from fedmer.contracts import ServerState
    >>> Local().broadcast(ServerState(torch.nn.Linear(1, 1))).weights is None
    True
    """

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ()

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return network.state_dict().keys()
