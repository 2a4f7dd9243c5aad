"""A weighted sum of which the server sees the total and no part: SecAgg+, by Flower's workflow."""

import math
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.common import FitIns, FitRes, Parameters, parameters_to_ndarrays
from flwr.server.compat.legacy_context import LegacyContext
from flwr.server.strategy import FedAvg
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedmer.contracts.masked_sum import MaskedSum
from fedmer.flower.class_rows import Rows
from fedmer.flower.masks import SERVER, harden
from fedmer.flower.records import size, take_failure, why
from fedmer.flower.terms import MODULUS, Terms, grid, written, written_classes

_PAUSES = (0.02, 0.5)
_ROLL_CALL = 5.0
_KEYS_SHARED = 2
"""Stages after which a node may be lost without a word."""


@dataclass(frozen=True)
class MaskedTotal:
    """What came of a masked sum.

    Args:
        total: ``(n,)`` float64, or None if too few nodes stayed.
        nodes: Those whose vectors are in the total, or who stayed to the end if there is none.
        failures: Node -> what it said instead of an answer.
        down: Node -> bytes to it.
        up: Node -> bytes from it.
        classes: Node -> ``(K,)`` weights by which the rows of classes were summed, if there are.
    """

    total: NDArray[np.float64] | None
    nodes: list[int]
    failures: dict[int, str]
    down: Mapping[int, int]
    up: Mapping[int, int]
    classes: Mapping[int, Sequence[float]] = field(default_factory=dict)


class _LostError(Exception):
    """Somebody left before sharing keys, without which the others could not unmask a sum."""


@dataclass
class _Ask:
    """A grid for the workflow: it asks, waits no longer than it has to, and counts bytes."""

    grid: Grid
    seconds: float
    down: Counter[int] = field(default_factory=Counter)
    up: Counter[int] = field(default_factory=Counter)
    stages: list[set[int]] = field(default_factory=list)
    """The nodes that answered in each stage."""
    failures: dict[int, str] = field(default_factory=dict)

    def send_and_receive(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> list[Message]:
        requests = list(messages)
        nodes = [request.metadata.dst_node_id for request in requests]
        for node, request in zip(nodes, requests, strict=True):
            self.down[node] += size(request.content)
        sent = zip(self.grid.push_messages(requests), nodes, strict=True)
        waiting = {message_id: node for message_id, node in sent if message_id}
        answers: list[Message] = []
        began = called = time.monotonic()
        pause = _PAUSES[0]
        while waiting and time.monotonic() < began + self.seconds:
            for answer in self.grid.pull_messages(list(waiting)):
                node = waiting.pop(answer.metadata.reply_to_message_id)
                if answer.has_error():
                    self.failures[node] = why(answer.error, time.monotonic() - began)
                    continue
                self.up[node] += size(answer.content)
                failure = take_failure(answer.content)
                if failure is None:
                    answers.append(answer)
                else:
                    self.failures[node] = f"says: {failure}"
            if time.monotonic() > called + _ROLL_CALL:
                called = time.monotonic()
                connected = set(self.grid.get_node_ids())
                waiting = {
                    message_id: node for message_id, node in waiting.items() if node in connected
                }
            time.sleep(pause)
            pause = min(1.2 * pause, _PAUSES[1])
        answered = {answer.metadata.src_node_id for answer in answers}
        self.stages.append(answered)
        if len(self.stages) <= _KEYS_SHARED and answered != set(nodes):
            raise _LostError
        return answers


class _Once(FedAvg):
    """What the workflow takes for a strategy: tells each node all weights, and keeps the total."""

    def __init__(self, terms: Terms) -> None:
        super().__init__()
        self.terms = terms
        self.total: NDArray[np.float64] | None = None

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        nothing = Parameters(tensors=[], tensor_type="numpy.ndarray")
        config: dict[str, Any] = {
            "weights": written(self.terms.weights),
            "classes": written_classes(self.terms.classes),
            "clip": self.terms.clip,
        }
        # A copy for each, since the workflow adds to them.
        return [
            (SimpleNamespace(node_id=node), FitIns(nothing, dict(config)))
            for node in self.terms.weights
        ]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, FitRes]], failures: Any
    ) -> tuple[None, dict[str, Any]]:
        (mean,) = parameters_to_ndarrays(results[0][1].parameters)
        self.total = mean * len(results)
        return None, {}


def masked_sum(
    flower: Grid,
    weights: Mapping[int, float],
    round: int,
    masked: MaskedSum,
    seconds: float,
    digest: bytes,
    classes: Mapping[int, Sequence[float]],
    rows: Rows,
) -> MaskedTotal:
    """Sum the vectors that nodes have kept, each times its weight.

    Nodes may be lost at any time, as long as enough stay; before they have shared their keys the
    others begin again, and after that Flower's protocol undoes the masks of those who are missing.

    Args:
        flower: The way to the nodes.
        weights: Node -> weight.
        round: From 0.
        masked: What was asked for: how many nodes have to stay for the total to be unmasked, and
            the size of a number, after the weight, beyond which a node takes no part.
        seconds: To wait for each of the four stages.
        digest: The digest of what all of them were asked to learn.
        classes: Node -> ``(K,)`` weights in the rows of classes; empty where there are none.
        rows: Where these rows lie in a vector.
    """
    # Rounded up: two halves of a cohort must never both be enough.
    least = max(2, math.ceil(masked.threshold * len(weights)))
    ask = _Ask(flower, seconds)
    head = ConfigRecord({"current_round": round + 1})
    state = RecordDict({MAIN_CONFIGS_RECORD: head, MAIN_PARAMS_RECORD: ArrayRecord()})
    run: Any = flower.run
    context = Context(run_id=run.run_id, node_id=0, node_config={}, state=state, run_config={})
    asking: Any = ask
    left = {node: float(weight) for node, weight in weights.items()}
    while len(left) >= least:
        ask.stages = []
        shown = _shown({node: classes[node] for node in left if classes}, masked)
        terms = Terms(digest, left, least, float(masked.clip), shown, rows)
        harden(SERVER, terms.digest)
        strategy = _Once(terms)
        try:
            _workflow(terms)(asking, LegacyContext(context, strategy=strategy))
        except _LostError:
            # Nobody has sent a vector yet, so that the others may begin again among themselves.
            left = {node: left[node] for node in sorted(ask.stages[-1])}
            continue
        # The third stage brought the vectors; who is lost in the fourth is in the sum already.
        nodes = [] if strategy.total is None else sorted(ask.stages[2])
        if len(nodes) < least:
            break
        total = strategy.total
        return MaskedTotal(total, nodes, ask.failures, ask.down, ask.up, terms.classes)
    stayed = sorted(ask.stages[-1]) if ask.stages else []
    return MaskedTotal(None, stayed, ask.failures, ask.down, ask.up)


def _shown(classes: Mapping[int, Sequence[float]], masked: MaskedSum) -> dict[int, list[float]]:
    """Weights of classes without those in whose rows one node could be seen."""
    hidden = set(masked.withheld(classes))
    return {
        node: [0.0 if place in hidden else weight for place, weight in enumerate(rows)]
        for node, rows in classes.items()
    }


def _workflow(terms: Terms) -> SecAggPlusWorkflow:
    return SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=terms.threshold,
        max_weight=1.0,
        clipping_range=terms.clip,
        # The sum of all has to fit into the modulus; what is left of it goes into precision.
        quantization_range=grid(len(terms.weights)),
        modulus_range=MODULUS,
    )
