"""Who holds how many labels of which emotion: a split, as a table and as a picture."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.errors import InputError
from fedmer.files import replacing
from fedmer.printable import drawable

if TYPE_CHECKING:
    from rich.table import Table

CELLS_WITH_NUMBERS = 60
"""With more clients than this the numbers in the picture would not be legible."""


def label_counts(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition]
) -> NDArray[np.int64]:
    """``(clients, classes)`` labelled utterances.

    >>> from fedmer.data.partition import ClientPartition, whole
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5)
    >>> client = ClientPartition("a", [whole(d, i) for i, d in enumerate(corpus.conversations)])
    >>> label_counts(corpus, [client]).shape
    (1, 6)
    """
    counts = np.zeros((len(clients), len(corpus.label_names)), dtype=np.int64)
    for row, client in enumerate(clients):
        for sample in client.samples:
            labels = corpus.conversations[sample.dialogue].labels[sample.labelled]
            counts[row] += np.bincount(labels, minlength=counts.shape[1])
    return counts


def partition_table(corpus: ConversationCorpus, clients: Sequence[ClientPartition]) -> "Table":
    """One row a client: dialogues, labelled utterances, and how many of each emotion.

    Args:
        corpus: What was split.
        clients: What a partitioner returned.

    Returns:
        A table for :class:`fedmer.console.Console`, with the totals below.
    """
    from rich.table import Table

    counts = label_counts(corpus, clients)
    table = Table(title=f"{corpus.name} split over {len(clients)} clients", title_justify="left")
    table.add_column("", justify="right")
    table.add_column("client", no_wrap=True)
    for name in ("dialogues", "labels", *corpus.label_names):
        table.add_column(name, justify="right")
    for number, (client, row) in enumerate(zip(clients, counts, strict=True)):
        last = number == len(clients) - 1
        table.add_row(
            *(str(number), client.name, str(len(client.samples))),
            *(str(row.sum()), *map(str, row)),
            end_section=last,
        )
    dialogues = len({sample.dialogue for client in clients for sample in client.samples})
    total = counts.sum(axis=0)
    table.add_row("", "all", str(dialogues), str(total.sum()), *map(str, total))
    return table


def save_partition_picture(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition], path: str | Path
) -> None:
    """Write the clients x emotions counts as a heat map.

    Args:
        corpus: What was split.
        clients: What a partitioner returned.
        path: A .png file; replaced if it exists, and only once the picture is complete.

    Raises:
        InputError: The path does not end in .png or cannot be written to.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    if path.suffix.lower() != ".png":
        raise InputError(f"{path} does not end in .png; the picture of a split is a PNG file.")
    counts = label_counts(corpus, clients)
    rows, columns = counts.shape
    figure = Figure(
        figsize=(3.2 + 0.85 * columns, 1.7 + min(0.26 * rows, 24)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    image = axes.imshow(counts, cmap="Blues", aspect="auto", vmin=0, interpolation="nearest")
    axes.set_xticks(range(columns), [drawable(name) for name in corpus.label_names])
    title = f"{drawable(corpus.name)}: labelled utterances of {rows} clients"
    axes.set_title(title, loc="left", fontsize=11)
    if rows <= CELLS_WITH_NUMBERS:
        axes.set_yticks(range(rows), [drawable(client.name) for client in clients])
        middle = 0.6 * counts.max()
        for row, column in np.ndindex(rows, columns):
            axes.text(
                *(column, row, str(counts[row, column])),
                ha="center",
                va="center",
                fontsize=8,
                color="white" if counts[row, column] > middle else "black",
            )
    else:
        axes.set_ylabel("client")
    axes.tick_params(length=0, labelsize=9)
    figure.colorbar(image, ax=axes, label="labelled utterances")
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)
