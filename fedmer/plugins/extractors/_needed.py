"""Packages that an extractor needs and fedmer does not."""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmer.errors import InputError


def needed(module: str, who: str, how: str = "pip install 'fedmer[extract]'") -> Any:
    """Import a module.

    Args:
        module: Its name.
        who: The extractor that needs it.
        how: How it is installed.

    Raises:
        InputError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{who} needs {error.name or module}, which is not installed; {how}."
        ) from None


def folder_of(module: str, who: str, how: str) -> Path:
    """Where a package lies, which is not imported.

    Raises:
        InputError: It is not installed.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{who} needs {module}, which is not installed; {how}.")
    return Path(next(iter(spec.submodule_search_locations)))


@contextmanager
def inference(torch: Any) -> Iterator[None]:
    """No gradients, and one thread, so that bits do not depend on how many a process has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
