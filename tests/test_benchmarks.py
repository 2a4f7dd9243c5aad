"""Every benchmark runs at a tiny size, and says what it is there to say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.slow


def run(script: str, *options: str) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / f"{script}.py", *options],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    return done.stdout


def rows(page: str, start: str) -> list[list[str]]:
    """Cells of the table rows whose first cell starts so."""
    lines = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("|")]
    return [cells for cells in lines if cells[0].startswith(start)]


def test_a_step_is_compared_with_the_padded_one() -> None:
    page = run("bench_step", "--hidden", "16", "--threads", "1", "--repeats", "2", "--busy")
    (row,) = rows(page, "16")
    assert float(row[4].split()[0]) > 0


def test_a_step_with_noise_is_compared_with_a_plain_one() -> None:
    sizes = ("--networks", "EarlyFusion", "SDT", "--hidden", "16", "--repeats", "2")
    page = run("bench_privacy", *sizes, "--busy")
    found = {row[0]: row for row in rows(page, "EarlyFusion") + rows(page, "SDT")}
    assert {name: row[2] for name, row in found.items()} == {
        "EarlyFusion": "together",
        "SDT": "one by one",
    }
    assert all(float(row[5].split()[0]) > 0 for row in found.values())


def test_a_round_is_compared_with_a_bare_loop() -> None:
    sizes = ("--workloads", "MLP", "--cohorts", "3x2x20", "--rounds", "1", "--repeats", "2")
    found = {row[2]: row for row in rows(run("bench_round", *sizes, "--busy"), "MLP")}
    ours = {"bare loop", "Inline", "Inline, under Lightning's Trainer", "Workers(2)", "Stacked"}
    assert ours <= found.keys()
    assert all(float(row[3]) > 0 for row in found.values())


def test_growth_has_exponents() -> None:
    page = run("bench_scale", "--axes", "modalities", "--short", "--busy")
    assert [len(row) for row in rows(page, "modalities")] == [4, 4, 3]
    assert {row[0] for row in rows(page, "FedAvg") + rows(page, "Distance")} == {
        "FedAvg",
        "Distance",
    }


def test_the_papers_experiment_runs_on_whatever_device_is_there() -> None:
    sizes = ("--features", "8", "--hidden", "16", "--clients", "3", "--dialogues", "12")
    page = run("bench_gpu", *sizes, "--rounds", "1", "--epochs", "1", "--busy")
    found = {name: rows(page, name)[0] for name in ("float32", "TF32", "bfloat16")}
    losses = [float(row[-1]) for row in found.values()]
    # The same work at every precision, to its precision.
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.02)


def test_start_up_is_measured() -> None:
    found = {row[0]: row for row in rows(run("bench_start", "--repeats", "1", "--busy"), "fedmer")}
    assert len(found) == 3
    assert all(float(row[1]) > 0 for row in found.values())


def test_every_rule_is_beside_fed_avg() -> None:
    sizes = ("--clients", "2", "--hidden", "16", "--width", "8", "--repeats", "1")
    found = {cells[0]: cells for cells in rows(run("bench_rules", *sizes, "--busy"), "")}
    assert {"FedAvg", "Distance", "Analytic", "SCAFFOLD"} <= found.keys()
    assert found["FedAvg"][3].startswith("1.00")
