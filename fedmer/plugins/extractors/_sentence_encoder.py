"""Sentences by a transformer encoder, one at a time, so that no neighbour changes a bit."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.plugins.extractors._needed import inference, needed

POOLING = ("mean", "cls")


class SentenceEncoder:
    """Vectors of the last layer, pooled over tokens.

    Args:
        place: A folder, or a name on the hub.
        who: The extractor, for sentences.
        pooling: ``mean`` over tokens, or the first token (``cls``).
        max_tokens: What is longer is cut.
        revision: A branch, tag or commit on the hub.
    """

    def __init__(
        self, place: str, who: str, pooling: str, max_tokens: int, revision: str | None = None
    ) -> None:
        if pooling not in POOLING:
            raise InputError(f"{who}: pooling is '{pooling}'; expected mean or cls.")
        if max_tokens < 1:
            raise InputError(f"{who}: max_tokens is {max_tokens}; expected at least 1.")
        self._torch = needed("torch", who)
        transformers = needed("transformers", who)
        said = {"revision": revision} if revision else {}
        transformers.utils.logging.disable_progress_bar()
        try:
            self._tokenizer: Any = transformers.AutoTokenizer.from_pretrained(place, **said)
            self._model: Any = transformers.AutoModel.from_pretrained(place, **said)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            why = " ".join(str(error).split())[:200]
            raise InputError(
                f"{who}: no encoder could be loaded from {place} ({why}); give a folder with a "
                "model of Hugging Face transformers, or a name on a hub that can be reached."
            ) from None
        self._model.eval()
        self._pooling, self._max_tokens = pooling, max_tokens
        self._place, self._revision = place, revision

    def __call__(self, text: str) -> NDArray[np.float32]:
        """``(D,)`` of one text."""
        tokens = self._tokenizer(
            text, truncation=True, max_length=self._max_tokens, return_tensors="pt"
        )
        with inference(self._torch):
            states = self._model(**tokens).last_hidden_state[0]
        pooled = states[0] if self._pooling == "cls" else states.mean(dim=0)
        return np.asarray(pooled.float().numpy(), dtype=np.float32)

    def model_files(self) -> list[Path]:
        """Weights, settings and vocabulary, in the folder or in what was fetched from the hub."""
        kinds = (".safetensors", ".bin", ".json", ".txt", ".model")
        return sorted(file for file in self._folder().iterdir() if file.suffix in kinds)

    def _folder(self) -> Path:
        folder = Path(self._place)
        if folder.is_dir():
            return folder
        hub = importlib.import_module("huggingface_hub")
        return Path(
            hub.snapshot_download(self._place, revision=self._revision, local_files_only=True)
        )
