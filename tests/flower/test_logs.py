"""Logs of a federation have one form, and an end."""

import io
import re
import sys
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, RecordDict

from fedmer.flower.deploy import logs
from fedmer.flower.deploy.logs import Lines, announce, write_log
from fedmer.flower.deploy.processes import Kept, flower_environment
from fedmer.flower.node.resident import _said
from fedmer.flower.records import put_failure

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) .*\S")
PRINTED = """\
\x1b[92mINFO \x1b[0m:      Starting Flower SuperLink
\x1b[92mINFO \x1b[0m:      \n
2026-11-26T01:01:36.979Z INFO [uvicorn.error] Application startup complete.
INFO:     Application startup complete.
\x1b[93mWARNING \x1b[0m:   Connection attempt failed
Traceback (most recent call last):
  File "x.py", line 1
ValueError: no
\x1b[91mERROR \x1b[0m:     It ended
Successfully installed fedmer
"""


def test_whatever_is_printed_gets_a_time_and_its_level(tmp_path: Path) -> None:
    write_log(tmp_path / "log", io.BytesIO(PRINTED.encode()))
    written = (tmp_path / "log").read_text().splitlines()
    assert all(map(LINE.fullmatch, written))
    assert [line.partition("Z ")[2] for line in written] == [
        "INFO Starting Flower SuperLink",
        "INFO Application startup complete.",
        "INFO Application startup complete.",
        "WARNING Connection attempt failed",
        "ERROR Traceback (most recent call last):",
        'ERROR   File "x.py", line 1',
        "ERROR ValueError: no",
        "ERROR It ended",
        "INFO Successfully installed fedmer",
    ]


def test_an_announcement_is_a_line_of_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    announce("node-0 is connected")
    assert LINE.fullmatch(capsys.readouterr().out.removesuffix("\n"))


def test_a_long_log_is_put_aside_and_old_ones_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "LARGEST", 1000)
    write_log(tmp_path / "log", [b"line %d\n" % number for number in range(1000)])
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == ["log", "log.1", "log.2", "log.3"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())
    assert "line 999" in (tmp_path / "log").read_text()


def test_news_of_a_process_are_its_whole_lines_once(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of the last time\n")
    script = "print('one'); print('two', end='')"
    environment = flower_environment(tmp_path, "localhost")
    with Kept([sys.executable, "-c", script], environment, tmp_path / "log") as kept:
        while kept.exit_code is None:
            pass
        assert [line.partition("INFO ")[2] for line in kept.news()] == ["one", "two"]
        assert kept.news() == []


def test_a_worker_says_what_it_was_asked_and_what_came_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    asked = RecordDict({"round": ConfigRecord({"round": 2})})
    refusal = RecordDict()
    put_failure(refusal, "its corpus\nhas \x1b[2J other emotions")
    _said("fit", asked, RecordDict)
    _said("score", asked, RecordDict)
    # What the server sends has not been checked when this is said.
    _said("describe", RecordDict({"round": ConfigRecord({"round": "x"})}), lambda: refusal)
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert said == [
        ("INFO", "round 3: fit begins, 0 kB came"),
        ("INFO", "round 3: fit done in 0.0 s, 0 kB go back"),
        ("INFO", "round 2: score begins, 0 kB came"),
        ("INFO", "round 2: score done in 0.0 s, 0 kB go back"),
        ("INFO", "describe begins, 0 kB came"),
        ("WARNING", r"describe refused after 0.0 s: its corpus\nhas \x1b[2J other emotions"),
    ]
    assert Lines().read("WARNING : round 3: fit refused") == ("WARNING", "round 3: fit refused")
