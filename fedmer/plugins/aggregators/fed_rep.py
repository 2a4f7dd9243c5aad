"""FedRep, averaging with personal heads that are trained before the body."""

from collections.abc import Sequence

from torch import nn

from fedmer.contracts.aggregator import Stage
from fedmer.contracts.network import Network
from fedmer.errors import InputError
from fedmer.plugins.aggregators._personal_parts import personal_parts
from fedmer.plugins.aggregators.fed_per import FedPer


class FedRep(FedPer):
    r"""FedPer whose clients train first the head and then the body.

    With :math:`w = (b, h_i)`, client :math:`i` makes ``head_epochs`` passes over its data on
    :math:`h_i` alone, then the ``local.epochs`` passes of every rule on :math:`b` alone:

    .. math:: h_i^{t+1} \approx \arg\min_h F_i(b^t, h), \qquad
        b_i^{t+1} = b^t - \eta \nabla_b F_i(b^t, h_i^{t+1})

    L. Collins et al., "Exploiting Shared Representations for Personalized Federated Learning",
    ICML 2021. What stands still has no gradient: neither weight decay nor momentum moves it, and
    clipping does not count it. So a round costs ``head_epochs`` passes more than one of FedPer.

    Args:
        personal: Parts of the network that are its head, as in FedPer.
        head_epochs: Passes over a client's data on the head, 1 or more.

    Raises:
        InputError: ``head_epochs`` is below 1.
    """

    def __init__(self, personal: list[str] | None = None, head_epochs: int = 1) -> None:
        super().__init__(personal)
        if head_epochs < 1:
            raise InputError(f"head_epochs is {head_epochs}; expected at least 1.")
        self.head_epochs = head_epochs

    def check(self, network: nn.Module) -> None:
        super().check(network)
        if not self.personal_names(network):
            raise InputError(
                "aggregator.personal names nothing, so that there is no head to train first; name "
                "a part, or use --aggregator FedAvg."
            )

    def stages(self, network: Network, epochs: int) -> Sequence[Stage]:
        head = personal_parts(network, self.personal)
        body = [name for name, _ in network.named_parameters() if name not in head]
        return Stage(self.head_epochs, frozen=body), Stage(epochs, frozen=head)
