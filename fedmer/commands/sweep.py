"""``fedmer sweep FILE``: the command line of sweeps."""

import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fedmer.arguments import Parser
from fedmer.console import Console
from fedmer.errors import InputError
from fedmer.files import FolderLock, make_private
from fedmer.sweep import file
from fedmer.sweep.processes import ask, start_server
from fedmer.sweep.run import Sweep
from fedmer.sweep.show import Display, table
from fedmer.sweep.store import FAILED

_EPILOG = (
    "Trials are kept in DIR/NAME/, NAME being the sweep's, with trials.csv. The same command again "
    "skips finished trials and goes on with interrupted ones. What follows -- is appended to every "
    "trial's command: fedmer sweep FILE -- --data.path meld_dev.npz"
)


def main(words: Sequence[str]) -> int:
    """Run ``fedmer sweep``.

    Args:
        words: For example ``["sweep", "experiments/sweeps/ablation.yaml", "--jobs", "2"]``.

    Returns:
        The exit code: 0 if every trial has finished, 1 if one failed, 130 after Ctrl-C, 143 after
        SIGTERM.

    Raises:
        InputError: What was typed, or the sweep file, cannot be used; nothing was started.
    """
    end = words.index("--") if "--" in words else len(words)
    options = parser().parse_args(words[1:end])
    if options.jobs < 1:
        raise InputError(f"--jobs is {options.jobs}; expected at least 1.")
    sweep = Sweep(file.read(options.file), options.runs, words[end + 1 :])
    if options.list:
        sweep.settle()
        for trial in sweep.left:
            print(shlex.join(sweep.words(trial)))
        return 0
    try:
        _check(sweep)
    except KeyboardInterrupt:
        print("Stopped before any trial.", file=sys.stderr)
        return 128 + signal.SIGINT
    with _only_one(sweep.store.folder):
        sweep.settle()
        return _run(sweep, options.jobs, words)


def parser() -> Parser:
    """What parses the words behind ``fedmer sweep``, up to ``--``."""
    made = Parser(
        hint="options of the trials stand behind --.",
        prog="fedmer sweep",
        usage="fedmer sweep FILE [--jobs N] [--runs DIR] [--list] [-- OPTIONS OF TRIALS]",
        description="Run the trials of a W&B sweep file on this machine.",
        epilog=_EPILOG,
    )
    made.add_argument("file", metavar="FILE", type=Path, help="a sweep file: grid or random")
    made.add_argument("--jobs", metavar="N", type=int, default=1, help="trials at a time")
    made.add_argument("--runs", metavar="DIR", type=Path, default=Path("runs"), help="see below")
    made.add_argument("--list", action="store_true", help="print the commands and run nothing")
    return made


def _check(sweep: Sweep) -> None:
    """Refuse what could only fail later.

    Raises:
        InputError: An argument is one that ``fedmer fit`` does not take, the command is no program,
            or a finished trial was another one.
    """
    sweep.settle()
    if not sweep.left:
        return
    if not sweep.of_fedmer:
        program = sweep.arguments(sweep.trials[0])[0]
        if shutil.which(program) is None:
            raise InputError(f"{sweep.file.path}: there is no program '{program}'; mend command.")
        return
    fixed = {"name", "runs", "overwrite", "ckpt_path"} & sweep.trials[0].values.keys()
    for name in sorted(fixed):
        raise InputError(f"{sweep.file.path}: parameter '{name}' is set by the sweep; remove it.")
    start_server()
    with Console(stderr=True).status("Checking the arguments of the trials"):
        problem = ask(sweep.questions())
    if problem is not None:
        raise InputError(f"{sweep.file.path}: {problem}")


def _run(sweep: Sweep, jobs: int, words: Sequence[str]) -> int:
    console = Console()
    with Display(console, sweep.records) as display:
        stopped = sweep.run(jobs, display)
    console.print(table(sweep.file.name, sweep.trials, sweep.records, sweep.store))
    console.print(f"All scores are in {sweep.store.table}", soft_wrap=True, highlight=False)
    if stopped is not None:
        again = shlex.join(["fedmer", *words])
        print(f"Stopped. Go on with\n  {again}", file=sys.stderr)
        return 128 + stopped
    failed = sum(record.status == FAILED for record in sweep.records.values())
    if failed:
        count = f"{failed} of {len(sweep.trials)} trials"
        print(f"{count} failed; their .log files say more, and the same command tries them again.")
    return 1 if failed else 0


def _only_one(folder: Path) -> FolderLock:
    """Keep a second sweep out of the folder.

    Raises:
        InputError: The folder cannot be made.
    """
    try:
        make_private(folder)
    except OSError as error:
        raise InputError(
            f"The folder {folder} cannot be written: {error.strerror}; choose another with --runs."
        ) from error
    advice = "another sweep is at work there: wait for it, or choose another --runs"
    return FolderLock(folder / ".lock", str(folder), advice)
