"""Which runs make a row, what rows are called, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedmer.__main__ import main
from fedmer.report.collect import collect
from fedmer.report.grouping import rows_of
from fedmer.report.report import make_report
from fedmer.report.scores import lines_of
from tests.report.made import make_run, predictions


def names(folder: Path) -> list[str]:
    return [row.name for row in rows_of(collect([folder]).runs)[0]]


def test_seeds_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    for seed in (1, 0):
        make_run(tmp_path / f"a{seed}", seed, options={"mu": 0.1})
    make_run(tmp_path / "b", 0, "Local")
    make_run(tmp_path / "c", 1, options={"mu": 0.1})
    rows, notes = rows_of(collect([tmp_path]).runs)
    assert [(row.name, row.seeds) for row in rows] == [("FedAvg", [0, 1]), ("Local", [0])]
    assert notes == ["c has the configuration and seed of a1 and is left out."]


def test_where_and_how_a_run_ran_makes_no_row(tmp_path: Path) -> None:
    for seed, key, value in ((0, "runs", "here"), (1, "executor", {"threads": 2})):
        path = make_run(tmp_path / f"a{seed}", seed) / "config.yaml"
        path.write_text(path.read_text() + f"{key}: {json.dumps(value)}\n")
    assert names(tmp_path) == ["FedAvg"]


def test_rows_of_one_name_say_what_differs(tmp_path: Path) -> None:
    for number, mu in enumerate([0.1, 1.0]):
        make_run(tmp_path / f"a{number}", aggregator="FedProx", options={"mu": mu, "other": 3})
    make_run(tmp_path / "z", aggregator="Local")
    assert names(tmp_path) == ["FedProx, mu=0.1", "FedProx, mu=1", "Local"]


def test_an_option_that_most_rows_share_is_said_of_the_others_only(tmp_path: Path) -> None:
    for number, (mu, kind) in enumerate([(1.0, "a"), (1.0, "b"), (2.0, "a"), (1.0, "a")]):
        options = {"mu": mu, "kind": kind, "weight": 0 if number == 3 else 1}
        make_run(tmp_path / f"r{number}", aggregator="Distance", options=options)
    assert names(tmp_path) == [
        "Distance",
        "Distance, kind=b",
        "Distance, mu=2",
        "Distance, weight=0",
    ]


def test_another_class_makes_another_row(tmp_path: Path) -> None:
    chosen = {"All": {}, "Uniform": {"fraction": 0.5}, "Largest": {}}
    for seed in (0, 1):
        for name, arguments in chosen.items():
            path = make_run(tmp_path / f"{name}{seed}", seed) / "config.yaml"
            selector = {"selector": {"class_path": f"x.{name}", "init_args": arguments}}
            path.write_text(path.read_text() + json.dumps(selector)[1:-1] + "\n")
    rows, notes = rows_of(collect([tmp_path]).runs)
    assert notes == []
    assert {row.name: row.seeds for row in rows} == {
        "FedAvg, selector=All": [0, 1],
        "FedAvg, selector=Largest": [0, 1],
        "FedAvg, selector=Uniform": [0, 1],
    }


def chosen(name: str, **options: object) -> dict[str, object]:
    return {"class_path": f"x.{name}", "init_args": options}


def test_a_name_says_what_makes_a_row_another_task_and_noise_is_no_baseline(tmp_path: Path) -> None:
    noise, cut = chosen("GaussianNoise", multiplier=0.5), chosen("ClipNorm", norm=1.0)
    made: list[tuple[str, str, dict[str, object]]] = [
        ("a", "FedAvg", {"privacy": [cut, noise]}),
        ("b", "FedAvg", {}),
        ("c", "Distance", {"conditions": chosen("LabelFlip", fraction=0.4)}),
        ("d", "FedAvg", {"conditions": chosen("LabelFlip", fraction=0.4)}),
        ("e", "Distance", {"privacy": cut}),
    ]
    for name, rule, extra in made:
        path = make_run(tmp_path / name, aggregator=rule) / "config.yaml"
        both = {"privacy": None, "conditions": None} | extra
        path.write_text(path.read_text() + yaml.safe_dump(both))
    report = make_report(collect([tmp_path]), None)
    assert [row.name for row in report.rows] == [
        "FedAvg, privacy=ClipNorm+GaussianNoise",
        "FedAvg",
        "Distance, conditions=LabelFlip",
        "FedAvg, conditions=LabelFlip",
        "Distance, privacy=ClipNorm",
    ]
    assert {one.row: one.baseline for one in report.differences} == {
        "FedAvg, privacy=ClipNorm+GaussianNoise": "FedAvg",
        "Distance, conditions=LabelFlip": "FedAvg, conditions=LabelFlip",
        "Distance, privacy=ClipNorm": "FedAvg",
    }


@pytest.mark.parametrize("baseline", [None, "FedAvg"])
def test_what_conditions_cost_is_seen_beside_a_row_without_them(
    tmp_path: Path, baseline: str | None
) -> None:
    for name, conditions in (("a", chosen("LabelFlip")), ("b", None), ("c", chosen("SignFlip"))):
        path = make_run(tmp_path / name) / "config.yaml"
        path.write_text(path.read_text() + yaml.safe_dump({"conditions": conditions}))
    report = make_report(collect([tmp_path]), baseline)
    assert {one.row: one.baseline for one in report.differences} == {
        "FedAvg, conditions=LabelFlip": "FedAvg",
        "FedAvg, conditions=SignFlip": "FedAvg",
    }


def test_trials_of_a_sweep_are_called_by_what_it_varied(tmp_path: Path) -> None:
    lines = ["trial,status,exit_code,seconds,config,seed_everything,rounds,selected_round"]
    for number, variant in enumerate(["full", "no_scores", "no_scores"]):
        options = {"scores": variant}
        make_run(tmp_path / f"t{number}", seed=number, aggregator="Distance", options=options)
        lines.append(f"t{number},finished,0,1.5,sweeps/{variant}.yaml,{number},2,2")
    (tmp_path / "trials.csv").write_text("\n".join(lines) + "\n")
    rows, _ = rows_of(collect([tmp_path]).runs)
    assert [(row.name, row.seeds) for row in rows] == [("full", [0]), ("no_scores", [1, 2])]


def test_many_networks_of_one_run_count_its_turns_once(tmp_path: Path) -> None:
    make_run(tmp_path / "own", aggregator="Local", networks=[predictions(0.4, s) for s in range(3)])
    make_run(tmp_path / "one")
    lines = {line.name: line for line in lines_of(rows_of(collect([tmp_path]).runs)[0])}
    assert lines["Local"].personal
    assert not lines["FedAvg"].personal
    assert lines["Local"].support == lines["FedAvg"].support == lines["majority class"].support


def test_the_last_round_is_shown_on_request_and_where_none_was_selected(tmp_path: Path) -> None:
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", aggregator="Local", selected=False)
    found = collect([tmp_path])
    assert [run.which for run in found.runs] == ["selected", "last"]
    assert found.notes == ["No round of b was selected by validation; its last is shown."]
    assert [run.which for run in collect([tmp_path], "last").runs] == ["last", "last"]


def test_unfinished_runs_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a")
    (make_run(tmp_path / "b", seed=1) / "result.json").unlink()
    assert main(["report", str(tmp_path)]) == 0
    assert "Not finished and left out: b." in capsys.readouterr().out
    assert main(["report", str(tmp_path / "b")]) == 2
    assert "There is no finished run in" in capsys.readouterr().err


def spoil(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    result = json.loads((path / "result.json").read_text())
    change(result)
    (path / "result.json").write_text(json.dumps(result))


@pytest.mark.parametrize(
    ("spoiler", "said"),
    [
        (
            lambda path: spoil(path, lambda r: r["data"].update(name="other", fingerprint="ff")),
            "is of made (0123456789abcdef) and",
        ),
        (
            lambda path: spoil(path, lambda r: r["data"].update(name="other", fingerprint="ff")),
            "of other (ff); a table compares runs of one corpus",
        ),
        (
            lambda path: spoil(path, lambda r: r["data"].update(fingerprint="ff")),
            "of made (ff); a table compares runs of one corpus",
        ),
        (
            lambda path: spoil(
                path, lambda r: r["selected"]["scores"]["test"].update(accuracy=0.99)
            ),
            "contradicts itself: accuracy is 0.990000, but its confusion matrix gives",
        ),
        (lambda path: spoil(path, lambda r: r.pop("data")), "(result has no 'data')"),
        (lambda path: (path / "result.json").write_text("{"), "result.json is not JSON"),
        (lambda path: (path / "result.json").write_text("[]"), "cannot be read as the result"),
        (
            lambda path: (path / "test_votes.npz").write_text("x"),
            "votes.npz is not a whole",
        ),
        (lambda path: (path / "prototypes.npz").write_text("x"), "prototypes.npz is not a whole"),
        (lambda path: (path / "metrics.csv").write_text("round\nx\n"), "metrics.csv is damaged"),
        (lambda path: (path / "metrics.csv").write_text("a\n1\n"), "metrics.csv is damaged"),
        (
            lambda path: (path / "clients.csv").write_text("round,weight\n1\n"),
            "clients.csv is",
        ),
    ],
)
def test_what_cannot_be_compared_or_read_is_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoiler: Callable[[Path], object],
    said: str,
) -> None:
    make_run(tmp_path / "a")
    spoiler(make_run(tmp_path / "b", aggregator="Local"))
    before = sorted(tmp_path.rglob("*"))
    assert main(["report", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error
    assert sorted(tmp_path.rglob("*")) == before


def test_other_test_turns_of_one_corpus_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run(tmp_path / "a")
    path = make_run(tmp_path / "b", aggregator="Local")

    def fewer(result: dict[str, Any]) -> None:
        matrix = [[5, 0, 0, 0, 0, 0], *[[0] * 6] * 5]
        result["selected"]["scores"]["test"] = {
            "accuracy": 1.0,
            "weighted_f1": 1.0,
            "confusion": matrix,
        }

    spoil(path, fewer)
    assert main(["report", str(tmp_path)]) == 2
    assert "were scored on different test utterances" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "'fedmer report' needs runs"),
        (["nowhere"], "nowhere does not exist; expected the folder of a run"),
        (["file"], "file is a file; expected the folder of a run"),
        (["empty"], "empty is neither the folder of a run nor a folder of runs"),
        (["runs", "--baseline", "FedAv"], "unknown row 'FedAv'; did you mean 'FedAvg'?"),
        (["runs", "--round", "best"], "unknown --round 'best'"),
        (["runs", "--out", "runs"], "runs holds other things than a report"),
        (["runs", "--out", "file"], "cannot be written to file: file is a file."),
        (["runs", "--audit", "t.csv"], "--audit checks a table and takes no runs"),
        (["runs", "--nonsense"], "unknown option '--nonsense'"),
    ],
)
def test_bad_arguments_are_sentences(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    make_run(here / "runs" / "a")
    (here / "empty").mkdir()
    (here / "file").touch()
    before = sorted(here.rglob("*"))
    assert main(["report", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error
    assert sorted(here.rglob("*")) == before
