"""Mean of word vectors."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedmer.contracts.extractor import Extractor
from fedmer.data.media.clip import Clip
from fedmer.plugins.extractors._needed import needed


class Words(Extractor):
    """WordLlama's mean of token vectors, 256 numbers; small, fast, without torch.

    Vectors of tokens that were distilled from the input layers of large language models (Miller,
    WordLlama, 2024). The weights are in the package ``wordllama``. The order of words means
    nothing to it.
    """

    reads: ClassVar[str] = "text"
    packages: ClassVar[Sequence[str]] = ("wordllama", "tokenizers")

    def __init__(self) -> None:
        module = needed("wordllama", "Words")
        self._folder = Path(module.__file__).parent
        # The package looks for its tokenizer in a cache alone; its own folder is laid out like one.
        self._model = module.WordLlama.load(cache_dir=self._folder, disable_download=True)

    def extract(self, clip: Clip) -> NDArray[np.float32]:
        return np.asarray(self._model.embed([clip.text])[0], dtype=np.float32)

    def model_files(self) -> Sequence[Path]:
        return sorted(self._folder.glob("weights/*.safetensors")) + sorted(
            self._folder.glob("tokenizers/*.json")
        )
