"""Ditto, a personal network beside the global one."""

from collections.abc import Sequence

from fedmer.contracts.aggregator import ClientRound, Stage
from fedmer.contracts.network import Network
from fedmer.errors import InputError
from fedmer.plugins.aggregators._proximal import pull
from fedmer.plugins.aggregators.fed_avg import FedAvg


class Ditto(FedAvg):
    r"""FedAvg, and on every client a personal network that is pulled towards the global one.

    The global network :math:`w` is FedAvg's, bit for bit. Beside it client :math:`i` trains
    :math:`v_i`, which it keeps between the rounds in which it takes part and never sends, on

    .. math:: F_i(v_i) + \frac{\lambda}{2} \lVert v_i - w^t \rVert^2

    with :math:`w^t` as it was received, by adding the exact gradient :math:`\lambda (v_i - w^t)`
    before each optimizer step. Both networks see the client's dialogues in the same order, for
    ``local.epochs`` passes each, so that a round costs twice one of FedAvg. What is evaluated, and
    scored on a client's holdout, is :math:`v_i`. T. Li et al., "Ditto: Fair and Robust Federated
    Learning Through Personalization", ICML 2021. The paper trains by SGD; with Adam the pull passes
    through its moments.

    Args:
        strength: The factor lambda of the pull, 0 or more; at 0 the personal networks are those of
            Local, bit for bit.

    Raises:
        InputError: ``strength`` is negative.
    """

    def __init__(self, strength: float = 0.1) -> None:
        super().__init__()
        if not strength >= 0:
            raise InputError(f"strength is {strength}; expected 0 or more.")
        self.strength = strength

    def stages(self, network: Network, epochs: int) -> Sequence[Stage]:
        return Stage(epochs, personal=True), Stage(epochs)

    def on_before_optimizer_step(self, context: ClientRound) -> None:
        if context.stage.personal:
            pull(context, self.strength)
