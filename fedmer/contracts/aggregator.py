"""The contract of an aggregation rule: server half and client half in one class."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.network import Network, NetworkOutput
from fedmer.contracts.part import PartType
from fedmer.data.batch import Batch
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.weights import load_weights

Clear = Literal[
    "examples", "steps", "sizes", "class counts", "prototypes", "prototype counts",
    "prototype distances", "held classes", "sketches",
]  # fmt: skip
"""What a server half may have to see of each client by itself: how many labelled turns it learnt
from, in how many steps; how many it has in all rounds; how many of each class; its mean embedding
of each class, how many utterances are behind it, how far it lies from the global one, and of which
classes it has one; a random projection of its update."""


NetworkCall = Callable[[Batch], NetworkOutput]


@dataclass
class ServerState:
    """What the server keeps between rounds.

    Args:
        network: The global network; its parameters and buffers are the global weights.
        round: The round in progress, from 0.
        rounds: How many there will be, or None if that is open.
        sizes: Labelled utterances of every client of the federation, by id.
        tensors: What a rule keeps besides, such as prototypes. Saved with every checkpoint.
    """

    network: nn.Module
    round: int = 0
    rounds: int | None = None
    sizes: Sequence[int] = ()
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def load(self, weights: Weights) -> None:
        """Put what clients exchange into the global network; the rest of it stays.

        Raises:
            ValueError: A name or a shape is not the network's; the sentence says which.
        """
        load_weights(self.network, {**self.network.state_dict(), **weights})


class Client(Protocol):
    """What a rule may ask of the client in training, a :class:`~fedmer.client.EmotionClient`.

    Attributes:
        network: Its weights are the client's current ones.
        class_weights: ``(C,)``, what the loss weighs each emotion by; None for all alike.
    """

    @property
    def network(self) -> Network: ...

    @property
    def class_weights(self) -> Tensor | None: ...

    def __call__(self, batch: Batch) -> NetworkOutput:
        """What the network says of a batch."""


@dataclass(frozen=True)
class Stage:
    """Passes over a client's data in which the same parameters learn.

    Args:
        epochs: How many, 0 or more.
        frozen: Names of the parameters that stand still. They have no gradient, so that neither
            weight decay nor momentum moves them, and clipping does not count them.
        personal: Does the client's second network learn, and not the one that it received? It
            begins as the network of the first day, is never sent, and is the one that is evaluated.
    """

    epochs: int
    frozen: Collection[str] = ()
    personal: bool = False


@dataclass
class ClientRound:
    """One client's part of a round, as the client half of a rule sees it.

    Args:
        client: The client in training; its network holds its current weights.
        received: This round's broadcast.
        memory: What the rule keeps on this client between the rounds in which it takes part;
            changed in place, empty at first, saved with every checkpoint.
        steps: Optimizer steps made so far in this round.
        last_epoch: Is this the last pass over the client's data in this round?
        id: The client's.
        stage: What it is doing of :meth:`Aggregator.stages`.
    """

    client: Client
    received: Broadcast
    memory: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    last_epoch: bool = False
    id: int = 0
    stage: Stage = field(default_factory=lambda: Stage(1))


class Aggregator(metaclass=PartType):
    """One aggregation rule. A round calls its methods in the order in which they stand here.

    Every method has a default, and together the defaults are federated averaging without its
    last step: a rule overrides what it changes. Two of them are the two phases of a round: first
    :meth:`weigh` sees the clients' small summaries only, then the executor adds up the large
    updates by these weights. So the server of a linear rule never needs a single client's update.

    Hyperparameters are arguments of ``__init__``, checked there with
    :class:`~fedmer.errors.InputError`. Instances keep no state: the server's lives in
    :class:`ServerState`, a client's in :class:`ClientRound`, and both are saved with every
    checkpoint.
    """

    streams: bool = True
    """Does a client's own summary fix its weight, up to a factor common to all? Then :meth:`weigh`
    is asked for each client by itself, updates are added up as they come, and no more than one is
    ever held. A rule whose weights depend on the whole cohort says False."""

    sees_updates: bool = False
    """Does the server have to see every update, and not only their mean? Then :meth:`combine` joins
    them, and a mechanism that hides them is refused."""

    @property
    def name(self) -> str:
        """What to call the rule: its class's name."""
        return type(self).__name__

    def check(self, network: nn.Module) -> None:
        """Refuse a global network that the rule cannot work with, before anybody trains. Server
        side.

        Raises:
            InputError: In a sentence that says why.
        """

    @property
    def reads(self) -> tuple[Clear, ...]:
        """What the server half has to see of each client by itself, beside its update if
        ``sees_updates``. By default what :meth:`weigh` takes, its examples."""
        return ("examples",)

    @property
    def reads_masked(self) -> tuple[Clear, ...]:
        """What of each client is left in the open under a masked sum. By default :attr:`reads`."""
        return self.reads

    @property
    def sums(self) -> tuple[str, ...]:
        """Names of a summary's tensors of which the server half needs no more than a mean.

        Each has a row a class, ``(C, ...)``. Under a masked sum they cross in it, as :meth:`mask`
        makes them, and :meth:`step` finds their mean in ``mean``. By default none.
        """
        return ()

    def trains(self, received: Broadcast) -> bool:
        """Do clients train in this round before they answer? If not, they make no step, and what
        they send is what :meth:`attach` gives: their weights are those that they received."""
        return True

    def finished(self, state: ServerState) -> bool:
        """Is there nothing left to learn? Then the run ends after this round. Server side."""
        return False

    def personal_names(self, network: nn.Module) -> Collection[str]:
        """Names of the parameters and buffers that stay on every client; by default none do.

        A client keeps them between the rounds in which it takes part, and evaluation is over the
        clients' networks.
        """
        return ()

    def stages(self, network: Network, epochs: int) -> Sequence[Stage]:
        """What a client trains in a round, one stage after the other. Client side.

        Args:
            network: The client's, for the names of its parameters.
            epochs: What ``local.epochs`` says.
        """
        return (Stage(epochs),)

    def broadcast(self, state: ServerState) -> Broadcast:
        """What clients of the cohort may know this round. Server side."""
        stays = self.personal_names(state.network)
        weights = {n: v for n, v in state.network.state_dict().items() if n not in stays}
        return Broadcast(state.round, weights or None, dict(state.tensors))

    def on_batch(self, batch: Batch, received: Broadcast, training: bool = False) -> Batch:
        """What the network is given of a batch, by default all of it as it is. Client side.

        It holds wherever a network learns or predicts, of the server and of a model by itself too.

        Args:
            batch: It stays as it is. Labels are for training alone.
            received: This round's broadcast, or what the server knows.
            training: Is it learnt from?
        """
        return batch

    def client_loss(
        self, supervised: Tensor, output: NetworkOutput, batch: Batch, context: ClientRound
    ) -> Tensor:
        """What a client minimises on a batch, by default ``supervised``. Client side.

        Args:
            supervised: A scalar, the loss that the client has without the rule.
            output: What the network said of the batch.
            batch: The batch.
            context: The client, and what it received.
        """
        return supervised

    def on_before_optimizer_step(self, context: ClientRound) -> None:
        """Change the gradients in place before the optimizer's step. Client side."""

    def summarize(self, context: ClientRound, batches: Iterable[Batch]) -> Mapping[str, Tensor]:
        """Small tensors to send up after local training, such as prototypes. Client side.

        Args:
            context: The client is in evaluation mode, without gradients.
            batches: All that the client trained on.
        """
        return {}

    def attach(self, context: ClientRound, batches: Iterable[Batch]) -> Weights:
        """Large tensors to send up beside the weights, if any travel. Client side.

        They are averaged like the weights and by the same weights; :meth:`step` finds their mean
        in ``mean``, under names that no parameter has. In double precision they stay so.

        Args:
            context: The client is in evaluation mode, without gradients.
            batches: All that the client trained on.
        """
        return {}

    def mask(self, tensors: Mapping[str, Tensor], received: Broadcast) -> Mapping[str, Tensor]:
        """A summary's tensors as they cross under a masked sum. Client side, after all mechanisms.

        Those of :attr:`sums` are added up unseen, and the server sees all others. So what
        :meth:`weigh` would have worked out of the former is worked out here, such as distances.

        Args:
            tensors: From :meth:`summarize`, as mechanisms left them.
            received: This round's broadcast.
        """
        return tensors

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        """Client id -> weight of its update in the mean, by default its examples. Server side.

        Weights are 0 or more, not all 0, and count up to a common factor.
        """
        return {summary.client: float(summary.examples) for summary in summaries}

    def weigh_classes(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, Tensor] | None:
        """Client id -> ``(C,)`` weights, where a class's rows are weighed by themselves.

        They hold for the parameters that the network names in ``class_parameters``, in place of
        :meth:`weigh`, and count up to a common factor for each class. A class in which nobody has
        a weight keeps its rows. By default None: :meth:`weigh` holds everywhere. Server side.
        """
        return None

    def weigh_sums(
        self, summaries: Sequence[Summary], state: ServerState
    ) -> dict[int, dict[str, Tensor]]:
        """Client id -> name of :attr:`sums` -> ``(C,)`` weights of its rows, up to a common factor.

        Asked for under a masked sum alone. The mean of a class in which nobody has a weight, or few
        have one, is 0. Server side.
        """
        return {}

    def combine(
        self, updates: CohortUpdates, weights: Mapping[int, float], state: ServerState
    ) -> Weights:
        """Join a cohort's updates, if ``sees_updates``; :meth:`step` then gets it as the mean.

        Args:
            updates: Read block by block.
            weights: From :meth:`weigh`, by client id.
            state: Its network has the weights that the cohort received.
        """
        raise NotImplementedError(f"{type(self).__name__} sees updates and does not combine them.")

    def server_optimizer(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """Steps once a round, and moves only what :meth:`step` gives a gradient."""
        return torch.optim.SGD(parameters, lr=1.0)

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        """Join what came back. Server side.

        Either write new values into ``state`` or leave a pseudo-gradient on the network's
        parameters, which the server optimizer then follows.

        Args:
            state: Changed in place.
            summaries: The cohort's, by client id.
            weights: From :meth:`weigh`, divided by their sum.
            mean: The weighted mean of what the cohort exchanges and attached, and of :attr:`sums`
                under a masked sum; None if that is nothing.
        """

    def logits(self, network: NetworkCall, batch: Batch, received: Broadcast) -> Tensor:
        """``(B, L, C)`` of a batch by :meth:`on_batch`, a network that does not learn, and
        :meth:`predict`."""
        return self.predict(network(self.on_batch(batch, received)), received)

    def predict(self, output: NetworkOutput, received: Broadcast) -> Tensor:
        """``(B, L, C)`` logits that the rule predicts by; by default the network's."""
        return output.logits
