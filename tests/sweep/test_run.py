"""The runner, on commands that cost nothing: what is run, skipped, stopped and reported."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedmer.__main__ import main
from fedmer.sweep.store import SCORES

SCRIPT = """
import pathlib, sys, time
number = int(sys.argv[1].partition("=")[2])
with open("started", "a") as file:
    print(number, file=file)
"""


def sweep(here: Path, script: str, values: list[Any], *more: str) -> Path:
    """A sweep over x that runs a Python script in the current folder."""
    (here / "trial.py").write_text(SCRIPT + script)
    path = here / "s.yaml"
    content = {
        "method": "grid",
        "parameters": {"x": {"values": values}},
        "command": [sys.executable, "trial.py", "${args}", *more],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def started(here: Path) -> list[int]:
    path = here / "started"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def table(here: Path) -> list[dict[str, str]]:
    with (here / "runs" / "s" / "trials.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_failing_trial_is_reported_and_the_others_finish(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, "if number == 1: print('first'); sys.exit('it [broke]')", [0, 1, 2])
    assert main(["sweep", str(path)]) == 1
    out = capsys.readouterr().out
    assert "failed x=1 in " in out
    assert "(exit code 1): it [broke]" in out
    assert "1 of 3 trials failed" in out
    rows = table(here)
    assert [row["trial"] for row in rows] == ["x=0", "x=1", "x=2"]
    assert [row["status"] for row in rows] == ["finished", "failed", "finished"]
    assert [row["exit_code"] for row in rows] == ["0", "1", "0"]
    assert [row["x"] for row in rows] == ["0", "1", "2"]
    assert (here / "runs" / "s" / "x=1.log").read_text().splitlines()[-2:] == [
        "first",
        "it [broke]",
    ]


def test_finished_trials_are_skipped_and_failed_ones_tried_again(here: Path) -> None:
    path = sweep(here, "assert number != 1 or pathlib.Path('mended').exists()", [0, 1, 2])
    assert main(["sweep", str(path)]) == 1
    (here / "mended").touch()
    assert main(["sweep", str(path)]) == 0
    assert started(here) == [0, 1, 2, 1]
    assert {row["status"] for row in table(here)} == {"finished"}
    assert main(["sweep", str(path)]) == 0
    assert started(here) == [0, 1, 2, 1]


def test_new_values_add_trials(here: Path) -> None:
    assert main(["sweep", str(sweep(here, "", [0, 1]))]) == 0
    assert main(["sweep", str(sweep(here, "", [0, 1, 5]))]) == 0
    assert started(here) == [0, 1, 5]


def test_a_finished_trial_is_not_taken_for_another(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, "", [0, 1])
    assert main(["sweep", str(path), "--", "--data.path", "a.npz"]) == 0
    before = {p: p.read_bytes() for p in here.rglob("*") if p.is_file()}
    assert main(["sweep", str(path), "--", "--data.path", "b.npz"]) == 2
    said = capsys.readouterr().err
    assert "x=0 is a finished trial, but it had 'a.npz' where it now has 'b.npz'" in said
    assert {p: p.read_bytes() for p in here.rglob("*") if p.is_file()} == before


def test_a_finished_trial_whose_configuration_file_has_changed_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "base.yaml").write_text("a: 1")
    path = sweep(here, "", [0, 1], "--config=base.yaml")
    assert main(["sweep", str(path)]) == 0
    (here / "base.yaml").write_text("a: 2")
    assert main(["sweep", str(path)]) == 2
    assert "finished trial, but base.yaml has changed since" in capsys.readouterr().err


def test_an_unfinished_trial_may_change(here: Path) -> None:
    assert main(["sweep", str(sweep(here, "sys.exit(len(sys.argv) < 3)", [0]))]) == 1
    assert main(["sweep", str(sweep(here, "sys.exit(len(sys.argv) < 3)", [0], "more"))]) == 0


def test_two_jobs_run_at_a_time(here: Path) -> None:
    together = """
deadline = time.monotonic() + 30
while len(open("started").read().split()) < 2:
    assert time.monotonic() < deadline
    time.sleep(0.01)
"""
    assert main(["sweep", str(sweep(here, together, [0, 1])), "--jobs", "2"]) == 0
    assert sorted(started(here)) == [0, 1]


def test_list_prints_the_commands_and_runs_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, "", [0, 1])
    assert main(["sweep", str(path), "--list", "--", "--y", "a b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{sys.executable} trial.py --x={x} --y 'a b'" for x in (0, 1)]
    assert not (here / "runs").exists()


def test_list_names_the_folder_of_a_run_of_fedmer(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, "", [1])
    path.write_text(path.read_text().replace(sys.executable, "fedmer").replace("trial.py", "fit"))
    logger = ["--trainer.logger", "WandbLogger"]
    assert main(["sweep", str(path), "--runs", "mine", "--list", "--", *logger]) == 0
    assert capsys.readouterr().out.strip() == (
        "fedmer fit --x=1 --trainer.logger WandbLogger --trainer.logger.save_dir=mine/s "
        "--runs mine/s --name trial"
    )


def test_trials_log_to_wandb_offline_in_one_group(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import os
pathlib.Path("seen").write_text("\\n".join(f"{k}={v}" for k, v in os.environ.items()))
"""
    monkeypatch.delenv("WANDB_MODE", raising=False)
    path = sweep(here, script, [0, 1])
    path.write_text(path.read_text() + "name: my sweep\nproject: emotions\n")
    assert main(["sweep", str(path)]) == 0
    seen = (here / "seen").read_text().splitlines()
    for line in ("MODE=offline", "RUN_GROUP=my sweep", "NAME=x=1", "DIR=runs/my_sweep"):
        assert f"WANDB_{line}" in seen
    assert "WANDB_PROJECT=emotions" in seen
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert main(["sweep", str(path), "--runs", "again"]) == 0
    assert "WANDB_MODE=disabled" in (here / "seen").read_text().splitlines()


def test_a_program_that_is_not_there_is_a_sentence(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, "", [0])
    path.write_text(path.read_text().replace(sys.executable, "no-such-program"))
    assert main(["sweep", str(path)]) == 2
    assert "there is no program 'no-such-program'" in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_a_damaged_record_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = sweep(here, "", [0, 1])
    assert main(["sweep", str(path)]) == 0
    (here / "runs" / "s" / "x=0.json").write_text("{")
    assert main(["sweep", str(path)]) == 2
    assert "x=0.json is not what a sweep wrote; delete it" in capsys.readouterr().err


def test_the_columns_are_the_scores_of_a_run() -> None:
    from fedmer.metrics import TOTALS

    assert tuple(TOTALS) == SCORES


SLEEPER = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(f"pids-{number}").write_text(f"{os.getpid()} {child.pid}")
time.sleep(600)
"""


def gone(pid: int) -> bool:
    """Has a process ended, or at least died?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_sweep_leaves_no_process_and_goes_on(
    here: Path, stop: signal.Signals, code: int
) -> None:
    path = sweep(here, "import os\n" + SLEEPER, [0, 1, 2])
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmer", "sweep", str(path), "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while len(list(here.glob("pids-*"))) < 2 or not all(p.read_text() for p in here.glob("pids-*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    _, error = process.communicate(timeout=60)
    assert process.returncode == code, error
    assert f"Stopped. Go on with\n  fedmer sweep {path} --jobs 2" in error
    pids = [int(pid) for p in here.glob("pids-*") for pid in p.read_text().split()]
    assert len(pids) == 4
    assert all(map(gone, pids))
    assert [row["status"] for row in table(here)] == ["interrupted", "interrupted", "waiting"]

    assert os.getpid() not in pids
    (here / "trial.py").write_text(SCRIPT)
    assert main(["sweep", str(path)]) == 0
    assert sorted(started(here)) == [0, 0, 1, 1, 2]


def test_two_sweeps_do_not_share_a_folder(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = f"""
import subprocess
done = subprocess.run([{sys.executable!r}, "-m", "fedmer", "sweep", "s.yaml"], capture_output=True)
assert done.returncode == 2, done
assert b"another sweep is at work there" in done.stderr, done
"""
    assert main(["sweep", str(sweep(here, second, [0]))]) == 0
    assert started(here) == [0]
