"""FedProto, where only class prototypes travel."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fedmer.contracts.aggregator import Aggregator, Clear, ClientRound, ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators._prototypes import (
    check_least,
    held_by,
    in_sum,
    local_prototypes,
    split_mean,
)
from fedmer.prototypes import (
    Prototypes,
    PrototypeSet,
    held_classes,
    names_of,
    stack_clients,
)

SITE = "fused"


class FedProto(Aggregator):
    r"""Personal networks that agree on class prototypes; weights never travel.

    Y. Tan et al., "FedProto: Federated Prototype Learning across Heterogeneous Clients", AAAI 2022.
    With the fused embedding :math:`z` of width :math:`d`, client :math:`i` minimises

    .. math:: L_S + \lambda \frac{1}{n} \sum_x \frac{1}{d} \lVert z(x) - c^{y(x)} \rVert^2

    and sends :math:`C_i^k`, its mean embedding of class :math:`k`, taken in evaluation mode after
    training, and which classes it holds, without counts. The server sets :math:`c^k` to the plain
    mean of :math:`C_i^k` over the cohort's clients that hold class :math:`k`, as the authors' code
    does (the paper's formula would shrink it by their number). A class that no client of the cohort
    holds keeps its prototype; a class without one contributes nothing to the loss and is never
    predicted. Under a masked sum the server sees that mean, and of each client which classes it
    holds.

    Args:
        strength: The factor lambda of the prototype term, 0 or more.
        inference: Predict by the nearest global 'prototype', as the paper does, or by the
            network's 'head'. Before there are prototypes, the head predicts.
        min_count: A class of which a client has fewer utterances than this counts as one that it
            does not hold: the mean of one embedding would be that embedding.

    Raises:
        InputError: A value is out of range.

    >>> def sent(client: int, means: list[list[float]], counts: list[int]) -> Summary:
    ...     held = torch.tensor(counts)
    ...     prototypes = Prototypes(torch.tensor(means), held > 0, held)
    ...     return Summary(client, sum(counts), tensors=PrototypeSet({"fused": prototypes}).pack())
    >>> cohort = [sent(0, [[1.0], [0.0]], [9, 0]), sent(1, [[3.0], [5.0]], [1, 2])]
    >>> state = ServerState(torch.nn.Linear(1, 1))
    >>> FedProto().step(state, cohort, {}, None)
    >>> state.tensors["prototypes.fused"].tolist()
    [[2.0], [5.0]]
    """

    def __init__(
        self,
        strength: float = 1.0,
        inference: Literal["prototype", "head"] = "prototype",
        min_count: int = 1,
    ) -> None:
        if not strength >= 0:
            raise InputError(f"strength is {strength}; expected 0 or more.")
        check_least(min_count)
        self.strength = strength
        self.inference = inference
        self.min_count = min_count

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("prototypes", "held classes")

    @property
    def reads_masked(self) -> tuple[Clear, ...]:
        return tuple(what for what in self.reads if what != "prototypes")

    @property
    def sums(self) -> tuple[str, ...]:
        return names_of([SITE])

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return network.state_dict().keys()

    def client_loss(
        self, supervised: Tensor, output: NetworkOutput, batch: Batch, context: ClientRound
    ) -> Tensor:
        known = PrototypeSet.unpack(context.received.tensors).get(SITE)
        if known is None:
            return supervised
        labels = batch.labels.clamp(min=0)
        counted = batch.labelled & known.known[labels]
        apart = (output.embeddings[SITE] - known.means[labels]).square().mean(dim=-1)
        distance = (apart * counted).sum() / batch.labelled.sum().clamp(min=1)
        return supervised + self.strength * distance

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        found = local_prototypes(context, batches, [SITE])
        return held_by(found, self.min_count, "prototype counts" in self.reads).pack()

    def mask(self, tensors: Mapping[str, Tensor], received: Broadcast) -> Mapping[str, Tensor]:
        return in_sum(tensors, self.sums)

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        return {summary.client: 1.0 for summary in summaries}

    def weigh_sums(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, dict[str, Tensor]]:
        held = {summary.client: held_classes(summary.tensors, SITE) for summary in summaries}
        return {client: dict.fromkeys(self.sums, rows.double()) for client, rows in held.items()}

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        _, sums = split_mean(mean, self.sums)
        if SITE in sums:
            fresh, known = sums[SITE].means, sums[SITE].known
        else:
            local, held = stack_clients([PrototypeSet.unpack(s.tensors) for s in summaries], SITE)
            fresh = (local * held[..., None]).sum(dim=0) / held.sum(dim=0).clamp(min=1)[:, None]
            known = held.any(dim=0)
        nothing = Prototypes(torch.zeros_like(fresh), torch.zeros_like(known))
        old = PrototypeSet.unpack(state.tensors).get(SITE, nothing)
        state.tensors |= PrototypeSet({SITE: old.joined_by(fresh, known)}).pack()

    def predict(self, output: NetworkOutput, received: Broadcast) -> Tensor:
        known = PrototypeSet.unpack(received.tensors).get(SITE)
        if self.inference == "head" or known is None:
            return output.logits
        return known.predict(output.embeddings[SITE])
