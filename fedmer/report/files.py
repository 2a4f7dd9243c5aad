"""The files of a report, beside each other in one folder."""

from pathlib import Path

from fedmer.errors import InputError
from fedmer.files import SHARED, write_atomically
from fedmer.report.attacks import attack_table
from fedmer.report.audit import audit_file
from fedmer.report.clients import client_table
from fedmer.report.groups import group_table
from fedmer.report.page import MARK, page_of
from fedmer.report.privacy import privacy_table
from fedmer.report.report import Report
from fedmer.report.score_table import PERSONAL, runs_csv, score_table
from fedmer.report.selection import NOT_A_RESULT
from fedmer.report.subsets import having_table, subset_table
from fedmer.report.tables import byte_table, difference_table

PAGE = "index.html"


def check_target(folder: Path) -> None:
    """See that a report may be written here, before time is spent on it.

    Raises:
        InputError: It is a file, cannot be written, or holds something else than a report.
    """
    above = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not above.is_dir():
        raise InputError(f"The report cannot be written to {folder}: {above} is a file.")
    if folder.exists() and any(folder.iterdir()):
        page = folder / PAGE
        if not (page.is_file() and MARK in page.read_text(encoding="utf-8", errors="replace")):
            raise InputError(f"{folder} holds other things than a report; choose another --out.")


def write_report(report: Report, folder: Path, command: str) -> None:
    """Write the page, and every table of it as CSV and as Markdown; an older report is replaced.

    Args:
        report: What they say.
        folder: Where to.
        command: That made it, for the page.

    Raises:
        InputError: A table contradicts itself, or the folder cannot be written.
    """
    labels = report.labels
    tables = {
        "table": score_table(report.lines, labels),
        "differences": difference_table(report.differences),
        "modalities": subset_table(report.subsets),
        "having": having_table(report.rows),
        "clients": client_table(report.rows, report.differences),
        "bytes": byte_table(report.rows),
        "privacy": privacy_table(report.rows),
    }
    if report.groups is not None:
        tables["groups"] = group_table(report.groups)
    if report.selection is not None:
        tables["selection"] = report.selection
    attacks = attack_table(report.rows)
    if attacks is not None:
        tables["attacks"] = attacks
    texts = {
        PAGE: page_of(report, tables, command),
        "runs.csv": runs_csv(report.rows, labels),
        **{f"{name}.csv": table.csv() for name, table in tables.items()},
        **{f"{name}.md": table.grid.markdown() for name, table in tables.items()},
    }
    if any(row.personal for row in report.rows):
        texts["table.md"] += f"\n{PERSONAL} Scores of all clients' personal networks, pooled.\n"
    if "selection.md" in texts:
        texts["selection.md"] += f"\n{NOT_A_RESULT}\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The report cannot be written to {folder}: {error.strerror}.") from error
    for ending in ("csv", "md"):
        # Of an older report, which may have had more.
        for name in ("groups", "selection", "attacks"):
            (folder / f"{name}.{ending}").unlink(missing_ok=True)
    for name, text in texts.items():
        write_atomically(folder / name, text, SHARED)
    checked = ["runs.csv"]
    if any(line.support is not None for line in report.lines):
        checked.append("table.csv")
    for name in checked:
        wrong = [str(f) for f in audit_file(folder / name).findings if not f.consistent]
        if wrong:
            raise InputError(f"{folder / name} contradicts itself: {wrong[0]}.")
