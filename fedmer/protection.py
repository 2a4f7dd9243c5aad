"""The mechanisms of a run: whether they can be had, and their halves in their order."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.privacy import (
    ClientContext,
    Guarantee,
    LocalSteps,
    Plan,
    Privacy,
    ServerContext,
    StepNoise,
)
from fedmer.errors import InputError
from fedmer.masked_round import into_sum
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.seeds import derive
from fedmer.weights import laid_out_as

_PREFIX = "privacy."
"""How names of tensors begin that a broadcast brings to mechanisms, beside those of the rule."""
_COHORT = f"{_PREFIX}cohort"
_ROUNDS = f"{_PREFIX}rounds"
Memory = list[dict[str, Tensor]]
"""What each mechanism keeps."""


def check(
    mechanisms: Sequence[Privacy],
    plan: Plan,
    executor: Executor,
    exchanged: Mapping[str, Tensor],
) -> None:
    """Refuse mechanisms that a rule or an executor makes void, before anything is trained.

    Args:
        mechanisms: In their order.
        plan: The run.
        executor: Where clients are trained.
        exchanged: The weights that travel.

    Raises:
        InputError: Something does not go together; the sentence says what.
    """
    for mechanism in mechanisms:
        said, name = f"--privacy {type(mechanism).__name__}", plan.rule.name
        if mechanism.masked_sum is not None and not executor.carries_masked_sums:
            raise InputError(
                f"{said} hides a client's update from everybody else, and "
                f"{type(executor).__name__} trains all clients in the server's own processes; use "
                "--executor Flower."
            )
        sums = mechanism.masked_sum is not None and bool(plan.rule.sums)
        if mechanism.needs_updates and not exchanged and not sums:
            seen = ", ".join(plan.rule.reads)
            raise InputError(
                f"{said} protects weights, and clients of {name} send none"
                + (f", while its server reads of each: {seen}" if seen else "")
                + "; use a rule that exchanges weights, such as FedAvg."
            )
        mechanism.check(plan)
        if mechanism.masked_sum is None:
            continue
        if plan.rule.sees_updates:
            raise InputError(
                f"{said} hides each update from the server, and {name} has to see every one; leave "
                "one of them out."
            )
        odd = [name for name, value in exchanged.items() if not value.is_floating_point()]
        if odd:
            raise InputError(
                f"{said} cannot sum '{odd[0]}', which is not a floating-point number; use another "
                "network."
            )
    _check_compression(mechanisms, executor)
    promising = [type(m).__name__ for m in mechanisms if m.spent(plan, {}) is not None]
    if len(promising) > 1:
        raise InputError(
            f"--privacy names {' and '.join(promising)}, which both promise differential privacy; "
            "a run says one epsilon. Leave one of them out."
        )
    masked = [type(m).__name__ for m in mechanisms if m.masked_sum is not None]
    if len(masked) > 1:
        raise InputError(
            f"--privacy names {' and '.join(masked)}, which both ask for a masked sum; a round has "
            "one. Leave one of them out."
        )


def _check_compression(mechanisms: Sequence[Privacy], executor: Executor) -> None:
    bounding = ""
    for mechanism in mechanisms:
        name = type(mechanism).__name__
        if not mechanism.compresses:
            bounding = name if mechanism.bounds_updates else bounding
            continue
        masked = next((m for m in mechanisms if m.masked_sum is not None), None)
        if masked is not None:
            raise InputError(
                f"--privacy {name} sends few bytes, and the masks of {type(masked).__name__} fill "
                "all of an update; leave one of them out."
            )
        if executor.sends_whole:
            raise InputError(
                f"--privacy {name} sends few bytes, and {type(executor).__name__} sends all "
                "numbers of an update whatever they are; use another executor."
            )
        if bounding:
            raise InputError(
                f"--privacy names {bounding} before {name}, which may lengthen an update beyond "
                f"the bound; put {name} first."
            )


def in_order(chosen: Privacy | Sequence[Privacy] | None) -> tuple[Privacy, ...]:
    """Mechanisms as they were chosen: none, one or several."""
    if chosen is None:
        return ()
    return tuple(chosen) if isinstance(chosen, Sequence) else (chosen,)


def masked_sum(mechanisms: Sequence[Privacy]) -> MaskedSum | None:
    """The masked sum that one of them asks for."""
    return next((m.masked_sum for m in mechanisms if m.masked_sum is not None), None)


def on_client(
    mechanisms: Sequence[Privacy],
    rule: Aggregator,
    summary: Summary,
    update: Update | None,
    received: Broadcast,
    memory: Memory,
    seed: int,
) -> tuple[Summary, Update | None, Memory]:
    """Run the client halves on what a client would send, and prepare it for a masked sum.

    Args:
        mechanisms: In their order.
        rule: Says what of a summary crosses in such a sum.
        summary: The client's.
        update: The client's, or None.
        received: This round's broadcast.
        memory: What each mechanism kept on this client; stays as it is.
        seed: The client's.

    Returns:
        What it sends, and what each mechanism keeps.
    """
    kept: Memory = []
    for mechanism, context in _contexts(mechanisms, summary.client, received, memory, seed):
        summary, made = mechanism.on_client(summary, update, context)
        update = laid_out_as(update, made)
        kept.append(context.memory)
    masked = masked_sum(mechanisms)
    if masked is not None:
        summary, update = into_sum(rule, masked, summary, update, received)
    return summary, update, kept if any(kept) else []


def step_noise(
    mechanisms: Sequence[Privacy],
    steps: LocalSteps,
    client: int,
    received: Broadcast,
    memory: Memory,
    seed: int,
) -> tuple[StepNoise, Memory]:
    """What hides the dialogues of a client that is about to train.

    Args:
        mechanisms: In their order; one of them hides dialogues.
        steps: What the client is about to do.
        client: Its id.
        received: This round's broadcast.
        memory: What each mechanism kept on this client; stays as it is.
        seed: The client's.

    Returns:
        The noise on its steps, and what each mechanism keeps.

    Raises:
        InputError: These steps would break a promise.
    """
    contexts = _contexts(mechanisms, client, received, memory, seed)
    found = (mechanism.on_steps(steps, context) for mechanism, context in contexts)
    noise = next(said for said in found if said is not None)
    return noise, [context.memory for _, context in contexts]


def _contexts(
    mechanisms: Sequence[Privacy], client: int, received: Broadcast, memory: Memory, seed: int
) -> list[tuple[Privacy, ClientContext]]:
    """Each mechanism and what it sees of a client's part of a round; ``memory`` is copied."""
    # Where nobody announced a round, a client counts on itself alone.
    tensors = received.tensors
    cohort, rounds = int(tensors.get(_COHORT, 1)), int(tensors.get(_ROUNDS, -1))
    found = []
    for place, mechanism in enumerate(mechanisms):
        before = memory[place] if place < len(memory) else {}
        context = ClientContext(
            client=client,
            received=received,
            cohort=cohort,
            rounds=None if rounds < 0 else rounds,
            seed=derive(seed, "privacy", place, received.round, client),
            tensors=_of(place, tensors),
            memory={name: value.clone() for name, value in before.items()},
        )
        found.append((mechanism, context))
    return found


class ServerProtection:
    """The server halves of mechanisms, and what these keep between rounds.

    Args:
        mechanisms: In their order.
        seed: Where what they draw comes from.
        plan: The run.
    """

    def __init__(self, mechanisms: Sequence[Privacy], seed: int, plan: Plan) -> None:
        self.mechanisms = mechanisms
        self.seed = seed
        self.plan = plan
        self.tensors: Memory = [{} for _ in mechanisms]

    def announce(self, received: Broadcast, cohort: Collection[int]) -> Broadcast:
        """Begin a round: add to a broadcast what client halves have to know.

        Raises:
            InputError: One more round would break a promise.
        """
        for mechanism, tensors in zip(self.mechanisms, self.tensors, strict=True):
            mechanism.begin(self.plan, tensors)
        return self.known(received, cohort)

    def known(self, received: Broadcast, cohort: Collection[int]) -> Broadcast:
        """A broadcast with what client halves have to know of a round of some clients."""
        if not self.mechanisms:
            return received
        self._cohort = len(cohort)
        known = {
            _COHORT: torch.tensor(self._cohort),
            _ROUNDS: torch.tensor(-1 if self.plan.rounds is None else self.plan.rounds),
        }
        for place, tensors in enumerate(self.tensors):
            known |= {f"{_PREFIX}{place}.{name}": value for name, value in tensors.items()}
        return replace(received, tensors={**received.tensors, **known})

    def on_server(
        self,
        mean: Weights | None,
        received: Broadcast,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        class_weights: Mapping[int, Tensor],
    ) -> Weights | None:
        """Run the server halves on the mean; returns what the rule's step gets."""
        for place, mechanism in enumerate(self.mechanisms):
            context = ServerContext(
                received=received,
                summaries=summaries,
                weights=weights,
                class_weights=class_weights,
                clients=self.plan.clients,
                cohort=self._cohort,
                rounds=self.plan.rounds,
                seed=derive(self.seed, "privacy", place, received.round),
                tensors=self.tensors[place],
                plan=self.plan,
            )
            mean = mechanism.on_server(mean, context)
        return mean

    @property
    def finished(self) -> bool:
        """Would one more round break a promise?"""
        pairs = zip(self.mechanisms, self.tensors, strict=True)
        return any(mechanism.finished(self.plan, tensors) for mechanism, tensors in pairs)

    @property
    def spent(self) -> Guarantee | None:
        """What the rounds so far have told of any client, where a mechanism says it."""
        pairs = zip(self.mechanisms, self.tensors, strict=True)
        found = (mechanism.spent(self.plan, tensors) for mechanism, tensors in pairs)
        return next((guarantee for guarantee in found if guarantee is not None), None)

    @property
    def withholds_numbers(self) -> bool:
        """Do clients not say what they learnt from, and with what loss?"""
        return any(mechanism.withholds_numbers for mechanism in self.mechanisms)

    def state_dict(self) -> dict[str, Any]:
        """What mechanisms keep, for the checkpoint."""
        return {"privacy": self.tensors} if any(self.tensors) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` gave.

        Raises:
            InputError: It is of other mechanisms.
        """
        saved = state.get("privacy", [])
        if len(saved) not in (0, len(self.mechanisms)):
            raise InputError(
                f"The checkpoint is of {len(saved)} privacy mechanisms, and this run has "
                f"{len(self.mechanisms)}; go on with the same --privacy."
            )
        for tensors, kept in zip(self.tensors, saved, strict=False):
            tensors.update(kept)
        pairs = zip(self.mechanisms, self.tensors, strict=True)
        if any(not kept and m.spent(self.plan, kept) is not None for m, kept in pairs):
            raise InputError(
                "The checkpoint is of rounds without the noise that --privacy promises; begin "
                "anew, or leave --privacy out."
            )


def _of(place: int, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    start = f"{_PREFIX}{place}."
    return {n.removeprefix(start): v for n, v in tensors.items() if n.startswith(start)}
