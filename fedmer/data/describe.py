"""What a corpus looks like, as tables a person reads before spending hours on it."""

from typing import TYPE_CHECKING, Any

import numpy as np

from fedmer.data.corpus import SPLITS, UNLABELLED, ConversationCorpus
from fedmer.printable import printable

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

NAMED = 10


def shared_speakers(corpus: ConversationCorpus) -> list[str]:
    """People who speak both in a training and in a test dialogue, in alphabetical order.

    A network that has learnt from somebody may recognise them in the test part; scores are then
    no measure of how it does on new speakers.

    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> shared_speakers(synthetic_corpus(dialogues=5))
    []
    """
    people = {
        split: {person for i in corpus.part(split) for person in corpus.conversations[i].people}
        for split in ("train", "test")
    }
    return sorted(people["train"] & people["test"])


def shared_speakers_warning(corpus: ConversationCorpus) -> str:
    """A sentence naming :func:`shared_speakers`, ten at most, or nothing when there are none."""
    shared = shared_speakers(corpus)
    if not shared:
        return ""
    names = ", ".join(shared[:NAMED])
    more = f" and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
    return (
        f"{len(shared)} speaker(s) occur in both train and test: {names}{more}. "
        "Test scores do not say how well new speakers are recognised."
    )


def describe(corpus: ConversationCorpus) -> "Group":
    """Tables of size, emotions and features, and a warning where one is due.

    Args:
        corpus: What to look at; it has been checked, so it holds no NaN.

    Returns:
        Something for :class:`fedmer.console.Console` to print.

    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> len(describe(synthetic_corpus(dialogues=5)).renderables)
    3
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = [
        _sizes(corpus),
        *(Text(printable(f"Note: {note}")) for note in corpus.notes),
        _emotions(corpus),
        _features(corpus),
        *(
            Text(printable(f"'{modality}' was extracted by {record}"))
            for modality, record in corpus.extractors.items()
        ),
    ]
    warning = shared_speakers_warning(corpus)
    return Group(
        *parts, *([Text(f"Warning: {printable(warning)}", style="yellow")] if warning else [])
    )


def suggested_recipe(corpus: ConversationCorpus) -> str | None:
    """The name of a recipe that was made for corpora like this one, or None.

    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> suggested_recipe(synthetic_corpus(dialogues=5))
    'iemocap_speakers'
    """
    labels = {name.lower() for name in corpus.label_names}
    people = max(len(set(dialogue.people)) for dialogue in corpus.conversations)
    if labels == {"happy", "sad", "neutral", "angry", "excited", "frustrated"} and people <= 2:
        return "iemocap_speakers"
    if labels == {"neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"}:
        return "meld_text" if len(corpus.shape.features) == 1 else "meld"
    return "mosi" if "mosi" in corpus.name.lower() else None


def _parts(corpus: ConversationCorpus) -> dict[str, list[int]]:
    parts = {split: corpus.part(split) for split in SPLITS}
    return {split: rows for split, rows in parts.items() if rows}


def _sizes(corpus: ConversationCorpus) -> "Table":
    from rich.table import Table

    table = Table(title=f"{corpus.name}, fingerprint {corpus.fingerprint}", title_justify="left")
    table.add_column("part")
    for name in ("dialogues", "turns", "labelled", "speakers", "min", "median", "max"):
        table.add_column(name, justify="right")
    everything = {"all": list(range(len(corpus)))}
    for part, rows in (_parts(corpus) | everything).items():
        dialogues = [corpus.conversations[i] for i in rows]
        lengths = [len(dialogue) for dialogue in dialogues]
        table.add_row(
            part,
            str(len(dialogues)),
            str(sum(lengths)),
            str(sum(int((dialogue.labels != UNLABELLED).sum()) for dialogue in dialogues)),
            str(len({person for dialogue in dialogues for person in dialogue.people})),
            str(min(lengths)),
            f"{np.median(lengths):g}",
            str(max(lengths)),
        )
    return table


def _emotions(corpus: ConversationCorpus) -> "Table":
    from rich.table import Table

    table = Table(title="labelled utterances per emotion", title_justify="left")
    table.add_column("emotion")
    parts = _parts(corpus)
    counts = {}
    for part, rows in parts.items():
        labels = np.concatenate([corpus.conversations[i].labels for i in rows])
        counts[part] = np.bincount(labels[labels != UNLABELLED], minlength=len(corpus.label_names))
        table.add_column(part, justify="right")
        table.add_column("%", justify="right")
    for emotion, name in enumerate(corpus.label_names):
        cells = []
        for part in parts:
            fraction = counts[part][emotion] / max(counts[part].sum(), 1)
            cells += [str(counts[part][emotion]), f"{fraction:.1%}".rstrip("%")]
        table.add_row(name, *cells)
    return table


def _features(corpus: ConversationCorpus) -> "Table":
    from rich.table import Table

    table = Table(title="features, of the utterances that have them", title_justify="left")
    table.add_column("modality")
    for name in ("dimension", "mean", "std", "min", "max", "NaN", "missing"):
        table.add_column(name, justify="right")
    for name, dimension in corpus.shape.features.items():
        present = np.concatenate([dialogue.present[name] for dialogue in corpus.conversations])
        rows = np.concatenate([dialogue.features[name] for dialogue in corpus.conversations])[
            present
        ]
        cells = ["", "", "", "", "0"]
        if rows.size:
            # In float32 the squares of numbers beyond 1e19 are infinite.
            mean, spread = (work(rows, dtype=np.float64) for work in (np.mean, np.std))
            figures = (mean, spread, rows.min(), rows.max())
            cells = [*(f"{figure:.4g}" for figure in figures), str(int(np.isnan(rows).sum()))]
        table.add_row(name, str(dimension), *cells, f"{1 - present.mean():.1%}")
    return table
