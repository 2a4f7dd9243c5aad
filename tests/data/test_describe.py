"""The tables show what is in the corpus, and who is in both train and test."""

import numpy as np

from fedmer.console import Console
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.describe import describe, shared_speakers, shared_speakers_warning
from fedmer.data.synthetic import synthetic_corpus


def shown(corpus: ConversationCorpus) -> str:
    console = Console()
    with console.capture() as capture:
        console.print(describe(corpus))
    return capture.get()


def with_speakers(train: list[str], test: list[str]) -> ConversationCorpus:
    def part(split: str, people: list[str]) -> Conversation:
        turns = len(people)
        present = np.arange(turns) > 0
        return Conversation(
            id=split,
            features={"text": np.ones((turns, 2), np.float32) * present[:, None].astype("f4")},
            present={"text": present},
            speakers=np.array(people),
            labels=np.arange(turns) % 2,
            split=split,
        )

    return ConversationCorpus("[made]", [part("train", train), part("test", test)], ["a", "b"])


def test_figures_are_shown() -> None:
    corpus = synthetic_corpus(dialogues=10)
    text = shown(corpus)
    for figure in (corpus.fingerprint, "frustrated", "text", "96", "Ses"):
        assert (figure in text) == (figure != "Ses")
    assert "Warning" not in text


def test_missing_modalities_are_counted() -> None:
    text = shown(with_speakers(["x", "y", "x", "y"], ["z", "z", "z", "z"]))
    assert "25.0%" in text
    assert "[made]" in text


def test_shared_speakers_are_named() -> None:
    corpus = with_speakers(["x", "y"], ["y", "z"])
    assert shared_speakers(corpus) == ["y"]
    assert "1 speaker(s) occur in both train and test: y." in shown(corpus)


def test_at_most_ten_names() -> None:
    people = [f"p{i:02d}" for i in range(13)]
    warning = shared_speakers_warning(with_speakers(people, people))
    assert "p09 and 3 more" in warning
    assert "p10" not in warning
