"""Pictures by a network that comes as an ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.plugins.extractors._faces import FaceFinder
from fedmer.plugins.extractors._needed import needed
from fedmer.plugins.extractors._pictures import fitted

_SIZE = 224
"""Pixels a side where the network takes any."""


class OnnxVisual(Extractor):
    """The mean over frames of what an ONNX network makes of each; the model is yours.

    The network takes one picture as ``(1, 3, H, W)`` or ``(1, H, W, 3)``, or grey as ``(1, 1, H,
    W)`` or ``(1, H, W, 1)``, and gives numbers of any shape, which are flattened. A picture is cut
    to the network's proportions around its middle, resized, and made
    ``(value / 255 - mean) / std``. The network runs on the CPU, in one thread.

    Use a network that was not tuned on emotion labels of the corpus: features would carry one
    client's labels to all others.

    Args:
        model: The ``.onnx`` file.
        output: Name of the output to take; the first by default.
        per_second: Frames a second that are looked at.
        faces: Look at the largest face of each frame; frames without one are left out.
        mean: Of red, green and blue, in [0, 1].
        std: Of red, green and blue.
    """

    reads: ClassVar[str] = "video"
    packages: ClassVar[Sequence[str]] = ("onnxruntime", "av")

    def __init__(
        self,
        model: str,
        output: str | None = None,
        per_second: float = 5.0,
        faces: bool = False,
        mean: tuple[float, float, float] = (0.485, 0.456, 0.406),
        std: tuple[float, float, float] = (0.229, 0.224, 0.225),
    ) -> None:
        if not per_second > 0:
            raise InputError(f"OnnxVisual: per_second is {per_second}; expected a number above 0.")
        if not min(std) > 0:
            raise InputError(f"OnnxVisual: std is {list(std)}; expected numbers above 0.")
        self._file = Path(model).expanduser()
        self._session = self._load()
        outputs = [found.name for found in self._session.get_outputs()]
        if output is not None and output not in outputs:
            raise InputError(
                f"OnnxVisual: {model} has no output '{output}'; it has {', '.join(outputs)}."
            )
        self._output = output or outputs[0]
        self._per_second = per_second
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._input, self._shape, self._last = self._layout()
        self._faces = FaceFinder("OnnxVisual") if faces else None

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        total: NDArray[np.float64] | None = None
        count = 0
        for frame in clip.frames(self._per_second):
            picture = frame if self._faces is None else self._faces.largest(frame)
            if picture is None:
                continue
            found = self._session.run([self._output], {self._input: self._prepared(picture)})[0]
            row = np.asarray(found, dtype=np.float64).ravel()
            total, count = row if total is None else total + row, count + 1
        if total is None:
            raise InputError("no face is seen there")
        return (total / count).astype(np.float32)

    def model_files(self) -> Sequence[Path]:
        return [self._file, *([self._faces.file] if self._faces is not None else [])]

    def _prepared(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The network's input of one picture."""
        height, width, channels = self._shape
        values = (fitted(picture, height, width) / np.float32(255) - self._mean) / self._std
        if channels == 1:
            values = values.mean(axis=2, keepdims=True)
        ordered = values if self._last else values.transpose(2, 0, 1)
        return np.ascontiguousarray(ordered[None], dtype=np.float32)

    def _load(self) -> Any:
        runtime = needed("onnxruntime", "OnnxVisual")
        if not self._file.is_file():
            raise InputError(f"OnnxVisual: there is no file {self._file}; give an .onnx file.")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            return runtime.InferenceSession(
                str(self._file), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            why = " ".join(str(error).split())[:200]
            raise InputError(f"OnnxVisual: {self._file} is no ONNX network ({why}).") from error

    def _layout(self) -> tuple[str, tuple[int, int, int], bool]:
        """Name of the input; height, width and channels of a picture; are channels the last?"""
        inputs = self._session.get_inputs()
        sides = list(inputs[0].shape)
        last = len(sides) == 4 and sides[3] in (1, 3) and sides[1] not in (1, 3)
        channels = sides[-1] if last else sides[1] if len(sides) == 4 else None
        if len(inputs) != 1 or channels not in (1, 3) or inputs[0].type != "tensor(float)":
            raise InputError(
                f"OnnxVisual: {self._file} takes {inputs[0].type} of {sides}; expected float "
                "pictures of 1 or 3 channels, as (1, 3, H, W) or (1, H, W, 3)."
            )
        height, width = (
            side if isinstance(side, int) and side > 0 else _SIZE
            for side in (sides[1:3] if last else sides[2:4])
        )
        return inputs[0].name, (height, width, channels), last
