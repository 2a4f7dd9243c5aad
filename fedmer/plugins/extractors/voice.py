"""Speaker and voice vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.plugins.extractors._mel import mel_spectrogram
from fedmer.plugins.extractors._needed import folder_of, inference, needed

RATE, WINDOW, HOP, BANDS = 16_000, 400, 160, 40
_FRAMES = 160
"""Frames of one window that the network listens to, 1.6 s."""
_STEP = 77
"""Frames from one window to the next: 1.3 windows a second."""
_COVERED = 0.75
"""A last window with less sound than this is left out, unless it is the only one."""
_LOUDNESS = 10 ** (-30 / 20)
"""Root mean square that quieter sound is raised to: 30 dB below full scale."""
HOW = "pip install --no-deps resemblyzer, since only the weights in it are needed"


class Voice(Extractor):
    """Voice vectors of Resemblyzer's network, 256 numbers; frozen, weights in a package.

    The speaker encoder of Wan et al. (Generalized End-to-End Loss for Speaker Verification, 2018):
    three LSTM layers over 40 mel bands, a projection and a ReLU, of length 1, averaged over windows
    of 1.6 s. The weights are those in the package ``resemblyzer``, which is not imported. They were
    trained to tell people apart, so that the numbers say more of who speaks than of how, and are
    personal data like the recording itself.
    """

    reads: ClassVar[str] = "audio"
    packages: ClassVar[Sequence[str]] = ("resemblyzer", "torch", "av")

    def __init__(self) -> None:
        self._torch = torch = needed("torch", "Voice")
        self._file = folder_of("resemblyzer", "Voice", HOW) / "pretrained.pt"
        try:
            state = torch.load(self._file, map_location="cpu", weights_only=True)["model_state"]
        except (OSError, KeyError, RuntimeError) as error:
            raise InputError(f"Voice: {self._file} cannot be read ({error}); {HOW}.") from None
        self._lstm: Any = torch.nn.LSTM(BANDS, 256, 3, batch_first=True)
        self._linear: Any = torch.nn.Linear(256, 256)
        for name, part in (("lstm.", self._lstm), ("linear.", self._linear)):
            part.load_state_dict(
                {key.removeprefix(name): v for key, v in state.items() if key.startswith(name)}
            )
            part.eval()

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        samples = clip.samples(RATE)
        loudness = float(np.sqrt(np.mean(samples**2, dtype=np.float64)))
        samples = samples * np.float32(max(1.0, _LOUDNESS / loudness))
        starts = self._starts(len(samples))
        padded = np.pad(samples, (0, max(0, (starts[-1] + _FRAMES) * HOP - len(samples))))
        bands = mel_spectrogram(padded, RATE, WINDOW, HOP, BANDS)
        windows = np.stack([bands[start : start + _FRAMES] for start in starts])
        torch = self._torch
        with inference(torch):
            _, (hidden, _) = self._lstm(torch.from_numpy(windows))
            voices = torch.relu(self._linear(hidden[-1]))
            voice = torch.nn.functional.normalize(voices, dim=1).mean(dim=0)
            return np.asarray(torch.nn.functional.normalize(voice, dim=0).numpy())

    def model_files(self) -> Sequence[Path]:
        return [self._file]

    def _starts(self, samples: int) -> list[int]:
        """First frame of each window."""
        frames = -(-(samples + 1) // HOP)
        starts = list(range(0, max(1, frames - _FRAMES + _STEP + 1), _STEP))
        covered = (samples - starts[-1] * HOP) / (_FRAMES * HOP)
        return starts[:-1] if covered < _COVERED and len(starts) > 1 else starts
