"""A node that misbehaves: on its PYTHONPATH as ``sitecustomize.py``, this bends its ClientApp.

Flower starts a process for every message, and each of them reads in ``FEDMER_FAULTS`` what to do
wrong. So a federation that is up once serves many tests. The file is a JSON object: when -> fault,
as in ``{"fit 2": "nan"}``; what may stand there is in :func:`_bend`.
"""

import importlib.abc
import importlib.util
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

APP = "fedmer.flower.client_app"


class Bender(importlib.abc.MetaPathFinder):
    """Bends the ClientApp's module when it is imported, which only a ClientApp does."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != APP:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        loader: Any = spec.loader
        execute = loader.exec_module

        def execute_and_bend(module: ModuleType) -> None:
            execute(module)
            _bend(module, json.loads(Path(os.environ["FEDMER_FAULTS"]).read_text()))

        loader.exec_module = execute_and_bend
        return spec


def _bend(app: Any, faults: dict[str, str]) -> None:
    """Do wrong what is asked for.

    Args:
        app: The module of the ClientApp.
        faults: ``describe``, ``fit ROUND`` or ``STAGE ROUND`` of a masked sum -> fault.
    """
    answered, mask = app._answered, app.client_half.mask

    def bent(message: Any, context: Any, work: Any) -> Any:
        kind = {"query": "describe", "train.fit": "fit"}.get(message.metadata.message_type, "score")
        when = kind if kind == "describe" else f"{kind} {message.metadata.group_id}"
        _do(faults.get(when), app, context)
        return answered(message, context, work)

    def bent_mask(message: Any, context: Any) -> Any:
        stage = message.content.config_records["secaggplus_configs"]["stage"]
        _do(faults.get(f"{stage} {message.metadata.group_id}"), app, context)
        return mask(message, context)

    app._answered, app.client_half.mask = bent, bent_mask


def _do(fault: str | None, app: Any, context: Any) -> None:
    wrong: dict[str, Callable[[Any, Any], None]] = {
        "die": lambda app, context: os.kill(os.getpid(), signal.SIGKILL),
        "hang": _hang,
        "version": lambda app, context: setattr(app.fedmer, "__version__", "0.0.1"),
        "network": _widen_network,
        "data": lambda app, context: _spoil(Path(str(context.node_config["data"]))),
        "nan": lambda app, context: _bend_answer(app, _nan),
        "shapes": lambda app, context: _bend_answer(app, _shapes),
        "oversized": lambda app, context: _bend_answer(app, _oversized),
        "examples": lambda app, context: _bend_answer(app, _examples),
    }
    if fault is not None:
        wrong[fault](app, context)


def _hang(app: Any, context: Any) -> None:
    def sleep(*arguments: Any) -> NoReturn:
        Path(os.environ["FEDMER_FAULTS"]).with_suffix(".reached").touch()
        while True:
            time.sleep(1)

    app.client_half.fit = app.client_half.mask = sleep


def _widen_network(app: Any, context: Any) -> None:
    from torch import nn

    from fedmer.plugins.networks.sdt import SDT

    build = SDT.__init__

    def build_wider(network: Any, shape: Any, *arguments: Any, **options: Any) -> None:
        build(network, shape, *arguments, **options)
        network.teacher = nn.Linear(network.teacher.in_features, shape.classes + 1)

    # Wrapped by name: the configuration reads the parameters of the signature.
    build_wider.__wrapped__ = build  # type: ignore[attr-defined]
    SDT.__init__ = build_wider  # type: ignore[assignment,method-assign]


def _spoil(data: Path) -> None:
    data.write_bytes(data.read_bytes()[:100])


def _bend_answer(app: Any, bend: Callable[[Any, Any, Any, Callable[..., None]], None]) -> None:
    put = app.client_half.put_answer
    app.client_half.put_answer = lambda content, summary, update: bend(
        content, summary, update, put
    )


def _nan(content: Any, summary: Any, update: Any, put: Callable[..., None]) -> None:
    next(iter(update.weights.vectors.values()))[0] = float("nan")
    put(content, summary, update)


def _shapes(content: Any, summary: Any, update: Any, put: Callable[..., None]) -> None:
    name = next(name for name, value in update.weights.items() if value.dim() == 2)
    turned = {**update.weights, name: update.weights[name].T.contiguous()}
    put(content, summary, replace(update, weights=turned))


def _oversized(content: Any, summary: Any, update: Any, put: Callable[..., None]) -> None:
    import numpy as np
    from flwr.app import Array, ArrayRecord

    put(content, summary, update)
    content["update"] = ArrayRecord({"float32": Array(np.zeros(10**6, dtype=np.float32))})


def _examples(content: Any, summary: Any, update: Any, put: Callable[..., None]) -> None:
    put(content, replace(summary, examples=10**15), update)


if __name__ == "sitecustomize":
    sys.meta_path.insert(0, Bender())
