"""What is printed neither steers a terminal nor is cut where there is none."""

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from fedmer.console import Console
from fedmer.printable import printable

HOSTILE = "\x1b[31mred\x1b]0;title\x07\x9b2J\u202egnp\r\n[bold]:smile:[/]\udc80"


def steering(text: str) -> set[str]:
    kinds = {letter: unicodedata.category(letter) for letter in text}
    return {letter for letter, kind in kinds.items() if kind in ("Cc", "Cf", "Cs", "Zl", "Zp")}


@given(st.text(st.characters(codec=None)))
def test_a_printable_text_steers_nothing_and_stays_itself(text: str) -> None:
    shown = printable(text)
    assert steering(shown) <= {"\u200c", "\u200d"}
    shown.encode()
    if not steering(text):
        assert shown == text
    assert printable(shown) == shown


@pytest.mark.parametrize("stderr", [False, True])
def test_a_name_from_outside_is_printed_as_it_is_but_steers_nothing(
    capsys: pytest.CaptureFixture[str], stderr: bool
) -> None:
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    console = Console(stderr)
    console.print(table)
    console.print(f"Everything is in {HOSTILE}", soft_wrap=True)
    said = "".join(capsys.readouterr())
    assert steering(said) == {"\n"}
    assert said.count("[bold]:smile:[/]") == 4
    assert said.count("\\u202egnp") == 4


def test_a_piped_table_is_as_wide_as_it_needs_to_be(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table()
    for number in range(60):
        table.add_column(f"{number}", justify="right")
    table.add_row(*(f"{number / 7:.9f}" for number in range(60)))
    monkeypatch.delenv("COLUMNS", raising=False)
    Console().print(table)
    said = capsys.readouterr().out
    assert all(f" {number / 7:.9f} " in said for number in range(60))

    monkeypatch.setenv("COLUMNS", "40")
    Console().print(table)
    assert max(map(len, capsys.readouterr().out.splitlines())) == 40


def test_on_a_terminal_the_terminal_says_how_wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr("os.get_terminal_size", lambda _: (63, 20))
    monkeypatch.setenv("TERM", "xterm")
    assert Console().width == 63
