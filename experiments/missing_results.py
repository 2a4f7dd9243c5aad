"""Writes the tables of ``experiments/results/missing.md`` from finished sweeps.

    python experiments/missing_results.py            # reads runs/mosi and runs/meld_dev

Every table stands between two marks; a table without runs stays as it is.
"""

import argparse
import statistics
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path

from experiments.marked_places import replace, save
from fedmer.record.subsets import subset_scores
from fedmer.report.collect import Run, collect
from fedmer.report.differences import paired_bootstrap

CORPORA = ("mosi", "meld_dev")
PAGE = Path(__file__).resolve().parent / "results" / "missing.md"
TABLES = {
    "dropout": ("missing",),
    "rules": ("missing", "missing_rules"),
    "fills": ("missing", "missing_rules", "missing_fills"),
    "clients": ("missing_clients", "missing_dialogues", "missing_client_fills"),
    "networks": ("missing_networks",),
}
"""Marked place -> the sweeps whose runs stand in it."""

Key = tuple[str, str, float, float, str]
"""Network, what masks are drawn for, rate, modality dropout, rule."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where the sweeps are.")
    options = parser.parse_args()
    text = PAGE.read_text(encoding="utf-8")
    for corpus, (name, sweeps) in product(CORPORA, TABLES.items()):
        folders = [options.runs / corpus / sweep for sweep in sweeps]
        trials = [path.parent for folder in folders for path in folder.glob("*/result.json")]
        rows: dict[Key, dict[int, Run]] = {}
        for run in collect(sorted(trials), "last").runs if trials else ():
            if wanted(name, key_of(run)):
                rows.setdefault(key_of(run), {})[run.seed] = run
        if rows:
            text = replace(PAGE, text, f"{name} {corpus}", "\n".join(lines(rows)))
    save(PAGE, text)
    return 0


def key_of(run: Run) -> Key:
    """What distinguishes the rows."""
    condition = run.config["conditions"]["init_args"]
    rule, given = run.result["aggregator"], run.config["aggregator"].get("init_args", {})
    return (
        run.result["network"],
        condition["by"],
        float(condition["severity"]),
        float(run.config["local"]["modality_dropout"]),
        f"{rule}, {given['fill']}" if "fill" in given else rule,
    )


def wanted(table: str, key: Key) -> bool:
    """Does a row stand in a table, of those that its sweeps have?"""
    _, _, rate, dropout, rule = key
    if table == "rules":
        return dropout == 0
    if table == "fills":
        return dropout == 0 and rate == 0.6 and rule != "Distance"
    return True


def lines(rows: Mapping[Key, Mapping[int, Run]]) -> Iterator[str]:
    """A line a row: weighted F1 on test in points with every subset, and against FedAvg."""
    names = list(next(iter(next(iter(rows.values())).values())).subset_votes)
    without = names[0].partition("+")[2]  # all but the first, which is text
    yield (
        f"| network | by | rate | dropout | rule | seeds | {' | '.join(names)} "
        f"| all, against FedAvg | {without}, against FedAvg |"
    )
    yield "|---|---|--:|--:|---|--:|" + "--:|" * (len(names) + 2)
    for key in sorted(rows, key=lambda key: (key[:4], key[4] != "FedAvg", key[4])):
        network, by, rate, dropout, rule = key
        runs = list(rows[key].values())
        scores = [subset_scores(run.subset_votes) for run in runs]
        cells = [spread([100 * one[name].weighted_f1 for one in scores]) for name in names]
        base = rows.get((network, by, rate, 0.0, "FedAvg"), {})
        first = key == (network, by, rate, 0.0, "FedAvg")
        moved = ["" if first else against(rows[key], base, name) for name in (names[0], without)]
        head = [network, by, f"{rate:g}", f"{dropout:g}", rule, str(len(runs))]
        yield f"| {' | '.join([*head, *cells, *moved])} |"


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds."""
    mean = f"{statistics.mean(values):.1f}"
    return f"{mean} ± {statistics.stdev(values):.1f}" if len(values) > 1 else mean


def against(row: Mapping[int, Run], base: Mapping[int, Run], name: str) -> str:
    """The difference over the seeds that both have, with its interval; a star if that is clear."""
    pairs = [
        tuple(one[seed].subset_votes[name].by_dialogue()[1] for one in (row, base))
        for seed in sorted(row.keys() & base.keys())
    ]
    if not pairs:
        return ""
    found = paired_bootstrap([(mine, other) for mine, other in pairs])[1]
    assert found.low is not None
    assert found.high is not None
    star = " *" if found.clear else ""
    interval = f"[{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{100 * found.difference:+.1f} {interval}{star}"


if __name__ == "__main__":
    raise SystemExit(main())
