"""FedProc, averaging with contrast to class prototypes."""

from collections.abc import Collection, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.aggregator import Clear, ClientRound, ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators._heads import Heads, check_rows
from fedmer.plugins.aggregators._prototypes import embedding_at, split_mean
from fedmer.plugins.aggregators.fed_proto import SITE, FedProto
from fedmer.prototypes import Prototypes, PrototypeSet, stack_counts


class FedProc(FedProto):
    r"""FedAvg whose clients first gather around class prototypes and then learn to classify.

    In round :math:`t` of :math:`T`, counted from 1, a client minimises

    .. math::

        (1 - \alpha) L_S + \alpha L_C, \quad \alpha = 1 - t / T, \quad
        L_C = \frac{1}{n} \sum_x -\log \frac{\exp(\cos(z(x), c^{y(x)}) / \theta)}
                                            {\sum_k \exp(\cos(z(x), c^k) / \theta)}

    X. Mu et al., "FedProc: Prototypical Contrastive Federated Learning on Non-IID Data", Future
    Generation Computer Systems 2023. :math:`L_S` is the whole supervised loss and :math:`z` the
    fused embedding. Weights are averaged as in FedAvg, prototypes as in
    :class:`~fedmer.plugins.aggregators.fed_proto.FedProto`: plain means over the cohort's clients
    that hold the class. A class without a prototype is left out of :math:`L_C`; without any, as in
    the first round, a client minimises :math:`L_S` alone. The last round has :math:`\alpha = 0`,
    so a run of one or two rounds is FedAvg bit for bit. The training loss on record is that mix,
    and cannot be compared between rounds.

    Args:
        rounds: :math:`T`, at least 1; by default the run's number of rounds.
        temperature: The factor theta under the similarities, above 0; 1 is none.
        heads: How rows of classes are averaged, 'joint' or 'classwise', as in FedAvg.
        min_count: A class of which a client has fewer utterances than this counts as one that it
            does not hold.

    Raises:
        InputError: A value is out of range.

    >>> state = ServerState(torch.nn.Linear(1, 1), rounds=4)
    >>> FedProc().broadcast(state).tensors["alpha"].item()
    0.75
    """

    def __init__(
        self,
        rounds: int | None = None,
        temperature: float = 1.0,
        heads: Heads = "joint",
        min_count: int = 1,
    ) -> None:
        super().__init__(inference="head", min_count=min_count)
        if rounds is not None and rounds < 1:
            raise InputError(f"rounds is {rounds}; expected at least 1.")
        if not temperature > 0:
            raise InputError(f"temperature is {temperature}; expected a number above 0.")
        self.rounds = rounds
        self.temperature = temperature
        self.heads = heads

    def check(self, network: nn.Module) -> None:
        if self.heads == "classwise":
            check_rows(network)

    @property
    def reads(self) -> tuple[Clear, ...]:
        classes: Clear = "held classes" if self.heads == "joint" else "prototype counts"
        return ("examples", "prototypes", classes)

    def personal_names(self, network: nn.Module) -> Collection[str]:
        return ()

    def broadcast(self, state: ServerState) -> Broadcast:
        rounds = self.rounds or state.rounds
        if rounds is None:
            raise InputError(
                "FedProc fades from one loss to another over a known number of rounds, but the run "
                "has no end; give --aggregator.rounds or --trainer.max_epochs."
            )
        known = super().broadcast(state)
        alpha = torch.tensor(max(0.0, 1 - (state.round + 1) / rounds))
        return Broadcast(known.round, known.weights, {**known.tensors, "alpha": alpha})

    def client_loss(
        self, supervised: Tensor, output: NetworkOutput, batch: Batch, context: ClientRound
    ) -> Tensor:
        sent = context.received.tensors
        known = PrototypeSet.unpack(sent).get(SITE)
        if known is None:
            return supervised
        contrast = self._contrast(output, batch, known)
        return supervised + sent["alpha"] * (contrast - supervised)

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        return {summary.client: float(summary.examples) for summary in summaries}

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        if self.heads == "joint":
            return None
        counts = stack_counts([summary.tensors for summary in summaries], SITE)
        return {s.client: count.double() for s, count in zip(summaries, counts, strict=True)}

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        super().step(state, summaries, weights, mean)
        rest, _ = split_mean(mean, self.sums)
        assert rest is not None
        state.load(rest)

    def predict(self, output: NetworkOutput, received: Broadcast) -> Tensor:
        return output.logits

    def _contrast(self, output: NetworkOutput, batch: Batch, among: Prototypes) -> Tensor:
        rows, labels = embedding_at(output, SITE).float(), batch.labels.clamp(min=0)
        counted = batch.labelled & among.known[labels]
        alike = F.cosine_similarity(rows[..., None, :], among.means, dim=-1) / self.temperature
        logits = alike.masked_fill(~among.known, -torch.inf)
        wanted = labels.masked_fill(~counted, UNLABELLED)
        surprise = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=UNLABELLED, reduction="sum"
        )
        return surprise / batch.labelled.sum().clamp(min=1)
