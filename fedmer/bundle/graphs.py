"""A model as a graph that other programs run: TorchScript or ONNX, for one dialogue at a time."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fedmer.bundle.model import Model
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.files import SHARED, write_atomically
from fedmer.seeds import derive

Format = Literal["torchscript", "onnx"]
_LENGTHS = (7, 3, 12, 1)
"""Utterances of the dialogues that a graph is made of (the first) and checked with."""
_CLOSE = 1e-4
"""How far probabilities of the graph may be from the network's."""


class Graph(nn.Module):
    """Raw features of one dialogue in, probabilities out; standardisation and rule are inside.

    Its inputs are, in this order, ``(1, L, D)`` features of each modality, ``(1, L)`` bool whether
    each modality is there, ``(1, L)`` int64 roles (0 for the listener, or who speaks first, then
    the others as they come), and its output is ``(1, L, C)``.

    Args:
        model: Whose graph.
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.model = [model]  # in a list, since it is no module
        self.names = list(model.features)
        for name, own in (model.contents.statistics or {}).items():
            place = self.names.index(name)
            self.register_buffer(f"mean_{place}", torch.from_numpy(own.mean))
            self.register_buffer(f"deviation_{place}", torch.from_numpy(own.deviation))

    def forward(self, *inputs: Tensor) -> Tensor:
        count = len(self.names)
        features, present = {}, {}
        for place, name in enumerate(self.names):
            rows, there = inputs[place], inputs[count + place]
            if self.model[0].contents.statistics is not None:
                rows = (rows - getattr(self, f"mean_{place}")) / getattr(self, f"deviation_{place}")
            features[name], present[name] = rows * there[..., None], there
        roles = inputs[-1]
        batch = Batch(
            features=features,
            present=present,
            context=torch.ones_like(roles, dtype=torch.bool),
            labelled=torch.zeros_like(roles, dtype=torch.bool),
            labels=torch.full_like(roles, -1),
            roles=roles,
            positions=torch.ones_like(roles).cumsum(dim=1) - 1,
        )
        model = self.model[0]
        logits = model.aggregator.logits(self.network, batch, model.knowledge)
        return (logits / model.temperature).softmax(dim=-1)

    @property
    def inputs(self) -> list[str]:
        """Names of the inputs."""
        return [*self.names, *(f"present_{name}" for name in self.names), "roles"]


def save_graph(model: Model, path: Path, kind: Format) -> None:
    """Write the graph, once it says the same as the network on dialogues of several lengths.

    Args:
        model: Of which network.
        path: The file.
        kind: Of graph.

    Raises:
        InputError: The network cannot be written so, or what it needs is not installed; nothing was
            written then.
    """
    graph = Graph(model).eval()
    name = type(model.network).__name__
    examples = [_example(model, length) for length in _LENGTHS]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            content, found = _MAKERS[kind](graph, examples)
            wanted = [graph(*example) for example in examples]
    except InputError:
        raise
    except Exception as error:  # whatever an exporter raises
        said = " ".join(str(error).split())[:200]
        raise InputError(
            f"{name} cannot be written as {kind} ({type(error).__name__}: {said}); write the "
            "bundle instead."
        ) from error
    for length, one, other in zip(_LENGTHS, wanted, found, strict=True):
        if one.shape != other.shape or not torch.allclose(one, other, atol=_CLOSE, rtol=0):
            raise InputError(
                f"{name} cannot be written as {kind}: the graph says something else than the "
                f"network of a dialogue of {length} utterances; write the bundle instead."
            )
    write_atomically(path, content, SHARED)


def _example(model: Model, length: int) -> tuple[Tensor, ...]:
    random = torch.Generator().manual_seed(derive(0, "graph", length))
    widths = model.features.values()
    rows = [torch.randn(1, length, width, generator=random) for width in widths]
    there = [torch.rand(1, length, generator=random) > 0.2 for _ in widths]
    roles = torch.arange(length)[None] % min(2, model.contents.shape.speakers)
    return (*rows, *there, roles)


def _torchscript(
    graph: Graph, examples: Sequence[tuple[Tensor, ...]]
) -> tuple[bytes, list[Tensor]]:
    made = torch.jit.trace(graph, examples[0], check_trace=False)  # type: ignore[no-untyped-call]
    content = io.BytesIO()
    torch.jit.save(made, content)
    content.seek(0)
    again = torch.jit.load(content)  # type: ignore[no-untyped-call]
    return content.getvalue(), [again(*example) for example in examples]


def _onnx(graph: Graph, examples: Sequence[tuple[Tensor, ...]]) -> tuple[bytes, list[Tensor]]:
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - the exporter needs it
    except ImportError as error:
        raise InputError(
            f"Writing ONNX needs {error.name}; install it with pip install onnxscript onnxruntime, "
            "or choose --format torchscript."
        ) from None
    length = torch.export.Dim("turns", min=1, max=4096)
    content = io.BytesIO()
    made: Any = torch.onnx.export(
        graph,
        examples[0],
        input_names=graph.inputs,
        output_names=["probabilities"],
        dynamic_shapes={"inputs": tuple({1: length} for _ in graph.inputs)},
        dynamo=True,
        verbose=False,
    )
    made.save(content)
    session = onnxruntime.InferenceSession(content.getvalue(), providers=["CPUExecutionProvider"])
    said = []
    for example in examples:
        feed = {n: v.numpy() for n, v in zip(graph.inputs, example, strict=True)}
        said.append(torch.from_numpy(session.run(None, feed)[0]))
    return content.getvalue(), said


_MAKERS = {"torchscript": _torchscript, "onnx": _onnx}
