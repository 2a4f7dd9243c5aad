"""FedBN, averaging with personal norms."""

import warnings
from collections.abc import Collection

from torch import nn

from fedmer.plugins.aggregators.fed_avg import FedAvg

_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
)


class FedBN(FedAvg):
    """FedAvg of all but normalisation layers, which stay with their clients.

    X. Li et al., "FedBN: Federated Learning on Non-IID Features via Local Batch Normalization",
    ICLR 2021. The paper keeps batch norms, with their scale, shift and running statistics. Networks
    of conversations have hardly any, so here every normalisation layer of torch stays: batch,
    instance, layer, group and root-mean-square norms. A layer norm has no running statistics; its
    scale and shift are what a client has for itself. A network without any is averaged whole, as by
    FedAvg, bit for bit, and a warning says so.

    >>> from fedmer.contracts import ServerState
    >>> network = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    >>> list(FedBN().broadcast(ServerState(network)).weights)
    ['0.weight', '0.bias']
    """

    def __init__(self) -> None:
        super().__init__()

    def check(self, network: nn.Module) -> None:
        if not self.personal_names(network):
            warnings.warn(
                f"{type(network).__name__} has no normalisation layer with parameters, so that "
                "FedBN keeps nothing back and is FedAvg.",
                stacklevel=2,
            )

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return {
            f"{above}.{name}" if above else name
            for above, layer in network.named_modules()
            if isinstance(layer, _NORMS)
            for name in layer.state_dict()
        }
