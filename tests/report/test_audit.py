"""The audit passes what rounding explains and nothing else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.report.audit import audit_file
from fedmer.report.confusion import class_scores, totals

EMOTIONS = {
    "happy": 144,
    "sad": 245,
    "neutral": 384,
    "angry": 170,
    "excited": 299,
    "frustrated": 381,
}
SDT = {
    "accuracy": "73.95",
    "weighted_f1": "74.08",
    "accuracy_happy": "72.71",
    "f1_happy": "66.19",
    "accuracy_sad": "79.51",
    "f1_sad": "81.84",
    "accuracy_neutral": "76.33",
    "f1_neutral": "74.62",
    "accuracy_angry": "71.88",
    "f1_angry": "69.73",
    "accuracy_excited": "76.79",
    "f1_excited": "80.17",
    "accuracy_frustrated": "67.14",
    "f1_frustrated": "68.68",
    **{f"support_{name}": str(count) for name, count in EMOTIONS.items()},
}
"""H. Ma et al., IEEE TMM 26:776-788, 2024, on six-way IEMOCAP."""


def table(path: Path, *rows: dict[str, str]) -> Path:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = [columns, *([row.get(key, "") for key in columns] for row in rows)]
    path.write_text("\n".join(",".join(line) for line in lines) + "\n")
    return path


def test_a_row_that_was_measured_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = table(tmp_path / "paper.csv", {"row": "SDT", **SDT})
    assert main(["report", "--audit", str(path)]) == 0
    assert "2 sums checked, 0 inconsistent." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("score", "printed", "said"),
    [
        ("accuracy", "74.95", "Ours: accuracy 74.95, its emotions give 73.95; DIFFERS (by +1.000"),
        ("weighted_f1", "74.18", "Ours: weighted_f1 74.18, its emotions give 74.08; DIFFERS"),
    ],
)
def test_a_doctored_row_is_named_with_both_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], score: str, printed: str, said: str
) -> None:
    ours = {"row": "Ours", **SDT, score: printed}
    path = table(tmp_path / "paper.csv", {"row": "SDT", **SDT}, ours)
    assert main(["report", "--audit", str(path)]) == 1
    out = capsys.readouterr().out
    assert said in out
    assert "4 sums checked, 1 inconsistent." in out


@given(
    counts=st.lists(
        st.lists(
            st.lists(st.integers(0, 60), min_size=3, max_size=3), min_size=3, max_size=3
        ).filter(lambda matrix: all(sum(row) > 0 for row in matrix)),
        min_size=1,
        max_size=1,
    ),
    seeds=st.integers(1, 4),
    digits=st.integers(0, 4),
    wrong=st.sampled_from([0, 3]),
)
def test_rounded_means_pass_and_a_shift_beyond_rounding_does_not(
    tmp_path_factory: pytest.TempPathFactory,
    counts: list[list[list[int]]],
    seeds: int,
    digits: int,
    wrong: int,
) -> None:
    """Over runs of the same test utterances, means and rounding to any digit keep the sums."""
    truth = np.array(counts[0])
    support = truth.sum(axis=1)
    draw = np.random.default_rng(seeds)
    runs = np.stack([[draw.multinomial(n, p / n) for n, p in zip(support, truth, strict=True)]
                     for _ in range(seeds)])  # fmt: skip
    recall, f1 = (100 * scores.mean(axis=0) for scores in class_scores(runs))
    accuracy, weighted = (100 * float(score.mean()) for score in totals(runs))
    # Two roundings of a whole unit each are allowed at most, so a shift by three is found.
    shift = wrong * 10.0**-digits
    row = {"row": "made", "accuracy": f"{accuracy + shift:.{digits}f}"}
    row["weighted_f1"] = f"{weighted:.{digits}f}"
    for name, n, r, f in zip("abc", support, recall, f1, strict=True):
        row |= {f"support_{name}": str(n), f"accuracy_{name}": f"{r:.{digits}f}"}
        row |= {f"f1_{name}": f"{f:.{digits}f}"}
    path = table(tmp_path_factory.mktemp("audit") / "t.csv", row)
    first, second = audit_file(path).findings
    assert second.consistent
    if wrong == 0:
        assert first.consistent
    else:
        assert not first.consistent


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"f1_sad": None}, "lacks f1_sad; a table needs the columns row, accuracy, weighted_f1"),
        ({"accuracy": None}, "lacks accuracy;"),
        ({f"support_{name}": None for name in EMOTIONS}, "has no column support_NAME;"),
        ({"f1_sad": ""}, "f1_sad of 'SDT' is ''; expected a number such as 74.08."),
        ({"f1_sad": "nan"}, "f1_sad of 'SDT' is 'nan'; expected a number"),
        ({"accuracy": "73.95 %"}, "accuracy of 'SDT' is '73.95 %'; expected a number"),
        ({f"support_{name}": "0" for name in EMOTIONS}, "expected counts of utterances"),
        ({f"support_{name}": "" for name in EMOTIONS}, "says how many utterances each emotion has"),
    ],
)
def test_a_table_that_cannot_be_checked_is_a_sentence(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str | None],
    said: str,
) -> None:
    row = {"row": "SDT", **SDT} | change  # type: ignore[operator]
    path = table(tmp_path / "t.csv", {k: v for k, v in row.items() if v is not None})
    assert main(["report", "--audit", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error


def test_files_that_are_no_tables_are_sentences(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "binary.csv").write_bytes(bytes(range(256)))
    for name, said in (
        ("gone.csv", "gone.csv cannot be read: No such file or directory."),
        ("empty.csv", "empty.csv has no rows"),
        ("binary.csv", "binary.csv cannot be read: it is not a text file"),
    ):
        assert main(["report", "--audit", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err


def test_rows_without_supports_are_named_and_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = {"row": "old", "accuracy": "70", "weighted_f1": "70"}
    path = table(tmp_path / "t.csv", {"row": "SDT", **SDT}, bare)
    assert main(["report", "--audit", str(path)]) == 0
    assert "Not checked, for want of supports: old." in capsys.readouterr().out
