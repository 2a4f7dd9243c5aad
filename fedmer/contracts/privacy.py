"""The contract of a protection of what clients send."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.part import PartType
from fedmer.contracts.selector import Sampling
from fedmer.data.standardise import Standardise
from fedmer.messages import Broadcast, Summary, Update, Weights


@dataclass(frozen=True)
class Plan:
    """A run as it is planned, for a mechanism that makes a promise about all of it.

    Args:
        rule: What is trained.
        clients: How many there are in the federation.
        exchanges: Do weights travel?
        sampling: How cohorts are drawn; None where that depends on what clients hold.
        rounds: How many rounds there will be, or None if that is open.
        besides: What of clients' data crosses outside of rounds, each as what it is and the option
            that ends it.
        standardise: How features are standardised: by the statistics of all clients together
            ('federated'), of each client ('local'), or not ('none').
    """

    rule: Aggregator
    clients: int
    exchanges: bool = True
    sampling: Sampling | None = None
    rounds: int | None = None
    besides: Mapping[str, str] = field(default_factory=dict)
    standardise: Standardise = "none"


@dataclass(frozen=True)
class Guarantee:
    """Differential privacy: what a run tells of any one client, or of any one dialogue.

    Args:
        epsilon: At most so much, from 0.
        delta: But for this probability.
        reach: A clause that says of what, for whom it holds and what it does not cover.
    """

    epsilon: float
    delta: float
    reach: str

    def as_dict(self) -> dict[str, float | str]:
        """For a file."""
        return {**asdict(self), "sentence": str(self)}

    def __str__(self) -> str:
        return f"epsilon {self.epsilon:.3g} at delta {self.delta:.3g}, {self.reach}"


@dataclass(frozen=True)
class LocalSteps:
    """The steps that a client is about to make, as a mechanism that hides its dialogues sees them.

    Every dialogue has a part in a step with probability ``batch / dialogues``, whatever the others
    do.

    Args:
        dialogues: How many the client holds, at least one.
        batch: How many of them have a part in a step, in the mean.
        count: How many steps there will be.
    """

    dialogues: int
    batch: int
    count: int


@dataclass(frozen=True)
class StepNoise:
    """How a step hides each dialogue that has a part in it.

    Args:
        norm: The largest norm of a dialogue's gradient, above 0; a longer one is scaled down.
        multiplier: Deviation of the Gaussian noise on the sum of the gradients, over ``norm``.
    """

    norm: float
    multiplier: float


@dataclass(frozen=True)
class ClientContext:
    """One client's part of a round, as a mechanism sees it.

    Args:
        client: Its id.
        received: This round's broadcast; its weights are what the client began with.
        cohort: How many clients were asked to take part.
        rounds: How many rounds there will be, or None if that is open.
        seed: For what is drawn, of this round, this client and this mechanism alone. Whoever knows
            it can take noise away again, so that nodes on machines of their own draw it themselves.
        tensors: What the mechanism kept on the server before this round.
        memory: What it keeps on this client between the rounds in which the client takes part;
            changed in place, empty at first, saved with every checkpoint.
    """

    client: int
    received: Broadcast
    cohort: int = 1
    rounds: int | None = None
    seed: int = 0
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    memory: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ServerContext:
    """The end of a round on the server, as a mechanism sees it.

    Args:
        received: What the cohort received.
        summaries: Those that have a part in the result.
        weights: Client id -> weight in the mean, sum 1; empty if nobody was asked to take part.
        class_weights: Client id -> ``(C,)`` weights in the rows of each class; empty where the rule
            has none.
        clients: How many there are in the federation.
        cohort: How many of them were asked to take part.
        rounds: How many rounds there will be, or None if that is open.
        plan: The run, as :meth:`Privacy.check` saw it.
        seed: For what is drawn, of this round and this mechanism alone.
        tensors: What the mechanism keeps on the server between rounds; changed in place, empty at
            first, saved with every checkpoint, and known to the next cohort.
    """

    received: Broadcast
    summaries: Sequence[Summary]
    weights: Mapping[int, float]
    class_weights: Mapping[int, Tensor] = field(default_factory=dict)
    clients: int = 1
    cohort: int = 1
    rounds: int | None = None
    seed: int = 0
    tensors: dict[str, Tensor] = field(default_factory=dict)
    plan: Plan | None = None


class Privacy(metaclass=PartType):
    """A mechanism by which less of a client can be seen in what it sends.

    It has a half that runs on every client before anything leaves it, and a half that runs on the
    server before the rule's step. Each does nothing by default. The halves of several mechanisms
    run in the order of their list, on clients and on the server; a masked sum lies between the two.
    Hyperparameters are arguments of ``__init__``, checked there with
    :class:`~fedmer.errors.InputError`. Instances keep no state: it lives in ``memory`` and
    ``tensors`` of the contexts.

    >>> class Rounded(Privacy):
    ...     def on_client(self, summary, update, context):
    ...         rounded = {name: value.round(decimals=2) for name, value in update.weights.items()}
    ...         return summary, Update(update.client, rounded)
    """

    needs_updates: bool = True
    """Does it protect updates? Then a rule whose clients send none is refused, since it would
    protect nothing."""

    withholds_numbers: bool = False
    """Do clients not say how many utterances they learnt from, in how many steps and with what
    loss? Then a round has no training loss."""

    bounds_updates: bool = False
    """Does it count on updates being no longer than it leaves them? Then one that compresses has to
    stand before it."""

    compresses: bool = False
    """Does it say in ``compressed`` of an update how few bytes cross? Then an executor that sends
    whole numbers is refused, and so is a masked sum."""

    masked_sum: MaskedSum | None = None
    """Shall the server see the weighted sum of the updates alone? Then an executor that does not
    carry masked sums is refused, and a rule that sees each update."""

    @property
    def hides_dialogues(self) -> bool:
        """Does it have an :meth:`on_steps`? Then a rule, a network or a loss by which the gradient
        of one dialogue would depend on the others is refused, and the executor that trains clients
        at once."""
        return type(self).on_steps is not Privacy.on_steps

    def check(self, plan: Plan) -> None:
        """Refuse a run in which the mechanism would be void. Server side, before anything else.

        Raises:
            InputError: It would be; the sentence says why, and what to do.
        """

    def begin(self, plan: Plan, tensors: dict[str, Tensor]) -> None:
        """Prepare a round. Server side, before the broadcast.

        Args:
            plan: The run.
            tensors: What the mechanism keeps on the server; changed in place.

        Raises:
            InputError: One more round would break its promise.
        """

    def spent(self, plan: Plan, tensors: Mapping[str, Tensor]) -> Guarantee | None:
        """What the rounds so far have told of any client; by default None, for no promise."""
        return None

    def finished(self, plan: Plan, tensors: Mapping[str, Tensor]) -> bool:
        """Would one more round break its promise? Then the run ends. Server side."""
        return False

    def on_steps(self, steps: LocalSteps, context: ClientContext) -> StepNoise | None:
        """How a client clips the gradient of each of its dialogues, and the noise on their sum;
        by default None, for plain steps. Client side, before it trains. Who overrides it returns
        one.

        Args:
            steps: What the client is about to do.
            context: The client's part of the round.

        Raises:
            InputError: These steps would break the mechanism's promise.
        """
        return None

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        """What leaves a client instead. Client side.

        Args:
            summary: What the client would send; a mechanism may add tensors under its own name.
            update: Its weights after training and what the rule attached, or None where it sends
                none. They may be the network's own: they are replaced, and not changed in place.
                Names, shapes and types stay.
            context: The client's part of the round.
        """
        return summary, update

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        """What the rule's step gets instead of the mean. Server side.

        Args:
            mean: Of the updates of the cohort, or None where clients send none; names, shapes and
                types stay. If nobody was asked to take part, the weights of before; only if a
                mechanism returns others does the rule make a step.
            context: The end of the round.
        """
        return mean
