"""Sentence vectors of any encoder of Hugging Face transformers."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.plugins.extractors._sentence_encoder import SentenceEncoder


class HuggingFaceText(Extractor):
    """Sentence vectors of any transformer encoder, from a folder or from the hub.

    With ``HF_HUB_OFFLINE=1`` nothing is fetched: a name is then looked up among what is on this
    machine already. No code that comes with a model is run.

    Use a model that was not tuned on emotion labels of the corpus's test speakers, or of clients
    that are to keep theirs: features would carry those labels to everybody.

    Args:
        model: A folder, or a name such as ``roberta-large``.
        pooling: ``mean`` over the tokens of the last layer, or ``cls``, the first token.
        max_tokens: What is longer is cut.
        revision: A branch, tag or commit on the hub.
    """

    reads: ClassVar[str] = "text"
    packages: ClassVar[Sequence[str]] = ("transformers", "tokenizers", "torch")

    def __init__(
        self,
        model: str,
        pooling: str = "mean",
        max_tokens: int = 256,
        revision: str | None = None,
    ) -> None:
        place = str(Path(model).expanduser()) if model.startswith("~") else model
        self._encoder = SentenceEncoder(place, "HuggingFaceText", pooling, max_tokens, revision)

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        return self._encoder(clip.text)

    def model_files(self) -> Sequence[Path]:
        return self._encoder.model_files()
