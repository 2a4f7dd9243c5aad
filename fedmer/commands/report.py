"""``fedmer report RUN...``: tables and pictures of finished runs; ``--audit`` checks a table."""

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.errors import InputError
from fedmer.printable import printable

if TYPE_CHECKING:
    from jsonargparse import Namespace

USAGE = """fedmer report RUN... [--baseline ROW] [--round selected|last] [--groups SPEAKERS.csv]
                     [--selection] [--out FOLDER]
       fedmer report --audit TABLE.csv"""


def main(words: Sequence[str]) -> int:
    """Run ``fedmer report``.

    Args:
        words: For example ``["report", "runs/a", "runs/b"]``.

    Returns:
        The exit code: 0, or 1 for a table that contradicts itself.

    Raises:
        InputError: Something given cannot be used; nothing was written then.
    """
    options = parser().parse_args(words[1:])
    if options.audit is not None:
        if options.runs:
            raise InputError("--audit checks a table and takes no runs; give one or the other.")
        return _audit(options.audit)
    if not options.runs:
        raise InputError("'fedmer report' needs runs; name their folders, or that of a sweep.")
    return _report(options, shlex.join(["fedmer", *words]))


def parser() -> Parser:
    """What parses the words behind ``fedmer report``."""
    made = Parser(
        prog="fedmer report",
        usage=USAGE,
        description="Make one page, and tables as CSV and Markdown, of finished runs.",
    )
    add = made.add_argument
    add("runs", nargs="*", type=Path, metavar="RUN", help="a run folder, or a folder of runs")
    add("--baseline", metavar="ROW", help="the row of differences; FedAvg, or else the first")
    add(
        "--round",
        choices=("selected", "last"),
        default="selected",
        help="which round's scores; the last where none was selected",
    )
    add(
        "--groups",
        type=Path,
        metavar="SPEAKERS.csv",
        help="the groups of speakers, such as genders, to compare: columns speaker and group",
    )
    add(
        "--selection",
        action="store_true",
        help="also what choosing rounds by their test scores would add, which is no result",
    )
    add("--out", type=Path, metavar="FOLDER", help="where to; without it report beside the runs")
    add("--audit", type=Path, metavar="TABLE.csv", help="check that a table agrees with itself")
    return made


def _audit(path: Path) -> int:
    from fedmer.report.audit import audit_file

    audit = audit_file(path)
    for finding in audit.findings:
        print(printable(str(finding)))
    if audit.unchecked:
        print(printable(f"Not checked, for want of supports: {', '.join(audit.unchecked)}."))
    wrong = sum(not finding.consistent for finding in audit.findings)
    print(f"{len(audit.findings)} sums checked, {wrong} inconsistent.")
    return 0 if audit.consistent else 1


def _report(options: "Namespace", command: str) -> int:
    from fedmer.report.collect import collect
    from fedmer.report.files import check_target, write_report
    from fedmer.report.groups import read_groups
    from fedmer.report.report import make_report

    groups = None if options.groups is None else read_groups(options.groups)
    found = collect(options.runs, options.round)
    target = options.out or _beside([run.path for run in found.runs])
    check_target(target)
    report = make_report(found, options.baseline, groups, options.selection)
    write_report(report, target, command)
    for note in report.notes:
        print(printable(f"fedmer: note: {note}"))
    if options.selection:
        for line in (target / "selection.md").read_text(encoding="utf-8").splitlines():
            print(printable(line))
    said = f"{len(found.runs)} runs in {len(report.rows)} rows: {target / 'index.html'}"
    print(printable(said))
    return 0


def _beside(runs: Sequence[Path]) -> Path:
    """``report`` in the folder that holds all the runs."""
    return Path(os.path.commonpath([run.absolute().parent for run in runs])) / "report"
