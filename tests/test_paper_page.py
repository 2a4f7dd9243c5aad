"""Every file and every test that the page on the paper names is there."""

import re
from pathlib import Path

import pytest

HOME = Path(__file__).resolve().parents[1]
PAGE = HOME / "docs" / "paper.md"


def named() -> list[tuple[str, str]]:
    """Files, and tests in them; ``::test`` alone is of the file of tests named before it."""
    found, last = [], ""
    for quoted in re.findall(r"`([^`]+)`", PAGE.read_text(encoding="utf-8")):
        path, mark, test = quoted.partition("::")
        if not (mark or path.startswith(("fedmer/", "tests/", "experiments/"))):
            continue
        if path.startswith("tests/"):
            last = path
        found.append((path or last, test))
    return found


@pytest.mark.parametrize(("path", "test"), named())
def test_what_the_page_names_is_there(path: str, test: str) -> None:
    place = HOME / path
    assert place.exists()
    if test:
        assert f"def {test}(" in place.read_text(encoding="utf-8")


def test_no_equation_is_left_out() -> None:
    said: set[int] = set()
    for first, link, last in re.findall(
        r"[Ee]quations? (\d+)(?: (to|and) (\d+))?", PAGE.read_text(encoding="utf-8")
    ):
        said |= set(range(int(first), int(last or first) + 1)) if link else {int(first)}
    assert said == set(range(1, 11))
