"""Every tutorial works from its first command to its last, and shows what one gets."""

from pathlib import Path

import pytest

from tests.documented import ROOT
from tests.tutorials import TUTORIALS, Desk, Save, Type, missing, programs, steps

PORT = "8443"


def test_pages_have_steps_and_are_linked_from_the_front() -> None:
    assert [page.stem for page in TUTORIALS] == ["clinic", "rule", "table"]
    readme, index = ((ROOT / name).read_text() for name in ("README.md", "docs/index.md"))
    for page in TUTORIALS:
        typed = [step for step in steps(page) if isinstance(step, Type)]
        # No command and no file is passed over for the way in which it is written.
        assert len(steps(page)) - len(typed) == page.read_text().count("Save this")
        assert len(typed) == page.read_text().count("\n$ ") >= 5
        assert all(step.command.split()[0] in ("fedmer", "pip", "pytest", "head") for step in typed)
        assert f"docs/tutorials/{page.name}" in readme
        assert f"tutorials/{page.stem}" in index


def test_a_step_is_a_file_or_a_command_with_its_answer(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Save it as `a.csv`:\n\n```csv\nx\n```\n\n"
        "```\n$ fedmer a \\\n   b\nsaid\n...\n$ fedmer c\n```\n"
    )
    assert steps(page) == [
        Save("a.csv", "x\n"),
        Type("fedmer a     b", ("said", "...")),
        Type("fedmer c", ()),
    ]


@pytest.mark.parametrize(
    ("shown", "left_out"),
    [
        (("│ ann │ 0.75 │", "...", "Wrote x"), None),
        (("Wrote x", "ann 0.75"), "ann #"),
        (("│ ben │ 0.75 │",), "ben #"),
    ],
)
def test_answers_are_compared_but_for_numbers_and_frames(
    shown: tuple[str, ...], left_out: str | None
) -> None:
    assert missing(shown, "┏━━━┓\n│ ann  │   1 │\n└───┘\nmore\nWrote x\n") == left_out


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_works(page: Path, tmp_path: Path) -> None:
    if page.stem == "table":
        pytest.importorskip("wordllama", reason="needs pip install 'fedmer[extract]'")
    if page.stem == "clinic":
        pytest.importorskip("flwr", reason="needs pip install 'fedmer[flower]'")
    from fedmer.flower.deploy.processes import free_port

    folder = tmp_path / "desk"
    folder.mkdir()
    desk = Desk(folder, programs(tmp_path / "programs"), {PORT: str(free_port())})
    try:
        for step in steps(page):
            desk.do(step)
    finally:
        desk.close()
