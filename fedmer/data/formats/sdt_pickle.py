"""The feature pickles that published IEMOCAP and MELD results were computed from.

A file is a tuple of dictionaries, dialogue id -> one entry an utterance, followed by the ids of
the training and the test dialogues. None has a validation part. Five kinds are in circulation,
told apart by the length of the tuple and by how speakers are written (IEMOCAP: ``"M"`` or ``"F"``;
MELD: a vector with a one in it):

=======  ======  ============  ===================================================================
corpus   length  of            parts
=======  ======  ============  ===================================================================
IEMOCAP  12      SDT           ids, speakers, labels, text, three more texts, audio, visual,
                               sentences, train, test
MELD     13      SDT           the same, and one that is not used
IEMOCAP  9       MMGCN         ids, speakers, labels, text, audio, visual, sentences, train, test
MELD     10      MMGCN         the same, and one that is not used
MELD     9       conv-emotion  ids, speakers, labels, text, audio, sentences, train, test, and one
                               that is not used
=======  ======  ============  ===================================================================
"""

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.formats.room import MAX_GB
from fedmer.data.formats.safe_pickle import load
from fedmer.errors import InputError
from fedmer.files import replacing

IEMOCAP_LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


@dataclass(frozen=True)
class Layout:
    """Where in the tuple things are.

    Args:
        length: Of the tuple.
        letters: Are speakers ``"M"`` and ``"F"`` (IEMOCAP), or vectors (MELD)?
        modalities: Modality name -> place.
        sentences: Place of the words; the ids of training and test dialogues follow it.
    """

    length: int
    letters: bool
    modalities: Mapping[str, int]
    sentences: int


LAYOUTS = (
    Layout(12, True, {"text": 3, "audio": 7, "visual": 8}, 9),
    Layout(13, False, {"text": 3, "audio": 7, "visual": 8}, 9),
    Layout(9, True, {"text": 3, "audio": 4, "visual": 5}, 6),
    Layout(10, False, {"text": 3, "audio": 4, "visual": 5}, 6),
    Layout(9, False, {"text": 3, "audio": 4}, 5),
)
SPEAKERS, LABELS = 1, 2


def read(path: str | Path, max_gb: float = MAX_GB) -> ConversationCorpus:
    """Read a feature pickle of SDT, MMGCN or conv-emotion, running nothing in it.

    IEMOCAP: a speaker is the session and the letter of the turn, ``Ses01F``; the letter in a
    dialogue's id is the actor who wore the markers, which is something else.

    MELD: the vector in the file numbers the people of one dialogue and says nothing of who they
    are in another (the author of MM-DFN's files says so), so a speaker is
    named after the dialogue too: ``17/speaker0``. A split by person needs the original MELD.

    Args:
        path: The file.

    Raises:
        InputError: The pickle asks to run something, is damaged, is a tuple of another shape, or
            lacks something for a dialogue; or :func:`fedmer.data.corpus.check` refuses it.
    """
    path = Path(path)
    parts = load(path)
    layout = _layout(parts, path)
    conversations = []
    for split, place in (("train", layout.sentences + 1), ("test", layout.sentences + 2)):
        for talk in _ids(parts[place], path):
            conversations.append(_conversation(parts, layout, talk, split, path))
    return ConversationCorpus(
        path.stem, conversations, IEMOCAP_LABELS if layout.letters else MELD_LABELS
    )


def write(corpus: ConversationCorpus, path: str | Path) -> None:
    """Write a corpus as the 12-tuple that SDT reads, in pickle protocol 2.

    Dialogues of the ``val`` part are written as ``train``, since the file has none. The three
    further texts repeat the text.

    Args:
        corpus: Six emotions in IEMOCAP's order; speakers are a session and ``M`` or ``F``.
        path: The file; replaced if it exists.

    Raises:
        InputError: The corpus is not of IEMOCAP's form, or the folder cannot be written to.
    """
    path = Path(path)
    people = {person for talk in corpus.conversations for person in talk.people}
    if (
        tuple(corpus.label_names) != IEMOCAP_LABELS
        or set(corpus.modalities) != {"text", "audio", "visual"}
        or not all(re.fullmatch(r"Ses\d\d[MF]", person) for person in people)
    ):
        raise InputError(
            f"{corpus.name} cannot be written as SDT's IEMOCAP pickle, which has text, audio and "
            "visual, IEMOCAP's six emotions and speakers such as 'Ses01F'; write a native file."
        )
    talks = corpus.conversations
    text, audio, visual = (
        {c.id: list(c.features[m]) for c in talks} for m in ("text", "audio", "visual")
    )
    parts = (
        {
            c.id: [f"{c.id}_{person[-1]}{i:03d}" for i, person in enumerate(c.speakers)]
            for c in talks
        },
        {c.id: [str(person)[-1] for person in c.speakers] for c in talks},
        {c.id: c.labels.tolist() for c in talks},
        *(text, text, text, text, audio, visual),
        {c.id: list(c.utterances) or [""] * len(c) for c in talks},
        [c.id for c in talks if c.split != "test"],
        [c.id for c in talks if c.split == "test"],
    )
    with replacing(path) as file:
        pickle.dump(parts, file, protocol=2)


def _layout(parts: Any, path: Path) -> Layout:
    known = ", ".join(str(length) for length in sorted({layout.length for layout in LAYOUTS}))
    if not isinstance(parts, tuple | list):
        raise InputError(
            f"{path} is a pickle of a {type(parts).__name__}; expected a tuple of {known} parts "
            "as published with SDT, MMGCN and conv-emotion."
        )
    same = [layout for layout in LAYOUTS if layout.length == len(parts)]
    if not same:
        raise InputError(
            f"{path} is a tuple of {len(parts)} parts; the feature files of SDT, MMGCN and "
            f"conv-emotion have {known}. Convert it to the native format instead."
        )
    letters = isinstance(parts[SPEAKERS], dict) and all(
        isinstance(name, str) for names in parts[SPEAKERS].values() for name in names
    )
    for layout in same:
        dictionaries = (SPEAKERS, LABELS, *layout.modalities.values(), layout.sentences)
        if layout.letters == letters and all(isinstance(parts[i], dict) for i in dictionaries):
            return layout
    raise InputError(
        f"{path} is a tuple of {len(parts)} parts, but not of a published order: expected "
        "dictionaries of speakers, labels and features by dialogue. Convert it to the native "
        "format instead."
    )


def _ids(ids: Any, path: Path) -> list[Any]:
    if isinstance(ids, set | frozenset):
        # A set of strings has another order in every process.
        return sorted(ids)
    if isinstance(ids, list | tuple | np.ndarray):
        return list(ids)
    raise InputError(
        f"{path}: the training and test dialogues must be lists of ids, not {type(ids).__name__}."
    )


def _conversation(
    parts: Sequence[Any], layout: Layout, talk: Any, split: str, path: Path
) -> Conversation:
    def part(place: int, key: str) -> Any:
        try:
            return parts[place][talk]
        except KeyError:
            raise InputError(
                f"{path}: dialogue '{talk}' is listed under {split} but has no {key}."
            ) from None

    labels = np.asarray(part(LABELS, "labels"))
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: dialogue '{talk}': labels must be whole numbers, one a turn.")
    features = {
        name: _matrix(part(place, name), f"{path}: dialogue '{talk}': '{name}'")
        for name, place in layout.modalities.items()
    }
    speakers, session = _speakers(part(SPEAKERS, "speakers"), layout, talk, path)
    words = parts[layout.sentences].get(talk, ())
    return Conversation(
        id=str(talk),
        features=features,
        present={name: np.ones(len(labels), dtype=np.bool_) for name in features},
        speakers=speakers,
        labels=labels.astype(np.int64),
        split=split,
        session=session,
        utterances=[str(sentence) for sentence in words] if len(words) == len(labels) else (),
    )


def _speakers(names: Any, layout: Layout, talk: Any, path: Path) -> tuple[NDArray[np.str_], str]:
    if layout.letters:
        if not re.match(r"Ses\d\d", str(talk)) or not set(names) <= {"M", "F"}:
            raise InputError(
                f"{path}: dialogue '{talk}' has speakers {', '.join(sorted(set(names)))}; expected "
                "M and F, and an id that starts with the session, such as Ses01."
            )
        session = str(talk)[:5]
        return np.array([session + letter for letter in names], dtype=np.str_), session
    places = _matrix(names, f"{path}: dialogue '{talk}': speakers").argmax(axis=1)
    return np.array([f"{talk}/speaker{place}" for place in places], dtype=np.str_), ""


def _matrix(rows: Any, where: str) -> NDArray[np.float32]:
    """``(N, D)`` float32 from whatever a published file holds: a matrix, or a list of rows."""
    try:
        values = np.array([np.asarray(row, dtype=np.float64) for row in rows], dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(
            f"{where} cannot be read as numbers, the same count for every turn."
        ) from None
    if values.ndim != 2:
        raise InputError(f"{where} has shape {values.shape}; expected one row of numbers a turn.")
    # A number beyond float32 becomes infinite here, which the corpus's own check reports.
    with np.errstate(over="ignore"):
        return values.astype(np.float32)
