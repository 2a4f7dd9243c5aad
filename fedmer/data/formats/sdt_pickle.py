"""The feature pickles that published IEMOCAP and MELD results were computed from.

A file is a tuple of dictionaries, dialogue id -> one entry an utterance, followed by the ids of
the training and the test dialogues. None has a validation part. Five kinds are in circulation,
distinguished by the length of the tuple and by where in it the ids are. Speakers are ``"M"`` or
``"F"`` in IEMOCAP and a vector with a one in it in MELD; in some copies of IEMOCAP they are vectors
of two, in which the first place means ``"M"`` as it does in MMGCN's loader:

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
from fedmer.data.formats.memory import MemoryBudget
from fedmer.data.formats.numbers import single_precision
from fedmer.errors import InputError
from fedmer.files import SHARED, replacing

IEMOCAP_LABELS = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD_LABELS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")


@dataclass(frozen=True)
class Layout:
    """Where in the tuple things are.

    Args:
        length: Of the tuple.
        iemocap: Or MELD?
        modalities: Modality name -> place.
        sentences: Place of the words; the ids of training and test dialogues follow it.
    """

    length: int
    iemocap: bool
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
_ID_LISTS = (list, tuple, set, frozenset, np.ndarray)


def from_parts(parts: Any, path: Path, budget: MemoryBudget) -> ConversationCorpus:
    """The corpus of a feature pickle of SDT, MMGCN or conv-emotion.

    IEMOCAP: a speaker is the session and the gender of the utterance, ``Ses01F``; the gender in a
    dialogue's id is the actor who wore the markers, which is something else.

    MELD: the vector in the file numbers the people of one dialogue and says nothing of who they
    are in another (the author of MM-DFN's files says so), so a speaker is
    named after the dialogue too: ``17/speaker0``. A split by person needs the original MELD.

    Args:
        parts: What the pickle holds.
        path: The file.
        budget: What the features may take: one row of a pickle can be all rows of all dialogues.

    Raises:
        InputError: It is no tuple, one of another shape, or lacks something for a dialogue; or
            :func:`fedmer.data.corpus.check` refuses it.
    """
    layout = _layout(parts, path)
    conversations = []
    for split, place in (("train", layout.sentences + 1), ("test", layout.sentences + 2)):
        for dialogue in _ids(parts[place], path):
            conversations.append(_conversation(parts, layout, dialogue, split, path, budget))
    return ConversationCorpus(
        path.stem, conversations, IEMOCAP_LABELS if layout.iemocap else MELD_LABELS
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
    people = {person for dialogue in corpus.conversations for person in dialogue.people}
    if (
        tuple(corpus.label_names) != IEMOCAP_LABELS
        or set(corpus.modalities) != {"text", "audio", "visual"}
        or not all(re.fullmatch(r"Ses\d\d[MF]", person) for person in people)
    ):
        raise InputError(
            f"{corpus.name} cannot be written as SDT's IEMOCAP pickle, which has text, audio and "
            "visual, IEMOCAP's six emotions and speakers such as 'Ses01F'; write a native file."
        )
    dialogues = corpus.conversations
    text, audio, visual = (
        {c.id: list(c.features[m]) for c in dialogues} for m in ("text", "audio", "visual")
    )
    parts = (
        {
            c.id: [f"{c.id}_{person[-1]}{i:03d}" for i, person in enumerate(c.speakers)]
            for c in dialogues
        },
        {c.id: [str(person)[-1] for person in c.speakers] for c in dialogues},
        {c.id: c.labels.tolist() for c in dialogues},
        *(text, text, text, text, audio, visual),
        {c.id: list(c.utterances) or [""] * len(c) for c in dialogues},
        [c.id for c in dialogues if c.split != "test"],
        [c.id for c in dialogues if c.split == "test"],
    )
    with replacing(path, SHARED) as file:
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
    for layout in same:
        dictionaries = (SPEAKERS, LABELS, *layout.modalities.values(), layout.sentences)
        ids = parts[layout.sentences + 1], parts[layout.sentences + 2]
        if all(isinstance(parts[i], dict) for i in dictionaries) and all(
            isinstance(listed, _ID_LISTS) for listed in ids
        ):
            return layout
    raise InputError(
        f"{path} is a tuple of {len(parts)} parts, but not of a published order: expected "
        "dictionaries of speakers, labels and features by dialogue. Convert it to the native "
        "format instead."
    )


def _ids(ids: Any, path: Path) -> list[Any]:
    try:
        # A set of strings has another order in every process.
        listed = sorted(ids) if isinstance(ids, set | frozenset) else list(ids)
    except TypeError:
        listed = [None]
    for dialogue in listed:
        if not isinstance(dialogue, str | int | np.integer):
            raise InputError(
                f"{path}: the training and test dialogues must be lists of ids, which are strings "
                "or whole numbers."
            )
    return listed


def _conversation(
    parts: Sequence[Any],
    layout: Layout,
    dialogue: Any,
    split: str,
    path: Path,
    budget: MemoryBudget,
) -> Conversation:
    where = f"{path}: dialogue '{dialogue}'"

    def part(place: int, key: str) -> Any:
        try:
            return parts[place][dialogue]
        except KeyError:
            raise InputError(f"{where} is listed under {split} but has no {key}.") from None

    labels = _labels(part(LABELS, "labels"), where)
    features = {
        name: _matrix(part(place, name), f"{where}: '{name}'", budget)
        for name, place in layout.modalities.items()
    }
    speakers, session = _speakers(part(SPEAKERS, "speakers"), layout, dialogue, where, budget)
    words = _listed(parts[layout.sentences].get(dialogue))
    whole = len(words) == len(labels) and all(isinstance(sentence, str) for sentence in words)
    return Conversation(
        id=str(dialogue),
        features=features,
        present={name: np.ones(len(labels), dtype=np.bool_) for name in features},
        speakers=speakers,
        labels=labels,
        split=split,
        session=session,
        utterances=[str(sentence) for sentence in words] if whole else (),
    )


def _listed(items: Any) -> list[Any]:
    """The items of a list, a tuple or an array; of anything else none."""
    if isinstance(items, np.ndarray) and items.ndim == 1:
        return list(items)
    return list(items) if isinstance(items, list | tuple) else []


def _labels(labels: Any, where: str) -> NDArray[np.int64]:
    listed = _listed(labels)
    if not listed or not all(isinstance(label, int | np.integer) for label in listed):
        raise InputError(f"{where}: labels must be whole numbers, one an utterance.")
    try:
        return np.array(listed, dtype=np.int64)
    except OverflowError:
        raise InputError(
            f"{where}: labels must be small whole numbers, one an utterance."
        ) from None


def _speakers(
    names: Any, layout: Layout, dialogue: Any, where: str, budget: MemoryBudget
) -> tuple[NDArray[np.str_], str]:
    listed = _listed(names)
    genders = bool(listed) and all(isinstance(name, str) for name in listed)
    if not layout.iemocap:
        if genders:
            raise InputError(
                f"{where} has speakers {_some(listed)}; expected MELD's, a vector for each "
                "utterance "
                "with a one in it."
            )
        vectors = _matrix(names, f"{where}: speakers", budget)
        if not vectors.size:
            raise InputError(f"{where} has speakers that are vectors of no numbers.")
        places = vectors.argmax(axis=1)
        return np.array([f"{dialogue}/speaker{place}" for place in places], dtype=np.str_), ""
    session = re.match(r"Ses\d\d", str(dialogue))
    if genders and not set(listed) <= set("MF"):
        raise InputError(f"{where} has speakers {_some(listed)}; expected M and F.")
    if session is None:
        raise InputError(f"{where}: an id of IEMOCAP starts with the session, such as Ses01.")
    if not genders:
        vectors = _matrix(names, f"{where}: speakers", budget)
        if vectors.shape[1] != 2:
            raise InputError(
                f"{where} has speakers that are vectors of {vectors.shape[1]} numbers; expected M "
                "and F, or vectors of two."
            )
        listed = ["MF"[place] for place in vectors.argmax(axis=1)]
    return np.array([session[0] + gender for gender in listed], dtype=np.str_), session[0]


def _some(names: Sequence[str]) -> str:
    return ", ".join(sorted(set(names))[:5])[:100]


def _matrix(rows: Any, where: str, budget: MemoryBudget) -> NDArray[np.float32]:
    """``(N, D)`` float32 from whatever a published file holds: a matrix, or a list of rows."""
    if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.dtype.kind in "biuf":
        budget.take(4 * rows.size)
        return single_precision(np.asarray(rows), where)
    listed = _listed(rows)
    if not listed:
        what = f"shape {rows.shape}" if isinstance(rows, np.ndarray) else "no rows"
        raise InputError(f"{where} has {what}; expected one row of numbers an utterance.")
    width = len(_listed(listed[0]))
    budget.take(4 * width * len(listed))
    values = np.empty((len(listed), width))
    for place, row in enumerate(listed):
        values[place] = _row(row, width, where)
    return single_precision(values, where)


def _row(row: Any, width: int, where: str) -> NDArray[np.float64]:
    plain = isinstance(row, np.ndarray) and row.dtype.kind in "biuf" and row.ndim == 1
    numbers = row if plain else _listed(row)
    if len(numbers) == width and (
        plain
        or all(isinstance(number, int | float | np.integer | np.floating) for number in numbers)
    ):
        try:
            return np.asarray(numbers, dtype=np.float64)
        except OverflowError:
            raise InputError(f"{where} holds a number of hundreds of digits.") from None
    raise InputError(f"{where} cannot be read as numbers, the same count for every utterance.")
