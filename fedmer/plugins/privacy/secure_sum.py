"""SecureSum, a server that sees the sum of updates and none of them."""

from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.privacy import Privacy
from fedmer.errors import InputError


class SecureSum(Privacy):
    r"""The server sees the weighted sum of the cohort's updates, and no single one.

    Clients send their small summaries in the open, get their weights, and then run SecAgg+ (Bell et
    al., CCS 2020, arXiv 2006.08393) by Flower's workflow: each sends

    .. math:: q\big(w_i (\theta_i - \theta)\big) + m_i + \sum_{j \ne i} \pm m_{ij} \bmod 2^{32}

    with masks that cancel in the sum, or that the others' key shares undo for a client that was
    lost. So every rule that is linear works, :class:`~fedmer.plugins.aggregators.distance.Distance`
    among them. Numbers are rounded to a grid of ``2 clip / 2^b`` with ``b = 31 - log2(clients)``.

    Class means cross in the sum too, where a rule needs no more than their mean
    (:attr:`Aggregator.sums <fedmer.contracts.aggregator.Aggregator.sums>`): the rows of each class
    times a weight of their own. The server still sees what else a summary has: counts, losses, and
    how far a client's class means lie from the global ones. Nodes are told each other's weights,
    and refuse a sum that one of them dominates. On machines of their own they draw the order of
    batches and dropout by themselves. Needs ``--executor Flower``.

    Args:
        threshold: Share of the cohort, in (0.5, 1], that has to stay to the end of a round. Above
            one half, so that no two totals of one round can be unmasked and compared.
        clip: The largest size of a number in a weighted update; a client beyond it takes no part.
        class_holders: Where a rule weighs the rows of a class by themselves, those of class means
            among them, clients that have to hold the class; the rows of fewer would show them, and
            keep their values. All of a smaller cohort are enough.
        class_share: The largest share of such a class's weights, in (0, 1], that one may have.
        summary_clip: The largest size of a number in a class mean; a client beyond it takes no
            part. Numbers of the means are rounded to a grid of ``2 summary_clip / 2^b``.

    Raises:
        InputError: An argument is out of range.
    """

    def __init__(
        self,
        threshold: float = 0.6,
        clip: float = 1.0,
        class_holders: int = 3,
        class_share: float = 0.8,
        summary_clip: float = 64.0,
    ) -> None:
        if not 0.5 < threshold <= 1:
            raise InputError(f"privacy.threshold is {threshold}; expected a number in (0.5, 1].")
        for name, value in (("clip", clip), ("summary_clip", summary_clip)):
            if not 0 < value < float("inf"):
                raise InputError(f"privacy.{name} is {value}; expected a finite number above 0.")
        if class_holders < 2:
            raise InputError(f"privacy.class_holders is {class_holders}; expected at least 2.")
        if not 0 < class_share <= 1:
            raise InputError(f"privacy.class_share is {class_share}; expected a number in (0, 1].")
        self.masked_sum = MaskedSum(threshold, clip, class_holders, class_share, summary_clip)
