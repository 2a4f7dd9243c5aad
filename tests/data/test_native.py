"""The native file gives back what was written, and says what is wrong with a bad one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.formats import native, read_corpus
from fedmer.errors import InputError

REAL = Path(__file__).parents[3] / "shared" / "data"
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=6)


@st.composite
def corpora(draw: st.DrawFn) -> ConversationCorpus:
    known = st.sampled_from(["text", "audio", "visual", "gaze"])
    names = draw(st.lists(known, min_size=1, unique=True))
    dimensions = {name: draw(st.integers(1, 4)) for name in native.ordered(names)}
    numbers = st.floats(-(2.0**90), 2.0**90, width=32)
    conversations = []
    for identifier in draw(st.lists(words, min_size=1, max_size=4, unique=True)):
        turns = draw(st.integers(1, 5))
        labels = draw(arrays.arrays(np.int64, turns, elements=st.integers(-1, 2)))
        labels[draw(st.integers(0, turns - 1))] = 1
        present = {
            name: draw(arrays.arrays(np.bool_, turns, elements=st.booleans()))
            for name in dimensions
        }
        conversations.append(
            Conversation(
                id=identifier,
                features={
                    name: np.where(
                        present[name][:, None],
                        draw(arrays.arrays(np.float32, (turns, size), elements=numbers)),
                        np.float32(0),
                    )
                    for name, size in dimensions.items()
                },
                present=present,
                speakers=np.array(draw(st.lists(words, min_size=turns, max_size=turns))),
                labels=labels,
                split=draw(st.sampled_from(["train", "val", "test"])),
                session=draw(st.sampled_from(["", "Ses01"])),
            )
        )
    return ConversationCorpus("made", conversations, ["calm", "glad", "cross"])


@given(corpora())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_writing_and_reading_gives_the_same_corpus(
    tmp_path_factory: pytest.TempPathFactory, corpus: ConversationCorpus
) -> None:
    path = tmp_path_factory.mktemp("native") / "made.npz"
    native.write(corpus, path)
    again = read_corpus(path)
    assert again.fingerprint == corpus.fingerprint
    assert again.name == "made"
    assert again.modalities == corpus.modalities
    assert [p.name for p in path.parent.iterdir()] == ["made.npz"]


def columns(**changes: Any) -> dict[str, Any]:
    """Two dialogues of two utterances, out of order."""
    made: dict[str, Any] = {
        "dialogue": np.array(["b", "a", "b", "a"]),
        "turn": np.array([1, 0, 0, 1]),
        "speaker": np.array(["x", "y", "z", "x"]),
        "label": np.array([0, 1, -1, 0]),
        "split": np.array(["test", "train", "test", "train"]),
        "label_names": np.array(["calm", "glad"]),
        "audio": np.arange(8, dtype=np.float32).reshape(4, 2),
        "text": np.ones((4, 3), dtype=np.float32),
    }
    made.update(changes)
    return {key: value for key, value in made.items() if value is not None}


def saved(folder: Path, **changes: Any) -> Path:
    path = folder / "made.npz"
    np.savez(path, **columns(**changes))
    return path


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    corpus = read_corpus(saved(tmp_path))
    assert [dialogue.id for dialogue in corpus.conversations] == ["b", "a"]
    assert corpus.modalities == ["text", "audio"]
    assert corpus.conversations[0].speakers.tolist() == ["z", "x"]
    assert corpus.conversations[0].features["audio"].tolist() == [[4, 5], [0, 1]]


def test_what_a_missing_row_held_is_forgotten(tmp_path: Path) -> None:
    audio = np.full((4, 2), np.nan, dtype=np.float32)
    mask = np.zeros(4, dtype=np.bool_)
    corpus = read_corpus(saved(tmp_path, audio=audio, present_audio=mask))
    assert not corpus.conversations[0].present["audio"].any()
    assert not corpus.conversations[0].features["audio"].any()


WRONG = [
    ({"turn": np.array([1, 0, 1, 1])}, "dialogue 'b' has utterance 1 twice"),
    ({"split": np.array(["test", "val", "train", "val"])}, "dialogue 'b' has split 'test' and"),
    ({"speaker": None}, "lacks 'speaker'"),
    ({"text": np.ones((3, 3), np.float32)}, "'text' has 3 rows but 'dialogue' has 4"),
    ({"label": np.array([0, 1, -1, 2])}, "label 2 is out of range"),
    ({"label": np.array([-1, 1, -1, 0])}, "dialogue 'b' has no labelled utterance"),
    ({"text": np.full((4, 3), np.nan, np.float32)}, "'text' holds NaN or infinity in turn 0"),
    ({"text": None, "audio": None}, "holds no modality"),
    ({"label": np.array([0.0, 1.0, 0.0, 1.0])}, "'label' holds float64 of shape (4,)"),
    ({"comment": np.array(["a"] * 4)}, "'comment' is <U1 of shape"),
    ({"present_gaze": np.ones(4, np.bool_)}, "'present_gaze' marks a modality"),
    ({"split": np.array(["dev", "train", "dev", "train"])}, "is in split 'dev'"),
    ({key: np.array([], "U1") for key in ("dialogue", "speaker", "split")}
     | {key: np.array([], np.int64) for key in ("turn", "label")}
     | {"text": np.ones((0, 3), np.float32), "audio": np.ones((0, 3), np.float32)},
     "holds no dialogues"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "sentence"), WRONG)
def test_a_wrong_file_is_explained(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    path = saved(tmp_path, **changes)
    with pytest.raises(InputError) as caught:
        read_corpus(path)
    assert sentence in str(caught.value)
    assert "made.npz" in str(caught.value)


@given(st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_damaged_file_is_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = saved(tmp_path_factory.mktemp("damaged"))
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), label="cut short"):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        read_corpus(path)
    except InputError as error:
        assert "made.npz" in str(error)  # noqa: PT017 - most changes of a byte do no harm


def test_a_modality_with_a_reserved_name_is_not_written(tmp_path: Path) -> None:
    rows, mask = np.ones((1, 1), np.float32), np.ones(1, np.bool_)
    dialogue = Conversation(
        "a", {"turn": rows}, {"turn": mask}, np.array(["x"]), np.array([0]), "train"
    )
    with pytest.raises(InputError, match="cannot be called 'turn'"):
        native.write(
            ConversationCorpus("made", [dialogue], ["calm", "glad"]), tmp_path / "made.npz"
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "dialogues", "turns", "people"),
    [("meld_dev", 114, 1108, 47), ("meld_text", 1432, 13708, 304), ("mosi", 93, 2199, 93)],
)
def test_real_corpora(name: str, dialogues: int, turns: int, people: int) -> None:
    path = REAL / f"{name}.npz"
    if not path.exists():
        pytest.skip(f"the real corpus {name} is not here; it may not be redistributed")
    corpus = read_corpus(path)
    assert len(corpus) == dialogues
    assert sum(len(dialogue) for dialogue in corpus.conversations) == turns
    assert (
        len({person for dialogue in corpus.conversations for person in dialogue.people}) == people
    )
