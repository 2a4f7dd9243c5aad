"""What choosing rounds by test would add: said on request, and in words that it is no result."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.report.collect import collect
from fedmer.report.selection import Selected
from tests.aggregators.rules import quick
from tests.report.made import make_run

HEAD = "round,clients,train_loss,val_weighted_f1,test_weighted_f1,bytes_down,bytes_up,seconds\n"


def with_rounds(folder: Path, rounds: list[tuple[str, str]]) -> Path:
    """Give a run these scores on validation and test, a round each."""
    lines = [f"{n},2,0.5,{v},{t},1000,500,0.5\n" for n, (v, t) in enumerate(rounds, 1)]
    (folder / "metrics.csv").write_text(HEAD + "".join(lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed in (0, 1):
        one, two = make_run(tmp_path / f"a{seed}", seed), make_run(tmp_path / f"l{seed}", seed, "X")
        with_rounds(one, [("0.5", "0.4"), ("0.4", ""), ("0.7", "0.5"), ("0.6", f"0.{6 + seed}")])
        with_rounds(two, [("", "0.3"), ("", "0.2")])
    return tmp_path


def test_the_table_is_made_on_request_marked_in_words_and_goes_again(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = runs / "report"
    assert main(["report", str(runs), "--selection", "--out", str(out)]) == 0
    with (out / "selection.csv").open() as file:
        rows = {(row.pop("row"), row.pop("seed")): row for row in csv.DictReader(file)}
    assert rows["FedAvg", "1"] == {
        "rounds": "3",
        "last": "70.0000",
        "by_validation": "50.0000",
        "by_test": "70.0000",
        "by_test_adds": "20.0000",
    }
    assert rows["X", "0"]["by_validation"] == "", "nothing to validate on: the last round counts"
    assert rows["X", "0"]["by_test_adds"] == "10.0000"
    said = capsys.readouterr().out
    assert "| FedAvg | 2 | 3 | 65.00" in said
    for text in (said, (out / "selection.md").read_text(), (out / "index.html").read_text()):
        assert "not a result" in text

    assert main(["report", str(runs), "--out", str(out)]) == 0
    assert not list(out.glob("selection.*"))
    assert "by test adds" not in (out / "index.html").read_text()


def test_runs_without_scores_of_rounds_are_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run")
    with_rounds(folder, [("0.5", ""), ("0.6", "")])
    assert main(["report", str(folder), "--selection", "--out", str(tmp_path / "report")]) == 2
    assert "No run has test scores of its rounds in metrics.csv" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("selection") / "run")


@quick
@given(scores=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6))
def test_the_choice_by_test_is_the_highest_and_never_below_the_others(
    place: Path, scores: list[tuple[float, float]]
) -> None:
    with_rounds(place, [(f"{val:.6f}", f"{test:.6f}") for val, test in scores])
    found = Selected.of(collect([place]).runs[0])
    assert found is not None
    assert found.validation is not None
    assert found.test >= max(found.validation, found.last)
    assert found.added == pytest.approx(found.test - found.validation)
    best = max(round(val, 6) for val, _ in scores)
    first = next(test for val, test in scores if round(val, 6) == best)
    assert found.validation == pytest.approx(100 * first, abs=1e-3)
