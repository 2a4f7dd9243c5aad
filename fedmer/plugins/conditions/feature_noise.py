"""FeatureNoise, recordings that hiss or are too loud."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.plugins.conditions._training import random_of


class FeatureNoise(Condition):
    r"""Features are too large or small, and noisy.

    .. math:: x \leftarrow g\, x + \sigma\, \varepsilon, \qquad \varepsilon \sim N(0, 1)

    after standardisation, so that :math:`\sigma` counts standard deviations of the federation.
    Modalities that an utterance lacks stay missing.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The noise :math:`\sigma`, 0 or more.
        seed: Chooses the clients, together with the run's.
        gain: The factor :math:`g`.
        modalities: Which ones; by default all.

    Raises:
        InputError: A number is out of range.
    """

    severity_is_a_share = False

    def __init__(
        self,
        fraction: float = 0.2,
        severity: float = 1.0,
        seed: int = 0,
        gain: float = 1.0,
        modalities: list[str] | None = None,
    ) -> None:
        super().__init__(fraction, severity, seed)
        if not abs(gain) < float("inf"):
            raise InputError(f"FeatureNoise: gain is {gain}; expected a finite number.")
        self.gain = gain
        self.modalities = modalities

    def on_data(self, data: ClientData, context: ConditionContext) -> ClientData:
        known = list(data.train[0].features)
        chosen = known if self.modalities is None else known_of(self.modalities, known, self)
        random = random_of(context.seed)

        def noisy(part: Excerpt, name: str) -> Tensor:
            rows = part.features[name]
            if name not in chosen:
                return rows
            drawn = torch.randn(rows.shape, generator=random)
            return (self.gain * rows + self.severity * drawn) * part.present[name][:, None]

        train = [
            replace(part, features={name: noisy(part, name) for name in known})
            for part in data.train
        ]
        return replace(data, train=train)


def known_of(names: Sequence[str], known: Sequence[str], condition: Condition) -> Sequence[str]:
    """The same names.

    Raises:
        InputError: One of them is no modality of the corpus.
    """
    odd = [name for name in names if name not in known]
    if odd:
        raise InputError(
            f"{type(condition).__name__}: the corpus has no modality '{odd[0]}'; it has "
            f"{', '.join(known)}."
        )
    return names
