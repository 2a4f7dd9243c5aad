"""A node that misbehaves: on its PYTHONPATH as ``sitecustomize.py``, this bends what it does.

For every message the file that ``FEDMER_FAULTS`` names is read again, so that a federation that is
up once serves many tests. It is a JSON object: when -> fault, as in ``{"fit 2": "nan"}``. When is
``describe``, ``fit ROUND``, or ``STAGE ROUND`` of a masked sum; faults are in :func:`_commit`.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn
from unittest import mock


class Bender(importlib.abc.MetaPathFinder):
    """Bends some modules when they are imported, so that other processes import nothing more."""

    def __init__(self, bends: dict[str, Callable[[Any], None]]) -> None:
        self._bends = bends

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        bend = self._bends.pop(fullname, None)
        if bend is None:
            return None
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_bend(module: ModuleType) -> None:
            execute(module)
            bend(module)

        loader.exec_module = execute_and_bend
        return spec


def bend_worker(node_work: Any) -> None:
    """Let the node's worker do wrong what is asked for."""
    answer = node_work.answer

    def bent(kind: str, content: Any, own: Any, state: Any) -> Any:
        when = kind if kind == "describe" else f"{kind} {content['round']['round'] + 1}"
        with ExitStack() as stack:
            _commit(_fault(when), node_work, Path(str(own["data"])), stack)
            return answer(kind, content, own, state)

    node_work.answer = bent


def bend_mask(masking: Any) -> None:
    """Let a stage of a masked sum hang."""
    mask = masking.mask

    def bent(message: Any, context: Any) -> Any:
        stage = message.content.config_records["secaggplus_configs"]["stage"]
        if _fault(f"{stage} {message.metadata.group_id}") == "hang":
            _hang()
        return mask(message, context)

    masking.mask = bent


def _fault(when: str) -> str | None:
    faults: dict[str, str] = json.loads(Path(os.environ["FEDMER_FAULTS"]).read_text())
    return faults.get(when)


def _commit(fault: str | None, node_work: Any, data: Path, stack: ExitStack) -> None:
    from fedmer import parts

    half = node_work.client_side
    answers = {"nan": _nan, "shapes": _shapes, "oversized": _oversized, "examples": _examples}
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == "hang":
        stack.enter_context(mock.patch.object(half, "fit", _hang))
    elif fault == "version":
        stack.enter_context(mock.patch.object(node_work.fedmer, "__version__", "0.0.1"))
    elif fault == "network":
        client = partial(_client_of_a_wider_network, parts.EmotionClient)
        stack.enter_context(mock.patch.object(parts, "EmotionClient", client))
    elif fault == "data":
        data.write_bytes(data.read_bytes()[:100])
    elif fault is not None:
        put = partial(answers[fault], half.put_answer)
        stack.enter_context(mock.patch.object(half, "put_answer", put))


def _hang(*arguments: Any) -> NoReturn:
    Path(os.environ["FEDMER_FAULTS"]).with_suffix(".reached").touch()
    while True:
        time.sleep(1)


def _client_of_a_wider_network(make: Callable[..., Any], network: Any, *arguments: Any) -> Any:
    from torch import nn

    network.teacher = nn.Linear(network.teacher.in_features, network.teacher.out_features + 1)
    return make(network, *arguments)


def _nan(put: Callable[..., None], content: Any, summary: Any, update: Any) -> None:
    weights = {name: value.clone() for name, value in update.weights.items()}
    next(iter(weights.values())).view(-1)[0] = float("nan")
    put(content, summary, replace(update, weights=weights))


def _shapes(put: Callable[..., None], content: Any, summary: Any, update: Any) -> None:
    turned = {**update.weights, "teacher.weight": update.weights["teacher.weight"].T.contiguous()}
    put(content, summary, replace(update, weights=turned))


def _oversized(put: Callable[..., None], content: Any, summary: Any, update: Any) -> None:
    import numpy as np
    from flwr.app import Array, ArrayRecord

    put(content, summary, update)
    content["update"] = ArrayRecord({"float32": Array(np.zeros(10**6, dtype=np.float32))})


def _examples(put: Callable[..., None], content: Any, summary: Any, update: Any) -> None:
    put(content, replace(summary, examples=10**15), update)


if __name__ == "sitecustomize":
    sys.meta_path.insert(
        0, Bender({"fedmer.flower.node.work": bend_worker, "fedmer.flower.node.masking": bend_mask})
    )
