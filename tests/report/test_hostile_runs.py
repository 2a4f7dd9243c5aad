"""A run folder from anybody is reported or a sentence names its file; nothing else happens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.record.rows import as_csv, restart_rows
from tests.report.made import make_run

COLUMNS = ("round", "name", "weight")
LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def folder(name: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).mkdir()

    return change


def entry(*path: str, value: Any) -> Callable[[Path], None]:
    """Set an entry of result.json; ``...`` removes it."""

    def change(run: Path) -> None:
        result = json.loads((run / "result.json").read_text())
        inner = result
        for key in path[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value
        (run / "result.json").write_text(json.dumps(result))

    return change


def cell(name: str, column: str, value: str) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        first, second, *rest = (run / name).read_text().splitlines()
        cells = second.split(",")
        cells[first.split(",").index(column)] = value
        (run / name).write_text("\n".join([first, ",".join(cells), *rest]))

    return change


def arrays(name: str, **changes: Any) -> Callable[[Path], None]:
    def change(run: Path) -> None:
        own = dict(np.load(run / name)) if (run / name).exists() else {}
        own |= {key.replace("__", "."): value for key, value in changes.items()}
        np.savez(run / name, **own)

    return change


SCORES = ("selected", "scores", "test")
HOSTILE = {
    "deep": (written("result.json", "[" * 100_000), "result.json is nested too deeply"),
    "bytes": (written("result.json", b"\xff\xfe{}"), "result.json is not JSON"),
    "nan": (written("result.json", '{"seed": NaN}'), "NaN is not a number"),
    "digits": (written("result.json", '{"seed": ' + "9" * 5000 + "}"), "result.json is not JSON"),
    "huge": (written("result.json", " " * 16_000_001), "has more than 16000000 bytes"),
    "folder": (folder("result.json"), "result.json is not a file"),
    "text": (written("result.json", '"x"'), "the whole is 'x', not a mapping"),
    "seed": (entry("seed", value="0"), "seed is '0', not a whole number"),
    "seed2": (entry("seed", value=2**70), "seed is"),
    "flag": (entry("personal", value="no"), "personal is 'no', not true or false"),
    "rule": (entry("aggregator", value=["FedAvg"]), "aggregator is"),
    "labels": (entry("data", "labels", value=3), "data.labels is '3', not a list"),
    "labels2": (entry("data", "labels", value=[["a"]] * 6), "data.labels is"),
    "half": (entry("data", "labels", value=["\ud800", "b", "c", "d", "e", "f"]), "is no name"),
    "no round": (entry("selected", "round", value=...), "selected has no 'round'"),
    "no scores": (entry(*SCORES, "accuracy", value=...), "has no 'accuracy'"),
    "score": (entry(*SCORES, "weighted_f1", value=[1]), "selected.scores.test.weighted_f1 is"),
    "score2": (entry(*SCORES, "accuracy", value=10**400), "not a number"),
    "matrix": (entry(*SCORES, "confusion", value=[[1]]), "is no matrix of the 6 emotions"),
    "count": (entry(*SCORES, "confusion", value=[[-1] * 6] * 6), "confusion is '-1', not a whole"),
    "nothing": (entry(*SCORES, "confusion", value=[[0] * 6] * 6), "confusion counts nothing"),
    "baseline": (entry("baselines", "probe", value=4), "baselines.probe is '4', not a mapping"),
    "holdout": (entry("holdouts", "client 0", value={}), "holdouts.client 0 has no 'accuracy'"),
    "no bytes": (entry("bytes_up", value=...), "result has no 'bytes_up'"),
    "tag": (written("config.yaml", "a: !!python/object/apply:os.system [id]"), "the tag"),
    "laughs": (written("config.yaml", LAUGHS), "stands for more than"),
    "key": (written("config.yaml", "a: [{1: b, c: d}]"), "has a name that is no text"),
    "number": (written("config.yaml", "a: 0x" + "f" * 9000), "number of thousands of digits"),
    "config": (folder("config.yaml"), "config.yaml is a folder"),
    "no column": (written("metrics.csv", "round\n1\n"), "bytes_down: row 1 has no such column"),
    "field": (written("metrics.csv", "round\n" + "1" * 200_000), "metrics.csv is damaged"),
    "quote": (written("metrics.csv", 'round\n"1'), "metrics.csv is damaged"),
    "null": (written("metrics.csv", b"round\n\x00\n"), "metrics.csv is damaged"),
    "utf-16": (written("metrics.csv", "round\n1\n".encode("utf-16")), "metrics.csv is damaged"),
    "twice": (written("metrics.csv", "round,round\n1,1\n"), "a column occurs twice"),
    "bytes sent": (cell("metrics.csv", "bytes_up", "1e3"), "bytes_up is '1e3' in row 1"),
    "round": (cell("metrics.csv", "round", "9" * 5000), "round is '9999"),
    "weight": (cell("clients.csv", "weight", "nan"), "weight is 'nan' in row 1"),
    "client": (cell("clients.csv", "client", "-1"), "client is '-1' in row 1"),
    "pairs": (
        written(
            "clients.csv",
            "round,client,examples,weight\n" + "".join(f"{n},{n},1,1\n" for n in range(5000)),
        ),
        "clients.csv has 25000000 pairs",
    ),
    "votes": (arrays("test_votes.npz", votes_selected=np.ones((2, 6), int)), "'dialogue' is <U"),
    "classes": (arrays("test_votes.npz", votes_selected=np.ones((2, 5))), "test_votes.npz:"),
    "truth": (arrays("test_votes.npz", truth=np.array(3)), "'truth' is int64 of shape ()"),
    "objects": (
        arrays("test_votes.npz", truth=np.array([None], dtype=object)),
        "'truth' is an array of Python objects",
    ),
    "no rounds": (arrays("prototypes.npz", prototypes__a=np.ones((1, 6, 2))), "has no 'rounds'"),
    "unknown": (
        arrays("prototypes.npz", rounds=np.ones(1, int), prototypes__a=np.ones((1, 6, 2))),
        "'prototypes.a' is float64 of shape (1, 6, 2), no prototypes of 1 rounds",
    ),
    "infinite": (
        arrays(
            "prototypes.npz",
            rounds=np.ones(1, int),
            prototypes__a=np.full((1, 6, 2), np.inf),
            known__a=np.ones((1, 6), bool),
        ),
        "'prototypes.a' holds NaN or infinity",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("sound") / "a")


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_wrong_with_a_run_is_a_sentence(
    sound: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    change, said = HOSTILE[name]
    run = make_run(tmp_path / "b", aggregator="Local")
    change(run)
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(sound), str(run), "--out", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error
    assert str(run) in error
    assert sorted(tmp_path.rglob("*")) == before


TABLES = {
    "a row of more cells": "row,accuracy\na,1,2\n",
    "a column twice": "row,row\na,1\n",
    "an enormous field": "row\n" + "x" * 200_000 + "\n",
    "a null": "row\n\0\n",
    "a number of many digits": "row,support_a,accuracy_a,f1_a,accuracy,weighted_f1\n"
    + "x,"
    + "9" * 400
    + ",1,1,1,1\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_an_odd_table_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "table.csv").write_text(TABLES[name])
    assert main(["report", "--audit", str(tmp_path / "table.csv")]) == 2
    assert "table.csv" in capsys.readouterr().err


@given(st.data())
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
def test_a_row_cut_anywhere_is_forgotten_when_a_run_goes_on(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """A kill can end a file within a quoted name, or within one of its letters."""
    path = tmp_path_factory.mktemp("cut") / "clients.csv"
    rows = [{"round": n, "name": 'Zoë, "the second"', "weight": 0.5} for n in (1, 2, 3)]
    path.write_text(as_csv(COLUMNS, rows), encoding="utf-8")
    whole = path.read_bytes()
    second = whole.index(b"\n3,") + 1
    path.write_bytes(whole[: data.draw(st.integers(second, len(whole) - 1))])
    restart_rows(path, COLUMNS, 2)
    assert path.read_text(encoding="utf-8") == as_csv(COLUMNS, rows[:2])
