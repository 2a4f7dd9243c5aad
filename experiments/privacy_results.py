"""The tables of experiments/results/privacy.md, from the trials of its sweeps.

    fedmer sweep experiments/sweeps/results/bytes.yaml --runs runs/mosi -- --data.path mosi.npz
    ...                                              # the page lists all commands
    python experiments/privacy_results.py            # reads runs/, fills the page's places

A sweep that is not complete gives a table of what has finished; a cell says of how many seeds it is
if these are not five. The words around the tables are written by hand, and have to be read again
when a figure changes.
"""

import argparse
import csv
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from experiments.marked_places import replace, save

PAGE = Path(__file__).resolve().parent / "results" / "privacy.md"
SEEDS = 5
QUANTILES = {3: 4.30, 4: 3.18, 5: 2.78}
"""Number of seeds -> 97.5 % quantile of Student's t with one degree of freedom less; two seeds say
too little for an interval."""

RULES = {
    "fed_avg": "FedAvg",
    "distance": "Distance",
    "distance_softmax": "Distance, `softmax`, tau 0.3",
    "distance_robust": "Distance, `robust`, tau 0.25",
    "distance_sites": "Distance, at modalities too",
    "norm_bound": "NormBound",
    "median": "Median",
    "trimmed_mean": "TrimmedMean, bad 0.4",
    "krum": "Krum, bad 0.4",
    "multi_krum": "MultiKrum, bad 0.4",
    "bulyan": "Bulyan, bad 0.2",
    "geometric_median": "GeometricMedian",
}
MECHANISMS = {
    "none": "none",
    "int8": "`int8`",
    "top_10_percent": "`top_k`, keep 0.1",
    "top_1_percent": "`top_k`, keep 0.01",
    "sign": "`sign`",
    "clip": "`ClipNorm`",
    "epsilon_16": "`GaussianNoise`, epsilon 16",
    "epsilon_8": "epsilon 8",
    "epsilon_4": "epsilon 4",
    "epsilon_2": "epsilon 2",
}


@dataclass(frozen=True)
class Trials:
    """Finished trials of a sweep, as its ``trials.csv`` has them."""

    rows: Sequence[Mapping[str, str]]

    @classmethod
    def read(cls, sweep: Path) -> "Trials":
        """Those of a sweep's folder; none if it is not there."""
        table = sweep / "trials.csv"
        if not table.exists():
            return cls([])
        with table.open(encoding="utf-8", newline="") as file:
            return cls([row for row in csv.DictReader(file) if row["status"] == "finished"])

    def where(self, **wanted: str) -> "Trials":
        """Those whose parameters are these; of a file, its stem counts."""
        return Trials([r for r in self.rows if all(_value(r, k) == v for k, v in wanted.items())])

    def points(self, column: str) -> list[float]:
        """A column's scores in points, one a trial."""
        return [100 * float(row[column]) for row in self.rows]


def _value(row: Mapping[str, str], parameter: str) -> str:
    text = row[parameter]
    return Path(text).stem if text.endswith(".yaml") else text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where the sweeps are.")
    runs: Path = parser.parse_args().runs
    text = PAGE.read_text(encoding="utf-8")
    good = Trials.read(runs / "meld_dev" / "bad_clients_none")
    bad = Trials.read(runs / "meld_dev" / "bad_clients")
    if bad.rows:
        for part in ("test", "val"):
            block = "\n".join(bad_clients(good, bad, f"last_{part}_weighted_f1"))
            text = replace(PAGE, text, f"bad clients {part}", block)
    for sweep, corpora in {
        "epsilon": ("meld_text", "emorynlp_text"),
        "bytes": ("meld_dev", "mosi"),
    }.items():
        found = {name: Trials.read(runs / name / sweep) for name in corpora}
        if any(trials.rows for trials in found.values()):
            text = replace(PAGE, text, sweep, "\n".join(mechanisms(found)))
    save(PAGE, text)
    return 0


def bad_clients(good: Trials, bad: Trials, column: str) -> Iterator[str]:
    """Rules by kind and share of bad clients."""
    kinds = {"label_flip": "label flip", "sign_flip": "sign flip", "feature_noise": "noise"}
    shares = ("0.1", "0.2", "0.4")
    heads = [f"{name} {float(s):.0%}" for name in kinds.values() for s in shares]
    yield f"| rule | none | {' | '.join(heads)} |"
    yield f"|---|{'--:|' * (1 + len(heads))}"
    for rule, name in RULES.items():
        cells = [cell(good.where(config=rule).points(column))]
        for kind in kinds:
            trials = bad.where(config=rule, conditions=kind)
            cells += [
                cell(trials.where(**{"conditions.fraction": s}).points(column)) for s in shares
            ]
        yield f"| {name} | {' | '.join(cells)} |"


def mechanisms(corpora: Mapping[str, Trials]) -> Iterator[str]:
    """Mechanisms by corpus: scores, and what all clients send in all rounds."""
    heads = " | ".join(f"{name}: wF1 | acc | MB up" for name in corpora)
    yield f"| | {heads} |"
    yield f"|---|{'--:|--:|--:|' * len(corpora)}"
    for key, name in MECHANISMS.items():
        cells = []
        for trials in corpora.values():
            chosen = trials.where(config=key)
            cells += [cell(chosen.points(f"last_test_{s}")) for s in ("weighted_f1", "accuracy")]
            cells.append(sent(chosen))
        if any(cells):
            yield f"| {name} | {' | '.join(cells)} |"


def sent(trials: Trials) -> str:
    """Megabytes that all clients send in all rounds, mean over seeds."""
    if not trials.rows:
        return ""
    return f"{statistics.mean(float(row['bytes_up']) for row in trials.rows) / 1e6:.1f}"


def cell(points: Sequence[float]) -> str:
    """A mean and half its 95 % interval over seeds.

    >>> cell([60.0, 61.0, 62.0, 61.0, 61.0]), cell([60.0, 62.0])
    ('61.0 ± 0.9', '61.0 (2)')
    """
    count = len(points)
    if not count:
        return ""
    text = f"{statistics.mean(points):.1f}"
    if count in QUANTILES:
        text += f" ± {QUANTILES[count] * statistics.stdev(points) / math.sqrt(count):.1f}"
    return text if count == SEEDS else f"{text} ({count})"


if __name__ == "__main__":
    raise SystemExit(main())
