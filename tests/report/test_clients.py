"""How evenly rows serve clients: gains over a baseline, the worst, and intervals over seeds."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import pytest

from fedmer.report.clients import client_table
from fedmer.report.collect import collect
from fedmer.report.report import make_report
from tests.report.made import make_run


def run_with(folder: Path, seed: int, rule: str, scores: Mapping[str, tuple[float, int]]) -> None:
    """A run whose clients have these weighted F1 on so many utterances."""
    make_run(folder, seed, rule)
    path = folder / "result.json"
    result = json.loads(path.read_text())
    totals = next(iter(result["holdouts"].values()))
    result["holdouts"] = {
        name: {**totals, "weighted_f1": score, "examples": count}
        for name, (score, count) in scores.items()
    }
    path.write_text(json.dumps(result))


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Ann gains under both seeds, Bo under one, Cy loses; Di has too few utterances to say."""
    alike = {"Ann": (0.5, 20), "Bo": (0.6, 20), "Cy": (0.7, 20), "Di": (0.1, 9), "Ed": (0.2, 20)}
    personal = [
        {"Ann": (0.6, 20), "Bo": (0.7, 20), "Cy": (0.6, 20), "Di": (0.9, 9), "Ed": (0.9, 30)},
        {"Ann": (0.7, 20), "Bo": (0.6, 20), "Cy": (0.52, 20), "Di": (0.9, 9), "Ed": (0.9, 30)},
    ]
    for seed, scores in enumerate(personal):
        run_with(tmp_path / f"avg{seed}", seed, "FedAvg", alike)
        run_with(tmp_path / f"per{seed}", seed, "FedPer", scores)
    made = make_report(collect([tmp_path]), None)
    table = client_table(made.rows, made.differences)
    (tmp_path / "clients.csv").write_text(table.csv())
    (tmp_path / "clients.md").write_text(table.grid.markdown())
    return tmp_path


def lines_of(path: Path) -> dict[str, list[str]]:
    rows = [[cell.strip() for cell in s.split("|")[1:-1]] for s in path.read_text().splitlines()]
    return {row[0]: row for row in rows[2:]}


def test_gains_are_of_the_same_client_seed_and_utterances(report: Path) -> None:
    with (report / "clients.csv").open() as file:
        rows = list(csv.DictReader(file))
    gains = {(r["row"], r["seed"], r["client"]): r["gain"] for r in rows}
    assert gains["FedPer", "0", "Ann"] == "10.0000"
    assert gains["FedPer", "1", "Cy"] == "-18.0000"
    assert gains["FedPer", "0", "Di"] == "", "a holdout of nine utterances says nothing"
    assert gains["FedPer", "0", "Ed"] == "", "other utterances than the baseline's"
    assert not any(gain for (row, _, _), gain in gains.items() if row == "FedAvg")


def test_the_table_has_means_and_intervals_over_seeds(report: Path) -> None:
    """Half an interval of two seeds is 12.71 times half of what lies between them."""
    lines = lines_of(report / "clients.md")
    _, clients, mean, worst, best, _, gain, share, named, small = lines["FedPer"]
    means = [fmean([60, 70, 60, 90, 90]), fmean([70, 60, 52, 90, 90])]
    assert (clients, small) == ("5", "1")
    assert mean == f"{fmean(means):.1f} \u00b1 {12.71 * (means[0] - means[1]) / 2:.1f}"
    assert worst == f"56.0 \u00b1 {12.71 * 8 / 2:.1f}"
    assert best == "90.0 \u00b1 0.0"
    assert gain == f"+2.0 \u00b1 {12.71 * (8 / 3) / 2:.1f}"
    assert share == f"50.0 \u00b1 {12.71 * (100 / 3) / 2:.1f}"
    assert named.endswith("(20 utterances)")
    assert lines["FedAvg"][6:8] == ["", ""], "the baseline gains nothing over itself"
