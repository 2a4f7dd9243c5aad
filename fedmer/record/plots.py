"""The pictures of one run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

from fedmer.files import replacing
from fedmer.metrics import Scores
from fedmer.printable import drawable

CONFUSION = "confusion.png"


def save_curves(
    rows: Sequence[Mapping[str, str]], path: Path, selected: Mapping[str, Any] | None
) -> None:
    """Training loss, and weighted F1 on validation and test, over rounds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    left.plot(*_column(rows, "train_loss"), color="tab:gray")
    left.set(xlabel="round", ylabel="mean training loss of the cohort")
    for part, colour in (("val", "tab:blue"), ("test", "tab:orange")):
        rounds, values = _column(rows, f"{part}_weighted_f1")
        if rounds:
            name = {"val": "validation", "test": "test"}[part]
            right.plot(rounds, [100 * v for v in values], color=colour, label=name)
    if selected is not None:
        number = selected["round"]
        right.axvline(number, color="tab:blue", linestyle=":", label=f"selected: round {number}")
    right.set(xlabel="round", ylabel="weighted F1 (points)")
    if right.lines:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    _save(figure, path)


def save_confusion(scores: Scores, labels: Sequence[str], path: Path) -> None:
    """The confusion matrix on test: counts, shaded by the fraction of the true class."""
    counts = np.array(scores.confusion)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [drawable(name) for name in labels]
    size = 2.2 + 0.75 * len(labels)
    figure, axes = plt.subplots(figsize=(size, size * 0.9), layout="constrained")
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if fractions[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour)
    axes.set_xticks(range(len(labels)), labels, rotation=45, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="predicted", ylabel="true")
    figure.colorbar(image, ax=axes, label="fraction of the true emotion", shrink=0.8)
    _save(figure, path)


def _column(rows: Sequence[Mapping[str, str]], name: str) -> tuple[list[int], list[float]]:
    filled = [row for row in rows if row[name]]
    return [int(row["round"]) for row in filled], [float(row[name]) for row in filled]


def _save(figure: Any, path: Path) -> None:
    with replacing(path) as file:
        figure.savefig(file, dpi=130, format="png")
    plt.close(figure)
