"""The tables of experiments/results/method.md, from the finished trials of its sweeps.

    fedmer sweep experiments/sweeps/results/meld_dev_rules.yaml -- --data.path meld_dev.npz
    ...                                              # the page lists all commands
    python experiments/method_results.py             # reads runs/, fills the page's marked places

A sweep that is not complete gives a table of the trials that are; the column of seeds says how
many. The words around the tables are written by hand, and have to be read again when a figure
changes.
"""

import argparse
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.marked_places import replace, save
from fedmer.errors import InputError
from fedmer.record.prototypes import FILE as PROTOTYPES
from fedmer.record.prototypes import read_prototypes
from fedmer.report.collect import Run, Which, collect
from fedmer.report.differences import Interval
from fedmer.report.grouping import Row
from fedmer.report.report import Report, make_report

PAGE = Path(__file__).resolve().parent / "results" / "method.md"
REACHED = 0.95


@dataclass(frozen=True)
class Table:
    """One table of the page.

    Args:
        name: Of its marked place.
        sweep: The folder of its sweep below the folder of runs.
        split: Trials of this configuration file only, by its stem; all if empty.
        baseline: The row that others are compared with.
        round: Whose scores are compared: by the one validation selected, or by the last.
        causes: The marked place of the table on what prototypes and weights did, if wanted.
    """

    name: str
    sweep: str
    split: str
    baseline: str
    round: Which = "selected"
    causes: str = ""


SPLITS = ("n_way", "dirichlet_0.1", "dirichlet_1", "speaker")
TABLES = (
    *(
        Table(
            f"{sweep.removeprefix('skew_')} {corpus}",
            f"{corpus}/{sweep}",
            "",
            "fed_avg",
            "last",
        )
        for sweep, corpora in {
            "skew": ("synthetic", "meld_text", "emorynlp"),
            "skew_parts": ("synthetic", "meld_text"),
            "natural": ("meld_dev", "emorynlp"),
            "dirichlet_0.1": ("synthetic", "meld_text", "emorynlp", "mosi"),
            "dirichlet_1": ("synthetic", "meld_text", "emorynlp", "mosi"),
        }.items()
        for corpus in corpora
    ),
    Table("synthetic n_way", "synthetic_n_way", "", "FedAvg"),
    *(Table(f"meld_dev {split}", "meld_dev_rules", split, "FedAvg") for split in SPLITS),
    Table("meld_dev drift", "meld_dev_drift", "", "FedAvg"),
    Table("meld_dev central", "meld_dev_networks", "central", "SDT"),
    Table("meld_dev federated", "meld_dev_networks", "dirichlet_1", "SDT"),
    Table("meld_dev more central", "meld_dev_more_networks", "central", "SDT"),
    Table("meld_dev more federated", "meld_dev_more_networks", "dirichlet_1", "SDT"),
    Table("meld_dev ablation", "meld_dev_ablation", "", "full"),
    Table("meld_dev options", "meld_dev_options", "", "fed_avg", causes="meld_dev causes"),
    Table("mosi speaker", "mosi_rules", "speaker", "FedAvg", "last"),
    Table("mosi dirichlet_0.1", "mosi_rules", "dirichlet_0.1", "FedAvg", "last"),
    Table("meld_text speaker", "meld_text_rules", "", "FedAvg"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where the sweeps are.")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    seconds = 0.0
    for table in TABLES:
        folders = finished(options.runs / table.sweep, table.split)
        if folders:
            try:
                report = make_report(collect(folders, table.round), table.baseline)
            except InputError as error:
                print(f"The table '{table.name}' stays as it is: {error}")
                continue
            text = replace(PAGE, text, table.name, "\n".join(lines(report, table.round)))
            seconds += sum(float(run.result["seconds"]) for row in report.rows for run in row.runs)
            if table.causes:
                text = replace(PAGE, text, table.causes, "\n".join(causes(report)))
    if seconds:
        text = replace(
            PAGE, text, "time", f"{seconds / 3600:.1f} hours of one core, without start-up."
        )
    save(PAGE, text)
    return 0


def finished(sweep: Path, split: str) -> list[Path]:
    """The folders of a sweep's finished trials of one split."""
    found = sorted(path.parent for path in sweep.glob("*/result.json"))
    return [path for path in found if not split or split in path.name.split("-")]


def lines(report: Report, which: Which) -> Iterator[str]:
    """Test scores in points, a line a row: mean and standard deviation over seeds."""
    other = "last" if which == "selected" else "selected"
    yield (
        f"| | seeds | {which}: wF1 | acc | {other}: wF1 | against {report.baseline}: wF1 "
        "| last ten rounds: sd | rounds to 95 % | up + down |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    moved = {difference.row: difference.weighted_f1 for difference in report.differences}
    for row, line in zip(report.rows, report.lines, strict=False):
        steady, reached = stability(row)
        cells = [
            f"{row.name} †" if row.personal else row.name,
            str(line.seeds),
            _spread(line.weighted_f1.mean, line.weighted_f1.deviation),
            _spread(line.accuracy.mean, line.accuracy.deviation),
            _other(row, other),
            _interval(moved.get(row.name)),
            f"{steady:.1f}",
            f"{reached:.0f}",
            _size(statistics.mean(r.result["bytes_up"] + r.result["bytes_down"] for r in row.runs)),
        ]
        yield f"| {' | '.join(cells)} |"
    for line in report.lines[len(report.rows) :]:
        scores = f"{line.weighted_f1.mean:.1f} | {line.accuracy.mean:.1f}"
        yield f"| {line.name} | | {scores} | | | | | |"


def stability(row: Row) -> tuple[float, float]:
    """How steady weighted F1 on test is, means over seeds.

    Returns:
        The standard deviation of the last ten rounds, in points, and the first round that has 95 %
        of the last one's score.
    """
    steady, reached = [], []
    for run in row.runs:
        scores = [float(r["test_weighted_f1"]) for r in run.rounds if r["test_weighted_f1"]]
        steady.append(100 * statistics.stdev(scores[-10:]) if len(scores) > 1 else 0.0)
        reached.append(next(i for i, s in enumerate(scores, 1) if s >= REACHED * scores[-1]))
    return statistics.mean(steady), statistics.mean(reached)


def causes(report: Report) -> Iterator[str]:
    """What the rule's prototypes and weights did, a line a row: means over seeds."""
    yield (
        "| | wF1 on validation, last | weight moved | margin after round 1 | 5 | last "
        "| length of a prototype after round 1 | last |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|"
    for row in report.rows:
        validation = statistics.mean(
            100 * run.result["last"]["scores"]["val"]["weighted_f1"] for run in row.runs
        )
        cells = [row.name, f"{validation:.1f}", f"{statistics.mean(map(moved, row.runs)):.2f}"]
        found = [geometry(run) for run in row.runs if (run.path / PROTOTYPES).exists()]
        if found:
            margins, lengths = (np.mean(part, axis=0) for part in zip(*found, strict=True))
            chosen = (margins[0], margins[4], margins[-1], lengths[0], lengths[-1])
            cells += [f"{value:.1f}" for value in chosen]
        yield f"| {' | '.join(cells + [''] * (8 - len(cells)))} |"


def moved(run: Run) -> float:
    """The share of a round's weight that lies elsewhere than by numbers of utterances, mean of
    rounds.

    Half the sum over clients of the absolute difference between a client's weight and its share of
    the cohort's turns: 0 is FedAvg, 1 would be all on clients that have none.
    """
    rounds: dict[str, list[tuple[float, float]]] = {}
    for row in run.clients:
        if row["weight"]:
            rounds.setdefault(row["round"], []).append(
                (float(row["examples"]), float(row["weight"]))
            )
    shares = []
    for cohort in rounds.values():
        total = sum(turns for turns, _ in cohort)
        shares.append(sum(abs(weight - turns / total) for turns, weight in cohort) / 2)
    return statistics.mean(shares) if shares else math.nan


def geometry(run: Run) -> tuple[list[float], list[float]]:
    """After every round: distance from a prototype to its nearest rival, and length; means."""
    margins, lengths = [], []
    prototypes, known = read_prototypes(run.path / PROTOTYPES)[1]["prototypes.fused"]
    for rows, held in zip(prototypes, known, strict=True):
        apart = np.linalg.norm(rows[held][:, None] - rows[held], axis=-1)
        np.fill_diagonal(apart, np.inf)
        margins.append(float(apart.min(axis=1).mean()))
        lengths.append(float(np.linalg.norm(rows[held], axis=1).mean()))
    return margins, lengths


def _other(row: Row, which: str) -> str:
    entries = [run.result[which] for run in row.runs]
    if any(entry is None for entry in entries):
        return ""
    values = [100 * entry["scores"]["test"]["weighted_f1"] for entry in entries]
    return _spread(statistics.mean(values), _deviation(values))


def _deviation(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _spread(mean: float, deviation: float | None) -> str:
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def _interval(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.low is None or interval.high is None:
        return f"{100 * interval.difference:+.1f}"
    star = " *" if interval.clear else ""
    low, high = 100 * interval.low, 100 * interval.high
    return f"{100 * interval.difference:+.1f} [{low:+.1f}, {high:+.1f}]{star}"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


if __name__ == "__main__":
    raise SystemExit(main())
