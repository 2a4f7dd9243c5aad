"""Whose mistake an exception is: fedmer's, a library's, or that of a part somebody else wrote."""

import sysconfig
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import CodeType, TracebackType

import fedmer
from fedmer.errors import InputError
from fedmer.plugins.registry import KINDS

_OURS = Path(fedmer.__file__).parent
_STANDARD = [Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib")]
_PACKAGES = ("site-packages", "dist-packages")


class ForeignError(InputError):
    """Code that is not fedmer's raised something.

    Args:
        sentence: Whose it was, and what it raised.
        trace: The traceback, as text.
    """

    def __init__(self, sentence: str, trace: str) -> None:
        super().__init__(sentence, trace)
        self.trace = trace

    def __str__(self) -> str:
        return str(self.args[0])


def sentence_of(error: Exception) -> InputError | None:
    """The sentence for a user on an exception; None for a mistake of fedmer's."""
    if isinstance(error, InputError):
        return error
    return of_lightning(error) or foreign(error)


def foreign(error: BaseException) -> ForeignError | None:
    """The same as a sentence, if code of somebody else's raised it; None if fedmer's own did.

    What a library raises is the mistake of whoever called it. So the innermost frame counts that is
    of no library: of fedmer, or of a file that is neither fedmer's, Python's nor an installed
    package's, or of a package with plugins of fedmer.
    """
    plugins = _plugin_packages()
    found = None
    for code, line in _frames(error.__traceback__):
        path = Path(code.co_filename)
        if path.is_relative_to(_OURS):
            found = None
        elif _is_foreign(path, plugins):
            found = path, line, code.co_qualname
    if found is None:
        return None
    path, line, name = found
    what = " ".join(str(error).split())
    said = f"{type(error).__name__}: {what}" if what else type(error).__name__
    return ForeignError(
        f"{name} of {path}, line {line}, which is not fedmer's, raised {said}"
        f"{'' if said.endswith('.') else '.'} --traceback shows the way there.",
        "".join(traceback.format_exception(error)),
    )


def of_lightning(error: Exception) -> InputError | None:
    """What Lightning says against what was asked of it, as a sentence.

    A package that it wants, or a callback or logger that cannot do what it was asked.
    """
    frames = traceback.extract_tb(error.__traceback__)
    parts = Path(frames[-1].filename).parts if frames else ()
    inside = "pytorch_lightning" in parts or "lightning_fabric" in parts
    if inside and (isinstance(error, ImportError) or {"callbacks", "loggers"} & set(parts)):
        return InputError(" ".join(str(error).split()))
    return None


def _frames(trace: TracebackType | None) -> Iterator[tuple[CodeType, int]]:
    """From the outermost to the innermost."""
    while trace is not None:
        yield trace.tb_frame.f_code, trace.tb_lineno
        trace = trace.tb_next


def _is_foreign(path: Path, plugins: set[str]) -> bool:
    for place in _PACKAGES:
        if place in path.parts:
            return path.parts[path.parts.index(place) + 1].removesuffix(".py") in plugins
    # Code that was made while running, as dataclasses and torch do, has no file.
    return path.is_file() and not any(path.is_relative_to(place) for place in _STANDARD)


def _plugin_packages() -> set[str]:
    """Top-level names of the packages that bring plugins."""
    points = (point for kind in KINDS for point in entry_points(group=f"fedmer.{kind}"))
    return {point.module.partition(".")[0] for point in points}
