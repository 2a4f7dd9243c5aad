"""What a user should not have to read, and how warnings look that they should."""

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
    """Hide what Lightning says of itself at every start, and show the rest as sentences."""
    warnings.formatwarning = _sentence
    for pattern in _KNOWN:
        warnings.filterwarnings("ignore", pattern)
    for name in ("pytorch_lightning", "lightning_fabric", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # A profiler was asked for, and says what it found as a remark.
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)


def _sentence(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    return f"fedmer: warning: {message}\n"
