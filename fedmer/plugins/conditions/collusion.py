"""Collusion, attackers that look like the last round's prototypes and push alike."""

from dataclasses import replace

import torch

from fedmer.contracts.condition import Condition, ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import changed, noise
from fedmer.prototypes import Prototypes, PrototypeSet


class Collusion(Condition):
    r"""Attackers send the old prototypes back, and all the same direction as their update.

    .. math::

        C_i^k \leftarrow c^{k,t}, \qquad
        w_i \leftarrow w^t + s\, \lVert w_i - w^t \rVert\, \frac{z^t}{\lVert z^t \rVert}

    with one random :math:`z^t` for all of them, another in every round. A rule that weighs clients
    by how near they are to the old prototypes gives them the most that anybody can have, and one
    that looks for clients near each other finds them first.

    Args:
        fraction: Share of the clients, in [0, 1].
        severity: The factor :math:`s`, 0 or more.
        seed: Chooses the clients, together with the run's.
    """

    severity_is_a_share = False

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        drawn = noise(update, received, self.severity, context.common)
        old = PrototypeSet.unpack(received.tensors)
        sent = dict(PrototypeSet.unpack(summary.tensors))
        for site in sent.keys() & old.keys():
            own, last = sent[site], old[site]
            both = (own.known & last.known)[:, None]
            sent[site] = Prototypes(torch.where(both, last.means, own.means), own.known, own.counts)
        tensors = {**summary.tensors, **PrototypeSet(sent).pack()}
        return (
            replace(summary, tensors=tensors),
            changed(update, received, self, lambda name, change: drawn[name]),
        )
