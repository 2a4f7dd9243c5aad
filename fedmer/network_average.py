"""The mean of the last global networks, by which a run is judged where rounds swing."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from fedmer.errors import InputError
from fedmer.weights import load_weights


@dataclass(frozen=True)
class ServerOptions:
    """What the server does beside its rule.

    Args:
        average: About how many of the last global networks the network that is evaluated, and that
            predicts, is the mean of; see :class:`NetworkAverage`. 1 is the last one alone. What
            clients receive does not change.

    Raises:
        InputError: ``average`` is below 1, or no number.
    """

    average: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.average < float("inf"):
            raise InputError(
                f"server.average is {self.average}; expected a number of rounds of 1 or more."
            )


class NetworkAverage:
    r"""The exponential mean of global networks over rounds.

    .. math:: m_t = \frac{\sum_{s \le t} \beta^{t-s} w_s}{\sum_{s \le t} \beta^{t-s}}, \quad
        \beta = 1 - 1 / P

    so that a network counts for about :math:`P` rounds, and none before the first. It takes one
    network's memory whatever :math:`P` is. Integer and boolean buffers are the last ones.

    Args:
        network: The global network.
        rounds: :math:`P`, 1 or more; 1 is the global network itself, and nothing is copied.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> mean = NetworkAverage(layer, rounds=2)
    >>> for weight in (3.0, 6.0):
    ...     _ = nn.init.constant_(layer.weight, weight)
    ...     mean.add(layer)
    >>> mean.network.weight.item()
    5.0
    """

    def __init__(self, network: nn.Module, rounds: float) -> None:
        self.rounds = float(rounds)
        self.network = network
        """It has the mean."""
        self._total = 0.0
        if self.rounds > 1:
            self.network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Take in the global network that a round ended with."""
        if self.rounds == 1:
            return
        self._total = (1 - 1 / self.rounds) * self._total + 1
        new = network.state_dict()
        device = next(iter(new.values())).device
        for name, mean in self.network.to(device).state_dict().items():
            if mean.is_floating_point():
                # At 1, as in the first round, lerp gives its end bit for bit.
                mean.lerp_(new[name], 1 / self._total)
            else:
                mean.copy_(new[name])

    def restart(self) -> None:
        """Forget the networks of before; the next one is the mean."""
        self._total = 0.0

    def state_dict(self) -> dict[str, Any]:
        """An entry for the checkpoint; none where nothing is averaged."""
        if self.rounds == 1:
            return {}
        weights = dict(self.network.state_dict())
        return {"average": {"rounds": self.rounds, "total": self._total, "weights": weights}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave.

        Args:
            state: May have other entries beside it.

        Raises:
            InputError: It has the mean of other networks, or over other rounds.
        """
        saved = state.get("average", {"rounds": 1.0})
        if saved["rounds"] != self.rounds:
            raise InputError(
                f"The checkpoint was made with --server.average {saved['rounds']:g}, but this run "
                f"has {self.rounds:g}; pass the config.yaml beside it with --config."
            )
        if self.rounds > 1:
            try:
                load_weights(self.network, saved["weights"])
            except ValueError as error:
                raise InputError(f"The checkpoint's mean of networks: {error}") from error
            self._total = saved["total"]
