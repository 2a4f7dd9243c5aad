"""One utterance with its words and its recordings, read when they are asked for."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.tables.utterance import Utterance
from fedmer.data.media import audio, video
from fedmer.errors import InputError

SILENT = 1e-4
"""Below this peak (-80 dB of full scale) a recording holds nothing that anybody said."""


@dataclass(frozen=True)
class Clip:
    """What an extractor gets.

    Args:
        utterance: A row of a table.
    """

    utterance: Utterance

    @property
    def text(self) -> str:
        """The words, without white space around them.

        Raises:
            InputError: There are none.
        """
        words = self.utterance.text.strip()
        if not words:
            raise InputError("the text is empty")
        return words

    def samples(self, rate: int) -> NDArray[np.float32]:
        """The sound from start to end of the utterance, of one channel.

        It comes from the audio file, or where there is none from the video file.

        Args:
            rate: Samples a second; the recording may have any.

        Returns:
            ``(round(seconds * rate),)``, about, in [-1, 1].

        Raises:
            InputError: There is no recording, it cannot be read, or nothing is heard in it.
        """
        path = self._existing(self.utterance.audio or self.utterance.video, "audio")
        start, end = self._times()
        found = audio.read(path, rate, start, end)
        if not len(found) or float(np.abs(found).max()) < SILENT:
            raise InputError(f"{path.name} is silent there")
        return found

    def frames(self, per_second: float) -> Iterator[NDArray[np.uint8]]:
        """Pictures from start to end of the utterance, evenly spaced, one at a time.

        Args:
            per_second: How many.

        Yields:
            ``(height, width, 3)`` red, green and blue; at least one.

        Raises:
            InputError: There is no recording, it cannot be read, or it has no picture there.
        """
        path = self._existing(self.utterance.video, "video")
        start, end = self._times()
        yield from video.read(path, per_second, start, end)

    def _existing(self, path: Path | None, medium: str) -> Path:
        if path is None:
            raise InputError(f"no {medium} file is named")
        if not path.is_file():
            raise InputError(f"there is no file {path}")
        return path

    def _times(self) -> tuple[float, float | None]:
        start, end = self.utterance.start or 0.0, self.utterance.end
        if end is not None and end <= start:
            raise InputError(f"the end, {end:g} s, is not after the start, {start:g} s")
        return start, end
