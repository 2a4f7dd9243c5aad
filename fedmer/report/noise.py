"""Warnings of libraries that say nothing to a user of fedmer."""

import logging
import warnings

_KNOWN = (
    r".*isinstance\(treespec, LeafSpec\).*",
    r".*does not have many workers.*",
    r"Be aware that when using `ckpt_path`, callbacks used to create the checkpoint need.*",
    r"Found \d+ module\(s\) in eval mode at the start of training.*",
    r"(?s).*JsonargparseDeprecationWarning.*",
    r"(?s).*``instantiate_classes`` was deprecated.*",
    r"Total length of `DataLoader` across ranks is zero.*",
    r"LightningCLI's args parameter is intended to run from within Python.*",
    r"Checkpoint directory .* exists and is not empty.*",
    r".*You are trying to `self.log\(\)` but the `self.trainer` reference is not registered.*",
    r"The ``compute`` method of metric .* was called before the ``update`` method.*",
)


def filter_noise() -> None:
    """Hide what Lightning says of itself at every start, and nothing else."""
    for pattern in _KNOWN:
        warnings.filterwarnings("ignore", pattern)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
