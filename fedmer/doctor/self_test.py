"""A small run from its data to a prediction, in a folder that goes away."""

import contextlib
import io
import time
from contextlib import closing

from fedmer.files import TemporaryFolder

ROUNDS = 2
_SMALL = (
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner", "Speaker"),
    *("--trainer.max_epochs", str(ROUNDS), "--trainer.enable_progress_bar", "false"),
)


def self_test() -> str:
    """Train two rounds of a tiny federation, load its model in this process, and ask it.

    Returns:
        What was done, and how long it took.

    Raises:
        RuntimeError: The run ended with another code than 0, or the model says nothing sensible.
    """
    import numpy as np

    from fedmer import cli
    from fedmer.bundle.model import load
    from fedmer.data.formats import native
    from fedmer.data.synthetic import synthetic_corpus

    began = time.perf_counter()
    corpus = synthetic_corpus(dialogues=10, features={"text": 4, "audio": 3})
    said = io.StringIO()
    with closing(TemporaryFolder()) as folder:
        path = folder.path / "corpus.npz"
        native.write(corpus, path)
        place = ["--data.path", str(path), "--runs", str(folder.path), "--name", "test"]
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = cli.main(["fit", *place, *_SMALL])
        if code != 0:
            raise RuntimeError(f"the run ended with {code}: {said.getvalue()[-300:]}")
        found = load(folder.path / "test").predict(corpus.conversations[0])
    if not np.allclose(found.probabilities.sum(axis=1), 1, atol=1e-4):
        raise RuntimeError("probabilities of an utterance do not sum to 1")
    took = time.perf_counter() - began
    return f"{ROUNDS} rounds of 8 clients, and {len(found.emotions)} predictions, in {took:.1f} s"
