"""What the networks of a run said of every utterance of the test part: ``test_votes.npz``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats.memory import MemoryBudget
from fedmer.data.partition import Sample
from fedmer.errors import InputError
from fedmer.record.arrays import MAX_GB, read_arrays, write_arrays

FILE = "test_votes.npz"
SUBSETS = "subset_votes.npz"
"""The same of the last round, with some of the modalities."""
_VOTES = "votes_"
_MOST = 2**31
"""Networks that can have voted, and more."""


@dataclass(frozen=True, eq=False)
class Votes:
    """The votes of one round, one row a labelled utterance, ordered by dialogue and utterance.

    A global network has one vote an utterance. Under a rule with personal networks every client's
    network has one.

    Args:
        dialogue: ``(N,)`` ids.
        turn: ``(N,)`` int64, the utterance's index in the whole dialogue.
        truth: ``(N,)`` int64.
        counts: ``(N, C)`` int64, how many networks named each class.
        speaker: ``(N,)`` names; None for a run that kept none.
    """

    dialogue: NDArray[np.str_]
    turn: NDArray[np.int64]
    truth: NDArray[np.int64]
    counts: NDArray[np.int64]
    speaker: NDArray[np.str_] | None = None

    def by_dialogue(self) -> tuple[NDArray[np.str_], NDArray[np.int64]]:
        """Ids of the ``D`` dialogues, sorted, and their ``(D, C, C)`` confusion matrices.

        >>> turns, named = np.arange(2), np.eye(2, dtype=int)
        >>> votes = Votes(np.array(["a", "a"]), turns, np.array([1, 1]), named)
        >>> votes.by_dialogue()[1].tolist()
        [[[0, 0], [1, 1]]]
        """
        names, place = np.unique(self.dialogue, return_inverse=True)
        return names, self.confusion(place, len(names))

    def confusion(self, place: NDArray[np.int64], places: int) -> NDArray[np.int64]:
        """``(places, C, C)`` confusion matrices of utterances that stand at one of so many places.

        Args:
            place: ``(N,)``, of every utterance; one that has none is -1 and is not counted.
            places: How many there are.
        """
        classes = self.counts.shape[1]
        confusion = np.zeros((places, classes, classes), dtype=np.int64)
        kept = place >= 0
        np.add.at(confusion, (place[kept], self.truth[kept]), self.counts[kept])
        return confusion


def write_votes(
    path: Path,
    corpus: ConversationCorpus,
    views: Sequence[Sample],
    counts: Mapping[str, NDArray[np.int32]],
) -> None:
    """Write the votes of rounds such as ``last`` and ``selected``; see :func:`votes_of`.

    Args:
        path: Replaced.
        corpus: Whose test part was scored.
        views: The samples that it was scored on, in order. A dialogue that is seen from several
            sides is here several times, each time with other labelled utterances.
        counts: Round -> ``(N, C)``, in the order of the views' labelled utterances. Where a Trainer
            was asked to score a part only, the first ones.
    """
    write_arrays(path, _arrays(corpus, views, counts))


def votes_of(
    corpus: ConversationCorpus,
    views: Sequence[Sample],
    counts: Mapping[str, NDArray[np.int32]],
) -> dict[str, Votes]:
    """Votes by their names, which :func:`write_votes` would write."""
    arrays = _arrays(corpus, views, counts)
    return {name: _taken(arrays, _VOTES + name) for name in counts}


def _arrays(
    corpus: ConversationCorpus,
    views: Sequence[Sample],
    counts: Mapping[str, NDArray[np.int32]],
) -> dict[str, NDArray[Any]]:
    dialogue, turn = [], []
    for sample in views:
        turns = np.flatnonzero(sample.labelled)
        turn.append(turns)
        dialogue += [sample.dialogue] * len(turns)
    whole, within = np.array(dialogue), np.concatenate(turn)
    size = len(next(iter(counts.values())))
    whole, within = whole[:size], within[:size]
    ids = np.array([corpus.conversations[i].id for i in whole], dtype=np.str_)
    truth = np.array(
        [corpus.conversations[i].labels[t] for i, t in zip(whole, within, strict=True)],
        dtype=np.int64,
    )
    people = [corpus.conversations[i].speakers[t] for i, t in zip(whole, within, strict=True)]
    order = np.lexsort((within, ids))
    arrays: dict[str, NDArray[Any]] = {
        "dialogue": ids[order],
        "turn": within[order].astype(np.int64),
        "truth": truth[order],
        "speaker": np.array(people, dtype=np.str_)[order],
    }
    arrays |= {f"{_VOTES}{name}": rows[order] for name, rows in counts.items()}
    return arrays


def read_votes(path: Path, which: str, classes: int | None = None) -> Votes | None:
    """The votes of ``last`` or ``selected``; None if the file has none.

    Args:
        path: The file.
        which: Round.
        classes: ``C``, if it is known.

    Raises:
        InputError: It is damaged, or holds something else than votes on so many classes.
    """
    arrays = read_arrays(path) if path.exists() else {}
    return _checked(path, arrays, _VOTES + which, classes) if _VOTES + which in arrays else None


def read_all_votes(path: Path, classes: int | None = None) -> dict[str, Votes]:
    """All votes of a file, by their names and in its order; nothing if there is no file.

    Raises:
        InputError: As :func:`read_votes`.
    """
    arrays = read_arrays(path) if path.exists() else {}
    keys = [key for key in arrays if key.startswith(_VOTES)]
    return {key.removeprefix(_VOTES): _checked(path, arrays, key, classes) for key in keys}


def _checked(
    path: Path, arrays: Mapping[str, NDArray[Any]], key: str, classes: int | None
) -> Votes:
    turns, found = (*arrays[key].shape, 0, 0)[:2]
    classes = found if classes is None else classes
    expected = {"dialogue": ("U", (turns,)), "turn": ("iu", (turns,)), "truth": ("iu", (turns,))}
    if "speaker" in arrays:  # runs made before do not say
        expected["speaker"] = ("U", (turns,))
    for name, (kinds, shape) in (expected | {key: ("iu", (turns, classes))}).items():
        array = arrays.get(name)
        if array is None or array.dtype.kind not in kinds or array.shape != shape:
            what = "missing" if array is None else f"{array.dtype} of shape {array.shape}"
            raise InputError(
                f"{path}: '{name}' is {what}; expected {shape}, for {classes} emotions. Remove "
                "the file to leave it out."
            )
        if kinds == "iu" and array.size and not (array.min() >= 0 and array.max() < _MOST):
            raise InputError(f"{path}: '{name}' holds what is no count; remove the file.")
    if turns and arrays["truth"].max() >= classes:
        raise InputError(f"{path}: 'truth' holds what is no emotion; remove the file.")
    dialogues = len(np.unique(arrays["dialogue"]))
    MemoryBudget(path, MAX_GB, "remove it").take(8 * dialogues * classes**2)
    return _taken(arrays, key)


def _taken(arrays: Mapping[str, NDArray[Any]], key: str) -> Votes:
    turn, truth, counts = (arrays[name].astype(np.int64) for name in ("turn", "truth", key))
    return Votes(arrays["dialogue"], turn, truth, counts, arrays.get("speaker"))
