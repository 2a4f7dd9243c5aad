"""The tables that a run ends with."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fedmer.console import Console, in_bytes
from fedmer.data.corpus import ConversationCorpus
from fedmer.metrics import TOTALS, Scores
from fedmer.record.holdouts import FEWEST, Holdouts

_HEADINGS = {"accuracy": "accuracy", "weighted_f1": "wF1", "macro_f1": "macro F1", "uar": "UAR"}


def print_result(console: Console, result: Mapping[str, Any], folder: Path) -> None:
    """Print totals beside the baselines, then per class, clients and bytes."""
    console.print(totals_table(result))
    shown = result["selected"] or result["last"]
    if shown and "test" in shown["scores"]:
        title = f"Per emotion, round {shown['round']}: test, in points"
        console.print(class_table(title, shown["scores"]["test"], result["data"]["labels"]))
    console.print(_clients_line(result))
    rounds = max(result["rounds"], 1)
    console.print(
        f"{result['rounds']} round{'s' * (result['rounds'] != 1)} in {result['seconds']:.1f} s; "
        f"{in_bytes(result['bytes_down'])} down, {in_bytes(result['bytes_up'])} up "
        f"({in_bytes((result['bytes_down'] + result['bytes_up']) / rounds)} a round)"
    )
    if result.get("privacy"):
        console.print(f"Differential privacy: {result['privacy']['sentence']}.", soft_wrap=True)
    console.print(f"Everything is in {folder}", soft_wrap=True)


def totals_table(result: Mapping[str, Any]) -> Table:
    """Test scores in points: baselines, last round, round selected by validation."""
    data = result["data"]
    table = Table(
        title=f"{result['aggregator']}, {result['network']}, {result['partitioner']} "
        f"({result['clients']} clients) on {data['name']}: test, in points"
    )
    table.add_column("")
    table.add_column("round", justify="right")
    for name in TOTALS:
        table.add_column(_HEADINGS[name], justify="right")
    for name, title in (("majority", "majority class"), ("probe", "linear probe, no context")):
        if name in result["baselines"]:
            table.add_row(title, "", *_points(result["baselines"][name]))
    for key, title in (("last", "last round"), ("selected", "selected by validation")):
        entry = result[key]
        if entry is not None and "test" in entry["scores"]:
            table.add_row(title, str(entry["round"]), *_points(entry["scores"]["test"]))
    return table


def part_table(part: str, scores: Scores, corpus: ConversationCorpus) -> Table:
    """Scores of one part: every emotion, and below them the totals."""
    table = class_table(
        f"{corpus.name}: {part}, in points", dataclasses.asdict(scores), corpus.label_names
    )
    table.add_section()
    for name, value in scores.totals.items():
        table.add_row(_HEADINGS[name], "", "", f"{100 * value:.1f}", "")
    return table


def class_table(title: str, scores: Mapping[str, Any], labels: Sequence[str]) -> Table:
    """Precision, recall, F1 and support of every emotion."""
    table = Table(title=title)
    table.add_column("emotion")
    for name in ("precision", "recall", "F1", "turns"):
        table.add_column(name, justify="right")
    for index, label in enumerate(labels):
        cells = [f"{100 * scores[key][index]:.1f}" for key in ("precision", "recall", "f1")]
        table.add_row(label, *cells, str(sum(scores["confusion"][index])))
    return table


def _clients_line(result: Mapping[str, Any]) -> str:
    if not result["holdouts"]:
        return "Holdouts of clients: none (--data.holdout 0.1 keeps some back)."
    found = Holdouts.of(result["holdouts"])
    line = f"Holdouts of {found.clients} clients, wF1: mean {100 * found.mean:.1f}"
    if found.spread is None:
        return f"{line}; each has fewer than {FEWEST} utterances, too few for a worst and a spread"
    line += (
        f", worst {100 * found.spread.low:.1f} ({found.spread.worst}, {found.spread.turns} "
        "utterances), "
        f"spread {100 * found.spread.deviation:.1f} (sd)"
    )
    if found.small:
        line += (
            f"; worst and spread leave out {found.small} holdouts of fewer than {FEWEST} utterances"
        )
    return line


def _points(scores: Mapping[str, float]) -> list[str]:
    return [f"{100 * scores[name]:.1f}" for name in TOTALS]
