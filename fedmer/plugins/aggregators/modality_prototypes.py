"""ModalityPrototypes, class prototypes in the place of missing modalities."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from fedmer.contracts.aggregator import Clear, ClientRound, ServerState
from fedmer.data.batch import Batch
from fedmer.data.missing import filled
from fedmer.errors import InputError
from fedmer.losses.prototype import class_sums, distances
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators._distance_weights import weighted_means
from fedmer.plugins.aggregators._heads import Heads
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.prototypes import Prototypes, PrototypeSet, stack_clients, stack_counts

Fill = Literal["similar", "label", "mean", "zero"]


class ModalityPrototypes(FedAvg):
    r"""FedAvg in which class prototypes of features stand in for missing modalities.

    After G. Bao et al., "Multimodal Federated Learning with Missing Modality via Prototype Mask and
    Contrast" (PmcmFL), arXiv:2312.13508. Of it are a library of prototypes by modality and class
    that the server joins, their use as masks of what is missing, in training by the utterance's
    class, and FedAvg. Its contrastive term is left out, and three things are ours, so that no claim
    is made to reproduce it: prototypes are of the standardised features and not of encodings, so
    that every network can be used; at test, where the class is not known, they are mixed by
    similarity; and 'similar', which mixes in training as well.

    Client :math:`i` sends the mean :math:`C_{im}^k` of its features of modality :math:`m` over its
    :math:`n_{imk}` labelled utterances of class :math:`k` that have it, and the server sets

    .. math:: c_m^k = \sum_i \frac{n_{imk}}{\sum_j n_{jmk}} C_{im}^k

    over the cohort; a class that nobody in it has keeps its prototype. A client fills modality
    :math:`m` of an utterance that has the modalities :math:`A` with

    .. math::

        x_m = \sum_k \pi_k c_m^k, \qquad
        \pi_k \propto \exp \Bigl( \frac{1}{\tau |A|} \sum_{a \in A} \cos(x_a, c_a^k) \Bigr)

    over the classes that have a prototype; without any modality they count alike. What is filled
    counts as present from then on: the network reads it as it reads a recording. In the first round
    there are no prototypes, and what is missing is masked, as under every other rule.

    With 'label', :math:`\pi` names the class of a labelled utterance in training, as the paper has
    it. That is as much as telling the network the answer in every utterance that lacks something,
    and at test it is not told. 'similar' treats training as test.

    Args:
        fill: What stands in: prototypes, by similarity ('similar') or in training by class
            ('label'); or as baselines the 'mean' of what the cohort has, or 'zero'. Both say that
            something is there which is the same for everybody; where features are standardised by
            the federation the mean is near zero.
        tau: The temperature of the similarity, above 0.
        heads: As FedAvg's.
        lr: As FedAvg's.

    Raises:
        InputError: A value is out of range.
    """

    def __init__(
        self, fill: Fill = "similar", tau: float = 0.1, heads: Heads = "joint", lr: float = 1.0
    ) -> None:
        super().__init__(heads, lr)
        if not 0 < tau < math.inf:
            raise InputError(f"tau is {tau}; expected a number above 0.")
        self.fill = fill
        self.tau = tau

    @property
    def reads(self) -> tuple[Clear, ...]:
        return (*super().reads, "prototypes", "prototype counts")

    def on_batch(self, batch: Batch, received: Broadcast, training: bool = False) -> Batch:
        sent = PrototypeSet.unpack(received.tensors)
        if not sent:
            return batch
        similarity = self._similarity(batch, sent)
        rows, gaps = {}, {}
        for name, prototypes in sent.items():
            means, known = prototypes.means, prototypes.known
            # Of a modality that nobody has there is nothing to fill in, and nothing is.
            shares = similarity.masked_fill(~known, -math.inf).softmax(dim=-1).nan_to_num()
            if training and self.fill == "label":
                labels = batch.labels.clamp(min=0)
                told = (batch.labelled & known[labels])[..., None]
                named = torch.nn.functional.one_hot(labels, len(known)).to(shares.dtype)
                shares = torch.where(told, named, shares)
            rows[name] = shares @ means
            gaps[name] = batch.context & ~batch.present[name] & known.any()
        return filled(batch, rows, gaps)

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        seen = list(batches)
        shape = context.client.network.shape
        found = {}
        for name in shape.features:
            parts = [
                class_sums(
                    batch.features[name],
                    batch.labels,
                    batch.labelled & batch.present[name],
                    shape.classes,
                )
                for batch in seen
            ]
            sums, counts = (torch.stack(part).sum(dim=0) for part in zip(*parts, strict=True))
            if self.fill in ("mean", "zero"):
                # All classes alike, so that whichever stands in is the mean.
                sums, counts = sums.sum(dim=0).expand_as(sums), counts.sum().expand_as(counts)
            means = sums / counts.clamp(min=1)[:, None] * (self.fill != "zero")
            found[name] = Prototypes(means, counts > 0, counts.clone())
        return {**super().summarize(context, seen), **PrototypeSet(found).pack()}

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        super().step(state, summaries, weights, mean)
        old, new = PrototypeSet.unpack(state.tensors), {}
        cohort = [PrototypeSet.unpack(summary.tensors) for summary in summaries]
        for name in cohort[0] if cohort else ():
            local, _ = stack_clients(cohort, name)
            # A mechanism's noise may have made a count negative.
            counts = stack_counts([s.tensors for s in summaries], name).double().clamp(min=0)
            total, held = counts.sum(dim=0), (counts > 0).any(dim=0)
            fresh = weighted_means(local, counts / torch.where(held, total, 1.0))
            nothing = Prototypes(torch.zeros_like(fresh), torch.zeros_like(held))
            new[name] = old.get(name, nothing).joined_by(fresh, held)
        state.tensors |= PrototypeSet(new).pack()

    def _similarity(self, batch: Batch, sent: PrototypeSet) -> Tensor:
        """How alike utterances are to the classes by what they have: ``(B, L, C)``."""
        found, have = [], []
        for name, prototypes in sent.items():
            there = (batch.present[name] & batch.context)[..., None]
            rows = batch.features[name].masked_fill(~there, 0)
            alike = 1 - distances(rows, prototypes.means, "cosine")
            found.append(alike * (prototypes.known & there))
            have.append(there)
        count = torch.stack(have).sum(dim=0).clamp(min=1)
        return torch.stack(found).sum(dim=0) / count / self.tau
