"""A weighted sum of which the server sees the total and no part: SecAgg+, by Flower's workflow."""

import math
import time
from collections.abc import Iterable, Mapping
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

from fedmer.flower.masks import harden
from fedmer.flower.wire import size

_MODULUS_BITS = 32
_PAUSE = 0.05


@dataclass(frozen=True)
class MaskedSum:
    """What came of a masked sum.

    Args:
        total: ``(n,)`` float64, or None if too few nodes stayed.
        nodes: Those whose vectors are in the total.
        failures: Node -> what it said instead of an answer.
        down: Bytes to the nodes.
        up: Bytes from them.
    """

    total: NDArray[np.float64] | None
    nodes: list[int]
    failures: dict[int, str]
    down: int
    up: int


@dataclass
class _Ask:
    """A grid for the workflow: it asks, waits no longer than it has to, and counts bytes."""

    grid: Grid
    seconds: float
    down: int = 0
    up: int = 0
    answered: list[set[int]] = field(default_factory=list)
    failures: dict[int, str] = field(default_factory=dict)

    def send_and_receive(
        self, messages: Iterable[Message], timeout: float | None = None
    ) -> list[Message]:
        letters = list(messages)
        self.down += sum(size(letter.content) for letter in letters)
        waiting = {letter for letter in self.grid.push_messages(letters) if letter}
        answers: list[Message] = []
        deadline = time.monotonic() + self.seconds
        while waiting and time.monotonic() < deadline:
            for answer in self.grid.pull_messages(list(waiting)):
                waiting.discard(answer.metadata.reply_to_message_id)
                if answer.has_error():
                    self.failures[answer.metadata.src_node_id] = f"failed: {answer.error.reason}"
                else:
                    self.up += size(answer.content)
                answers.append(answer)
            if waiting:
                time.sleep(_PAUSE)
        self.answered.append({a.metadata.src_node_id for a in answers if not a.has_error()})
        return answers


class _Once(FedAvg):
    """What the workflow takes for a strategy: gives each node its weight, and keeps the total."""

    def __init__(self, weights: Mapping[int, float], clip: float) -> None:
        super().__init__()
        self.weights = weights
        self.clip = clip
        self.total: NDArray[np.float64] | None = None

    def configure_fit(self, server_round: int, parameters: Any, client_manager: Any) -> Any:
        nothing = Parameters(tensors=[], tensor_type="numpy.ndarray")
        return [
            (SimpleNamespace(node_id=node), FitIns(nothing, {"weight": weight, "clip": self.clip}))
            for node, weight in self.weights.items()
        ]

    def aggregate_fit(
        self, server_round: int, results: list[tuple[Any, FitRes]], failures: Any
    ) -> tuple[None, dict[str, Any]]:
        (mean,) = parameters_to_ndarrays(results[0][1].parameters)
        self.total = mean * len(results)
        return None, {}


def masked_sum(
    grid: Grid,
    weights: Mapping[int, float],
    round: int,
    threshold: float,
    clip: float,
    seconds: float,
) -> MaskedSum:
    """Sum the vectors that nodes have kept, each times its weight.

    Args:
        grid: The way to the nodes.
        weights: Node -> weight.
        round: From 0.
        threshold: Share of the nodes that has to stay for the total to be unmasked.
        clip: A node with a number beyond ``[-clip, clip]``, after the weight, takes no part.
        seconds: To wait for each of the four stages.
    """
    harden()
    # The sum of all has to fit into the modulus; what is left of it goes into precision.
    bits = _MODULUS_BITS - 1 - math.ceil(math.log2(max(len(weights), 2)))
    workflow = SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=threshold,
        max_weight=1.0,
        clipping_range=float(clip),
        quantization_range=2**bits,
        modulus_range=2**_MODULUS_BITS,
    )
    strategy, ask = _Once(weights, clip), _Ask(grid, seconds)
    head = ConfigRecord({"current_round": round + 1})
    state = RecordDict({MAIN_CONFIGS_RECORD: head, MAIN_PARAMS_RECORD: ArrayRecord()})
    run: Any = grid.run
    own = Context(run_id=run.run_id, node_id=0, node_config={}, state=state, run_config={})
    asking: Any = ask
    workflow(asking, LegacyContext(own, strategy=strategy))
    # The third stage brings the masked vectors; who is lost in the fourth is in the sum already.
    nodes = sorted(ask.answered[2]) if strategy.total is not None else []
    return MaskedSum(strategy.total, nodes, ask.failures, ask.down, ask.up)
