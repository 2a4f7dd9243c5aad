"""Temperature scaling: probabilities that say how often they are right."""

from collections.abc import Sequence

import numpy as np

from fedmer.bundle.prediction import Prediction
from fedmer.data.corpus import UNLABELLED
from fedmer.errors import InputError

_RANGE = (1 / 20, 20.0)
"""Of one over the temperature."""
_STEPS = 60
"""Each shortens the range by a third."""


def fit_temperature(predictions: Sequence[Prediction]) -> float:
    r"""The temperature under which the labels are likeliest.

    .. math:: \min_T \; -\sum_i \log \mathrm{softmax}(z_i / T)_{y_i}

    of C. Guo et al., On Calibration of Modern Neural Networks, ICML 2017. The sum is convex in
    ``1 / T``, so that a search by thirds finds the least.

    Args:
        predictions: Of labelled dialogues that the model has not learnt from; labels are indices
            into the model's emotions, and others are not looked at.

    Returns:
        T, from 0.05 to 20.

    Raises:
        InputError: Nothing is labelled.
    """
    logits = np.concatenate([one.logits for one in predictions]).astype(np.float64)
    labels = np.concatenate([one.conversation.labels for one in predictions])
    known = (labels != UNLABELLED) & (labels < logits.shape[1])
    if not known.any():
        raise InputError(
            "A temperature needs labelled dialogues; none of these utterances has a label."
        )
    rows, truth = logits[known], labels[known]

    def surprise(inverse: float) -> float:
        scaled = rows * inverse
        top = scaled.max(axis=1)
        total = top + np.log(np.exp(scaled - top[:, None]).sum(axis=1))
        return float((total - scaled[np.arange(len(truth)), truth]).mean())

    low, high = _RANGE
    for _ in range(_STEPS):
        third = (high - low) / 3
        if surprise(low + third) <= surprise(high - third):
            high -= third
        else:
            low += third
    return 2 / (low + high)
