"""Which rounds are kept."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io import TorchCheckpointIO
from pytorch_lightning.callbacks import ModelCheckpoint

from fedmer.files import explained, make_private, replacing
from fedmer.runs import CHECKPOINTS

MONITOR = "val_weighted_f1"
"""Rounds are selected by weighted F1 on validation; the test part is never looked at."""


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that are either the old ones or the new ones.

    Lightning's writes into the temporary folder, and copies where that is another file system.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint.

        Raises:
            InputError: It cannot be written; then the one before is still there.
        """
        if "://" in str(path):
            # A callback of the user's may save to object storage, which has no renaming.
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        path = Path(path)
        with explained(path):
            make_private(path.parent)
        with replacing(path) as file:
            torch.save(checkpoint, file)


class _RoundCheckpoint(ModelCheckpoint):
    """A checkpoint in the run folder, written at the end of a round."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.dirpath = str((Path(trainer.default_root_dir) / CHECKPOINTS).resolve())
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        super().setup(trainer, pl_module, stage)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in this run's folder, even if the run was moved or is named otherwise now.

        Lightning would forget the best score so far, and let a worse round replace it.
        """
        folder = Path(self.dirpath or ".")

        def here(value: Any) -> Any:
            if isinstance(value, str) and value:
                return str(folder / Path(value).name)
            if isinstance(value, dict):
                return {here(key): score for key, score in value.items()}
            return value

        paths = [key for key in state_dict if key.endswith("_path") or key == "best_k_models"]
        moved = {key: here(state_dict[key]) for key in paths}
        super().load_state_dict({**state_dict, **moved, "dirpath": self.dirpath})


class LastRound(_RoundCheckpoint):
    """``last.ckpt``, replaced after every round: at most the round in progress can be lost."""

    def __init__(self) -> None:
        super().__init__(
            filename="last",
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )


class BestRound(_RoundCheckpoint):
    """``best.ckpt``, the round with the highest weighted F1 on validation."""

    def __init__(self) -> None:
        super().__init__(
            filename="best",
            monitor=MONITOR,
            mode="max",
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # A corpus may have nothing to validate on; then there is nothing to select by.
        if MONITOR in trainer.callback_metrics:
            super().on_train_epoch_end(trainer, pl_module)
