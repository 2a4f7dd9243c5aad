"""What ``fedmer predict`` writes."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from fedmer.datamodule import FederatedDataModule
from fedmer.files import write_atomically


def write_predictions(path: Path, data: FederatedDataModule, batches: Sequence[Tensor]) -> Path:
    """Write one row a labelled turn of the test part: its probabilities and the likeliest emotion.

    Args:
        path: A ``.csv`` file, replaced.
        data: Whose test part was predicted.
        batches: ``(B, L, C)`` probabilities, in the order of ``data.predict_dataloader()``.
    """
    names = data.corpus.label_names
    evaluated = [row for batch in batches for row in batch]
    rows = dict(zip(data.batches["test"].order, evaluated, strict=True))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["dialogue", "turn", "truth", "prediction", *names])
    for number, excerpt in enumerate(data.excerpts("test")):
        for place in excerpt.labelled.nonzero()[:, 0].tolist():
            chances = rows[number][place].tolist()
            predicted = max(range(len(names)), key=chances.__getitem__)
            writer.writerow(
                [
                    excerpt.dialogue,
                    int(excerpt.turns[place]),
                    names[int(excerpt.labels[place])],
                    names[predicted],
                    *(f"{chance:.4f}" for chance in chances),
                ]
            )
    write_atomically(path, text.getvalue())
    return path
