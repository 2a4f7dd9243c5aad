"""What a person sees of a sweep: where it stands, and at its end a table."""

from collections.abc import Mapping, Sequence

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from fedmer.console import Console
from fedmer.printable import printable
from fedmer.sweep.store import (
    ENTRIES,
    FAILED,
    FINISHED,
    INTERRUPTED,
    PARTS,
    RUNNING,
    Record,
    Store,
    score,
)
from fedmer.sweep.trials import Trial

_STYLES = {FINISHED: "green", FAILED: "red", INTERRUPTED: "yellow", RUNNING: "cyan"}


class Display:
    """A bar on a terminal, and a line for each trial that ends.

    Args:
        console: Where to.
        records: All trials; those already finished are counted as done.
    """

    def __init__(self, console: Console, records: Mapping[str, Record]) -> None:
        self._console, self._records = console, records
        self._running: list[str] = []
        self._bar = Progress(
            TextColumn("trials"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed "),
            TimeElapsedColumn(),
            TextColumn("{task.fields[running]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=len(records), failed=0, running="")

    def __enter__(self) -> "Display":
        done = self._count(FINISHED)
        if done:
            self._console.print(f"{done} of {len(self._records)} trials were finished before.")
        self._refresh()
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def started(self, name: str) -> None:
        """A trial has started."""
        self._running.append(name)
        self._refresh()

    def ended(self, name: str, record: Record) -> None:
        """A trial has ended, well or not."""
        self._running.remove(name)
        self._refresh()
        line = Text().append(record.status, _STYLES.get(record.status, ""))
        line.append(f" {name} in {record.seconds:.1f} s")
        if record.status == FAILED:
            line.append(f" ({how(record)}): {printable(record.said)}")
        self._console.print(line, soft_wrap=True)

    def _refresh(self) -> None:
        self._bar.update(
            self._task,
            completed=self._count(FINISHED) + self._count(FAILED),
            failed=self._count(FAILED),
            running=escape(", ".join(self._running)),
        )

    def _count(self, status: str) -> int:
        ended = (r for name, r in self._records.items() if name not in self._running)
        return sum(record.status == status for record in ended)


def how(record: Record) -> str:
    """How a process ended, in words.

    >>> how(Record([], exit_code=-9))
    'ended by signal 9'
    """
    code = record.exit_code or 0
    return f"ended by signal {-code}" if code < 0 else f"exit code {code}"


def table(
    title: str, trials: Sequence[Trial], records: Mapping[str, Record], store: Store
) -> Table:
    """Status, time and weighted F1 of every trial, in points."""
    shown = Table(title=f"{title}: weighted F1, in points")
    shown.add_column("trial", overflow="fold")
    shown.add_column("status")
    shown.add_column("seconds", justify="right")
    places = [(entry, part) for entry in ENTRIES for part in PARTS]
    for entry, part in places:
        shown.add_column(f"{entry}\n{part}", justify="right")
    for trial in trials:
        record = records[trial.name]
        result = store.result(trial.name) if record.status == FINISHED else {}
        scores = [score(result, entry, part, "weighted_f1") for entry, part in places]
        shown.add_row(
            trial.name,
            Text(record.status, _STYLES.get(record.status, "")),
            f"{record.seconds:.1f}",
            *("" if value is None else f"{100 * value:.1f}" for value in scores),
        )
    return shown
