"""One line that says where a run stands."""

import math
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from fedmer.console import Console


class RoundProgress(ProgressBar):
    """Rounds, clients, validation weighted F1 and the time left.

    On a terminal one bar is redrawn; elsewhere, such as in a log file, each round prints a line.
    """

    def __init__(self) -> None:
        super().__init__()
        self._console = Console()
        self._enabled = True

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._began, self._first = time.perf_counter(), trainer.current_epoch
        self._bar = Progress(
            TextColumn("round {task.fields[round]}/{task.fields[rounds]}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("clients  val wF1 {task.fields[score]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]} left"),
            console=self._console,
            transient=True,
            disable=not (self._enabled and self._console.is_terminal),
        )
        self._task = self._bar.add_task(
            "", round=trainer.current_epoch + 1, rounds=trainer.max_epochs, score="-", left="?"
        )
        self._bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        clients = len(pl_module.loop.sizes)
        self._bar.update(self._task, completed=0, total=clients, round=trainer.current_epoch + 1)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        cohort = len(pl_module.cohort)
        self._bar.update(self._task, completed=min(batch.number + 1, cohort), total=cohort)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        done = trainer.current_epoch + 1
        # Not Lightning's metrics, which stay as they were in a round that is not validated.
        scores = pl_module.scores.get("val")
        shown = "-" if scores is None else f"{100 * scores.weighted_f1:.1f}"
        seconds = time.perf_counter() - self._began
        rounds = trainer.max_epochs or 0
        left = _clock(seconds / (done - self._first) * max(rounds - done, 0))
        self._bar.update(self._task, score=shown, left=left)
        if self._enabled and not self._console.is_terminal:
            loss, spent = pl_module.report.train_loss, pl_module.report.spent
            learnt = "" if math.isnan(loss) else f"loss {loss:.3f}  "
            told = "" if spent is None else f"epsilon {spent.epsilon:.3g}  "
            print(f"round {done}/{rounds}  {learnt}{told}val wF1 {shown}  {left} left", flush=True)

        for sentence in pl_module.report.failures.values() if self._enabled else ():
            self._console.print(f"round {done}: {sentence}", highlight=False, soft_wrap=True)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._bar.stop()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        if hasattr(self, "_bar"):
            self._bar.stop()


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
