"""``fedmer doctor``: what works on this machine, and what to do about what does not."""

from collections.abc import Sequence
from pathlib import Path

from fedmer.arguments import Parser


def parser() -> Parser:
    """What parses the words behind ``fedmer doctor``."""
    made = Parser(
        prog="fedmer doctor",
        description="See what works on this machine; ends with 0 if all that fedmer needs does.",
    )
    made.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    made.add_argument("--quick", action="store_true", help="leave out the run of ten seconds")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer doctor``; returns 0 if the core works, else 1.

    Args:
        words: For example ``["doctor"]``.

    Raises:
        InputError: Something typed cannot be used.
    """
    from fedmer.console import Console
    from fedmer.doctor.checks import Check, checks, guarded
    from fedmer.doctor.self_test import self_test

    options = parser().parse_args(words[1:])
    console = Console()
    well = True

    def say(check: Check) -> bool:
        mark = "ok" if check.ok else "WRONG" if check.core else "missing"
        advice = f"; {check.advice}" if check.advice and not check.ok else ""
        line = f"{mark:8}{check.name:30}{check.said}{advice}"
        console.print(line, soft_wrap=True, highlight=False)
        return check.ok or not check.core

    for check in checks(options.runs):
        well = say(check) and well
    if not options.quick and well:
        well = say(guarded("self-test", self_test))
    console.print(
        "fedmer works here."
        if well
        else "fedmer does not work here yet; do what stands behind WRONG.",
        highlight=False,
    )
    return 0 if well else 1
