"""The dictionary pickles of multimodal sentiment analysis."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedmer.data.formats import read_corpus
from fedmer.errors import InputError


def part(video: str, **changes: Any) -> dict[str, Any]:
    """Two clips of one video, of two steps each."""
    made: dict[str, Any] = {
        "text": np.array([[[2.0], [4.0]], [[6.0], [0.0]]]),
        "audio": np.array([[[1.0, 1.0], [3.0, -np.inf]], [[0.0, 0.0], [0.0, 0.0]]], np.float32),
        "vision": np.ones((2, 1, 1)),
        "labels": np.array([[[0.0]], [[-1.2]]]),
        "id": [f"{video}[1]", f"{video}[0]"],
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def saved(folder: Path, **train: Any) -> Path:
    path = folder / "mosi_data.pkl"
    parts = {name: part(video) for name, video in (("valid", "v"), ("test", "t"))}
    path.write_bytes(pickle.dumps({"train": part("x_1", **train), **parts}, protocol=4))
    return path


def test_clips_become_turns_and_sentiments_classes(tmp_path: Path) -> None:
    corpus = read_corpus(saved(tmp_path))
    assert [dialogue.split for dialogue in corpus.conversations] == ["train", "val", "test"]
    first = corpus.conversations[0]
    assert (first.id, first.people) == ("x_1", ["x_1"])
    assert corpus.modalities == ["text", "audio", "visual"]
    assert [corpus.label_names[label] for label in first.labels] == ["negative", "neutral"]
    assert first.features["text"].tolist() == [[6], [3]]
    assert first.features["audio"].tolist() == [[0, 0], [1, 1]]
    assert first.present["audio"].tolist() == [False, True]
    assert "below 0 negative, 0 neutral, above 0 positive" in corpus.notes[0]


def test_ids_may_be_videos_with_times(tmp_path: Path) -> None:
    ids = np.array([["a", "7.5", "9"], ["a", "0.5", "7"]])
    corpus = read_corpus(saved(tmp_path, id=ids, regression_labels=[1.0, -2.0], labels=None))
    assert corpus.conversations[0].labels.tolist() == [0, 2]
    assert read_corpus(saved(tmp_path, id=["c$_$2", "c$_$1"])).conversations[0].id == "c"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"labels": None}, "'train' lacks 'labels'"),
        ({"id": None}, "'train' lacks 'id'"),
        ({"labels": np.zeros((2, 4, 2))}, r"float64 of shape \(2, 4, 2\); expected 2 nu"),
        ({"labels": np.array([0, np.nan])}, "'labels' of row 1 is NaN"),
        ({"text": np.zeros((3, 1))}, "'text' has 3 rows; expected 2"),
        ({"text": [np.zeros(1), np.zeros(2)]}, "'text' of row 1 has 2 dimensions; row 0 has 1"),
        ({"text": ["a", "b"]}, "'text' of row 0 is <U1"),
        ({"id": "ab"}, "'id' is a str"),
        ({"id": ["t[1]", "t[0]"]}, "dialogue 't' occurs twice"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        read_corpus(saved(tmp_path, **changes))
    assert "mosi_data.pkl" in str(caught.value)
