"""Distance, the paper's rule: prototypes correct what clients learn and weigh what they send."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fedmer.contracts.aggregator import Aggregator, Clear, ClientRound, ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.losses import prototype
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators._distance_weights import (
    DistanceWeights,
    Radius,
    Weighting,
    weighted_means,
)
from fedmer.plugins.aggregators._heads import Heads, check_rows
from fedmer.plugins.aggregators._prototypes import (
    check_least,
    collect_prototypes,
    collected_prototypes,
    counted_at,
    embedding_at,
    held_by,
    in_sum,
    local_prototypes,
    split_mean,
)
from fedmer.prototypes import Prototypes, PrototypeSet, names_of, stack_clients, stack_counts

_DISTANCES = "distances."


class Distance(Aggregator):
    r"""Distance-weighted aggregation with distance correction, our reading of FedMPD.

    X. Wang et al., "A Secure Federated Learning Algorithm for Emotion Recognition Towards
    Multimodal Speaker Signals on the Client Side", 2026, equations 8 to 10 and Table 1. The paper
    leaves gaps; where it does, the reading is ours, and no claim is made to reproduce FedMPD.

    *Distance correction.* With :math:`z` an embedding, :math:`c^k` the global prototype of class
    :math:`k`, :math:`B` the labelled utterances of a batch and :math:`n_k` of them in class
    :math:`k`, client :math:`i` minimises

    .. math::

        L_i &= L_S + \lambda \sum_k \frac{n_k}{|B|} R_k(\bar z_k) \\
        R_k(z) &= d(z, c^k) + \sum_{l \neq k} \max(0, r_k - d(z, c^l)), \qquad
        r_k = \max\bigl(r_{\min}, \min_{l \neq k} d(c^k, c^l)\bigr)

    with :math:`\bar z_k` the batch's mean embedding of the class, or for every utterance by itself.
    It then sends its mean embedding :math:`C_i^k` of every class, taken in evaluation mode after
    training, and the number of utterances :math:`n_{ik}` behind it.

    *Distance weighting.* The server scores clients class by class,

    .. math::

        s_{ik} = (R_k - d_{ik} + \epsilon R_k)\, n_{ik}^\gamma, \quad
        d_{ik} = d(C_i^k, c^{k,t}), \quad R_k = \max\bigl(r_k, \max_i d_{ik}\bigr), \quad
        w_{ik} = s_{ik} \big/ \textstyle\sum_j s_{jk}

    and joins prototypes and networks by

    .. math::

        c^{k,t+1} = \sum_i w_{ik} C_i^k, \qquad
        w^{t+1} = \sum_i W_i w_i, \qquad W_i = \sum_k \frac{N_k}{N} w_{ik}

    over those clients that hold a class; :math:`N_k = \sum_i n_{ik}`. With ``heads='classwise'``
    the row of class :math:`k` of a head is joined by :math:`w_{ik}` itself,

    .. math:: w_{(k)}^{t+1} = \sum_i w_{ik} w_{i(k)}

    which is what the paper's weights of single classes say when one reads a head's row as a
    prototype of its class: an embedding is compared with both by a product or a distance, and a
    client that lacks the class knows nothing of either. A class that nobody in the cohort holds
    keeps its prototype and its row. The first round has no prototypes: nothing is corrected, and
    the counts alone weigh. With equal distances and :math:`\gamma = 1` this is FedAvg; with
    equal distances and :math:`\gamma = 0` the prototypes are FedProto's. The rule favours clients
    near the *old* prototypes: it damps drift and outliers, and for the same reason adapts slowly
    and discounts a rare honest client. Without a floor the margin collapses if the prototypes do.

    Args:
        strength: The factor lambda of the correction, 0 or more; 0 turns it off. The paper has 0.1,
            at which prototypes drive each other apart: the margin is their own distance.
        gate: Which utterances are corrected, by :math:`\alpha` and the distance of their embedding
            to
            their own prototype: all ('off'); those that are not yet :math:`\alpha` nearer to it
            than its nearest rival is, :math:`d(z, c^k) + \alpha \geq \min_{l \neq k} d(c^k, c^l)`
            ('violation'); or the others, as the paper's Table 1 prints it ('literal'). The
            supervised loss is never gated.
        alpha: The margin of the gate.
        correction: Correct a batch's mean embedding of a class ('batch_proto') or every utterance
            ('sample').
        sites: Where in the network: 'fused', and names of modalities. The correction is averaged
            over sites, and so are the weights.
        distance: 'euclidean', 'squared' (Euclidean) or 'cosine' (1 minus the cosine).
        r_min: The least margin, 0 or more, in units of distance.
        min_count: A class of which a client has fewer utterances than this is neither sent nor
            counted: the mean of one embedding would be that embedding.
        weighting: 'distance' as above; 'softmax' with
            :math:`s_{ik} = e^{-d_{ik} / \tau}\, n_{ik}^\gamma`; 'robust', against clients that are
            bad, by the distance from the cohort's own median prototype, in units of the cohort's
            median distance and times :math:`\sqrt{n_{ik}}`, since the fewer utterances are behind
            a mean, the farther it is by chance; or 'counts' with :math:`n_{ik}^\gamma`, which turns
            distance weighting off. For 'robust' the server has to see prototypes.
        radius: 'envelope' as above; or 'clip', :math:`s_{ik} = \max(r_k - d_{ik}, 0)\,
            n_{ik}^\gamma`.
        epsilon: What the farthest client keeps, as a share of the radius, above 0. Near 0 it is
            left out altogether, which costs the emotions that only it knows.
        gamma: The power of the number of utterances, 0 or more; the paper has 0.
        tau: The temperature, above 0: of 'softmax' in units of distance, of 'robust' in median
            distances, where 0.25 was measured (experiments/results/privacy.md).
        exchange: What travels. 'both': networks and prototypes. 'parameters': prototypes go up,
            since weights need them, but none come down, so nothing is corrected. 'prototypes':
            networks stay personal.
        inference: Predict by the network's 'head', or by the nearest fused 'prototype'.
        prototypes: Whose embeddings a client averages: those that its trained network makes of all
            its utterances, in one more pass ('after'); or those of its last pass of training, with
            dropout and while weights still move ('during'), which costs a quarter less time.
        heads: How rows of classes are averaged: 'classwise' by :math:`w_{ik}`, the mean over sites;
            or 'joint' by :math:`W_i` as everything else, which is the paper as printed.

    Raises:
        InputError: A value is out of range.

    >>> def sent(client: int, mean: float) -> Summary:
    ...     held = torch.tensor([5, 5])
    ...     prototypes = Prototypes(torch.tensor([[mean], [2.0]]), held > 0, held)
    ...     return Summary(client, examples=10, tensors=PrototypeSet({"fused": prototypes}).pack())
    >>> before = Prototypes(torch.tensor([[0.0], [2.0]]), torch.tensor([True, True]))
    >>> state = ServerState(torch.nn.Linear(1, 1))
    >>> state.tensors |= PrototypeSet({"fused": before}).pack()
    >>> weights = Distance().weigh([sent(0, mean=0.1), sent(1, mean=1.0)], state)
    >>> {client: round(weight, 3) for client, weight in weights.items()}  # 1 has drifted
    {0: 0.568, 1: 0.432}
    """

    streams = False

    def __init__(
        self,
        strength: float = 0.01,
        gate: Literal["off", "violation", "literal"] = "off",
        alpha: float = 0.2,
        correction: Literal["batch_proto", "sample"] = "batch_proto",
        sites: Sequence[str] = ("fused",),
        distance: prototype.Distance = "euclidean",
        r_min: float = 0.0,
        min_count: int = 2,
        weighting: Weighting = "distance",
        radius: Radius = "envelope",
        epsilon: float = 0.1,
        gamma: float = 1.0,
        tau: float = 1.0,
        exchange: Literal["both", "prototypes", "parameters"] = "both",
        inference: Literal["head", "prototype"] = "head",
        heads: Heads = "classwise",
        prototypes: Literal["after", "during"] = "during",
    ) -> None:
        for name, value in (
            ("strength (lambda)", strength), ("r_min", r_min), ("gamma", gamma)
        ):  # fmt: skip
            if not 0 <= value < math.inf:
                raise InputError(f"{name} is {value}; expected a number of 0 or more.")
        for name, value in (("epsilon", epsilon), ("tau", tau)):
            if not 0 < value < math.inf:
                raise InputError(f"{name} is {value}; expected a number above 0.")
        if math.isnan(alpha):
            raise InputError("alpha is nan; expected a number.")
        check_least(min_count)
        if not sites or len(set(sites)) != len(sites):
            raise InputError(
                f"sites is {list(sites)}; expected one or more names, each once, such as fused."
            )
        if inference == "prototype" and ("fused" not in sites or exchange == "parameters"):
            raise InputError(
                "inference is 'prototype', which needs prototypes at the site fused on clients; "
                "add it to sites, and let exchange be both or prototypes."
            )
        self.strength = strength
        self.gate = gate
        self.alpha = alpha
        self.correction = correction
        self.sites = tuple(sites)
        self.distance = distance
        self.r_min = r_min
        self.min_count = min_count
        self.weights = DistanceWeights(weighting, radius, epsilon, gamma, tau, distance)
        self.exchange = exchange
        self.inference = inference
        self.heads = heads
        self.prototypes = prototypes

    def check(self, network: nn.Module) -> None:
        if self.heads == "classwise" and self.exchange != "prototypes":
            check_rows(network)

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("examples", "prototypes", "prototype counts")

    @property
    def reads_masked(self) -> tuple[Clear, ...]:
        if not self.sums:
            return self.reads
        if not self.weights.measures:
            return ("examples", "prototype counts")
        return ("examples", "prototype distances", "prototype counts")

    @property
    def sums(self) -> tuple[str, ...]:
        # Who does not receive what it is measured from cannot say how far it is from that.
        blind = self.weights.measures and self.exchange == "parameters"
        return () if blind or self.weights.compares else names_of(self.sites)

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return network.state_dict().keys() if self.exchange == "prototypes" else ()

    def broadcast(self, state: ServerState) -> Broadcast:
        sent = super().broadcast(state)
        return Broadcast(sent.round, sent.weights) if self.exchange == "parameters" else sent

    def client_loss(
        self, supervised: Tensor, output: NetworkOutput, batch: Batch, context: ClientRound
    ) -> Tensor:
        embeddings = {site: embedding_at(output, site) for site in self.sites}
        if self.prototypes == "during" and context.last_epoch:
            collect_prototypes(context, output, batch, self.sites)
        sent = PrototypeSet.unpack(context.received.tensors)
        if self.strength == 0 or not sent:
            return supervised
        terms = [
            self._correction(
                batch.pack(rows), batch.pack(batch.labels), batch.pack(counted_at(batch, site)),
                sent[site].means, sent[site].known,
            )
            for site, rows in embeddings.items()
        ]  # fmt: skip
        return supervised + self.strength * torch.stack(terms).mean()

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        if self.prototypes == "during":
            found = collected_prototypes(context, self.sites)
        else:
            found = local_prototypes(context, batches, self.sites)
        return held_by(found, self.min_count).pack()

    def mask(self, tensors: Mapping[str, Tensor], received: Broadcast) -> Mapping[str, Tensor]:
        crossing = in_sum(tensors, self.sums)
        global_ones = PrototypeSet.unpack(received.tensors)
        for site, local in PrototypeSet.unpack(tensors).items():
            old = global_ones.get(site)
            if old is not None and self.weights.measures:
                # Of a class that is not known to both it would be the length of a class mean.
                both = local.known & old.known
                crossing[_DISTANCES + site] = self.weights.apart(local.means, old) * both
        return crossing

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        total = torch.zeros(len(summaries), dtype=torch.float64)
        for site in self.sites:
            counts, weights = self._class_weights(summaries, state, site)
            shares = counts.sum(dim=0).double() / counts.sum().clamp(min=1)
            total += (weights * shares).sum(dim=1).cpu()
        if not total.sum() > 0:
            # Nobody holds enough of any class to tell; each counts by its examples.
            total = torch.tensor([summary.examples for summary in summaries]).double()
        parts: list[float] = (total / total.sum()).tolist()
        return {summary.client: part for summary, part in zip(summaries, parts, strict=True)}

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        if self.heads == "joint" or self.exchange == "prototypes":
            return None
        sites = [self._class_weights(summaries, state, site)[1] for site in self.sites]
        rows = torch.stack(sites).mean(dim=0)
        return {summary.client: row for summary, row in zip(summaries, rows, strict=True)}

    def weigh_sums(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, dict[str, Tensor]]:
        sites = [self._class_weights(summaries, state, site)[1] for site in self.sites]
        return {
            summary.client: dict(zip(self.sums, rows, strict=True))
            for summary, *rows in zip(summaries, *sites, strict=True)
        }

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        old, new = PrototypeSet.unpack(state.tensors), {}
        mean, sums = split_mean(mean, self.sums)
        for site in self.sites:
            if site in sums:
                fresh, held = sums[site].means, sums[site].known
            else:
                counts, class_weights = self._class_weights(summaries, state, site)
                local, _ = stack_clients([PrototypeSet.unpack(s.tensors) for s in summaries], site)
                fresh, held = weighted_means(local, class_weights), (counts > 0).any(dim=0)
            nothing = Prototypes(torch.zeros_like(fresh), torch.zeros_like(held))
            new[site] = old.get(site, nothing).joined_by(fresh, held)
        state.tensors |= PrototypeSet(new).pack()
        if mean is not None:
            state.load(mean)

    def predict(self, output: NetworkOutput, received: Broadcast) -> Tensor:
        known = PrototypeSet.unpack(received.tensors).get("fused")
        if self.inference == "head" or known is None:
            return output.logits
        return known.predict(output.embeddings["fused"])

    def _correction(
        self, embeddings: Tensor, labels: Tensor, counted: Tensor, prototypes: Tensor, known: Tensor
    ) -> Tensor:
        """The sum over classes of ``n_k / |B| * R_k`` over ``(N, D)`` embeddings, a scalar."""
        turns = counted.sum().clamp(min=1)
        rows, names = embeddings.float(), labels.clamp(min=0)
        # Weighed by 0 or 1 and not picked out: how many there are only the device knows.
        seen = counted & self.gated(rows, names, prototypes, known)
        if self.correction == "sample":
            terms = self._regulariser(rows, names, prototypes, known)
            return (terms * seen).sum() / turns
        sums, counts = prototype.class_sums(rows, names, seen, len(known))
        means = sums / counts.clamp(min=1)[:, None]
        every = torch.arange(len(known), device=names.device)
        return (self._regulariser(means, every, prototypes, known) * counts).sum() / turns

    def _regulariser(
        self, rows: Tensor, names: Tensor, prototypes: Tensor, known: Tensor
    ) -> Tensor:
        return prototype.contrastive(rows, names, prototypes, known, self.distance, self.r_min)

    def gated(self, rows: Tensor, labels: Tensor, prototypes: Tensor, known: Tensor) -> Tensor:
        """``(N,)`` bool: which of ``(N, D)`` embeddings the gate lets the correction see."""
        if self.gate == "off":
            return torch.ones_like(labels, dtype=torch.bool)
        with torch.no_grad():
            apart = prototype.distances(rows, prototypes, self.distance)
            nearest = apart.gather(1, labels[:, None])[:, 0]
            rival = prototype.margins(prototypes, known, self.distance)[labels]
            violation = nearest + self.alpha >= rival
            return violation if self.gate == "violation" else ~violation

    def _class_weights(
        self, summaries: Sequence[Summary], state: ServerState, site: str
    ) -> tuple[Tensor, Tensor]:
        """``(I, C)`` counts and ``(I, C)`` weights at a site."""
        sent = [summary.tensors for summary in summaries]
        counts = stack_counts(sent, site)
        old = PrototypeSet.unpack(state.tensors).get(site)
        apart: Tensor | None = None
        if names_of([site])[0] in sent[0]:
            seen, _ = stack_clients([PrototypeSet.unpack(tensors) for tensors in sent], site)
            if self.weights.compares:
                apart = self.weights.from_middle(seen, counts)
            elif old is not None and self.weights.measures:
                apart = self.weights.apart(seen, old)
        else:
            # Under a masked sum a client measures, and its prototypes are not seen.
            named = _DISTANCES + site
            seen = torch.stack([tensors.get(named, torch.zeros(())) for tensors in sent])
            apart = seen.clamp(min=0) if named in sent[0] else None
        for summary, rows, count in zip(summaries, seen, counts, strict=True):
            if not torch.isfinite(rows).all() or (count < 0).any():
                raise InputError(
                    f"Client {summary.client} sent prototypes at site '{site}' that are not "
                    "finite, or negative counts; lower its learning rate, or leave it out."
                )
        return counts, self.weights(apart, counts, old)
