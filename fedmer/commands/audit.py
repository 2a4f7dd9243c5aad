"""``fedmer audit RUN...``: what attacks find out about the clients of runs."""

from collections.abc import Sequence
from pathlib import Path

from fedmer.arguments import Parser
from fedmer.errors import InputError
from fedmer.printable import printable

NAMES = ("membership", "shadows", "labels", "sender", "group", "prototypes", "features")
"""Attacks, as they are typed."""


def parser() -> Parser:
    """What parses the words behind ``fedmer audit``."""
    made = Parser(
        prog="fedmer audit",
        description="Attack finished runs, and say what can be found out about their clients.",
        epilog="Each run keeps what was found in its audit.json, which 'fedmer report' shows. Runs "
        "that differ in their seed alone make one row. It is your own simulation that is attacked: "
        "an audit needs the data of all clients, to know what is true.",
    )
    add = made.add_argument
    add("runs", nargs="+", type=Path, metavar="RUN", help="a run folder, or a folder of runs")
    add("--attacks", nargs="+", choices=NAMES, default=list(NAMES), help="which; all by default")
    add("--rounds", type=int, default=3, metavar="N", help="rounds that a server listens to")
    add("--shadows", type=int, default=8, metavar="N", help="networks to compare with, even")
    add(
        "--groups",
        type=Path,
        metavar="SPEAKERS.csv",
        help="the groups of speakers, such as genders, to tell: columns speaker and group",
    )
    add("--trust", action="store_true", help="let a run name classes of your own")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer audit``; returns the exit code, 0.

    Args:
        words: For example ``["audit", "runs/a", "runs/b", "--attacks", "membership"]``.

    Raises:
        InputError: Something given cannot be used.
    """
    options = parser().parse_args(words[1:])
    from fedmer.audit.attacks import Options, audit
    from fedmer.console import Console
    from fedmer.report.attacks import attack_table
    from fedmer.report.collect import collect
    from fedmer.report.grouping import rows_of
    from fedmer.report.groups import read_groups

    groups = {} if options.groups is None else read_groups(options.groups)
    made = Options(options.rounds, options.shadows, groups)
    found = collect(options.runs)
    rows, notes = rows_of(found.runs)
    for note in (*found.notes, *notes):
        print(printable(f"fedmer: note: {note}"))
    for run in (run for row in rows for run in row.runs):
        done = audit(run, options.attacks, made, options.trust)
        print(printable(f"{run.path}: attacked in {done.seconds:.1f} s"), flush=True)
    table = attack_table(rows)
    if table is None:
        raise InputError("Nothing was attacked; name a run and an attack.")
    Console().print(table.grid.markdown(), soft_wrap=True, highlight=False)
    return 0
