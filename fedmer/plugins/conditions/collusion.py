"""Collusion, attackers that look like the last round's prototypes and push alike."""

from dataclasses import replace

import torch

from fedmer.contracts.condition import ConditionContext
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.conditions._updates import Change, ChangedUpdate, noise
from fedmer.prototypes import Prototypes, PrototypeSet


class Collusion(ChangedUpdate):
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

    def change(self, update: Update, received: Broadcast, context: ConditionContext) -> Change:
        return noise(update, received, self.severity, context.common)

    def on_sent(
        self,
        summary: Summary,
        update: Update | None,
        received: Broadcast,
        context: ConditionContext,
    ) -> tuple[Summary, Update | None]:
        old = PrototypeSet.unpack(received.tensors)
        sent = dict(PrototypeSet.unpack(summary.tensors))
        for site in sent.keys() & old.keys():
            now, last = sent[site], old[site]
            both = (now.known & last.known)[:, None]
            sent[site] = Prototypes(torch.where(both, last.means, now.means), now.known, now.counts)
        tensors = {**summary.tensors, **PrototypeSet(sent).pack()}
        return super().on_sent(replace(summary, tensors=tensors), update, received, context)
