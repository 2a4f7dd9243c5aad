"""What a machine has of what fedmer needs, or can use."""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from fedmer import __version__
from fedmer.errors import InputError
from fedmer.plugins import registry

_CORE = ("torch", "pytorch-lightning", "torchmetrics", "jsonargparse", "numpy", "safetensors")
_OPTIONAL = (
    ("Flower", ("flwr", "ray", "cryptography"), "pip install 'fedmer[flower]'"),
    ("W&B", ("wandb",), "pip install wandb"),
    ("Parquet tables", ("pyarrow",), "pip install 'fedmer[tables]'"),
    ("privacy accounting", ("dp-accounting",), "pip install 'fedmer[dp]'"),
)
_INSTALL = "pip install 'fedmer[extract]'"
_ASK = "ask who wrote it, or uninstall it"
_ROOM_GB = 1.0
"""Below this much free disk, in 10^9 bytes, a run of a large network may not end."""


@dataclass(frozen=True)
class Check:
    """One line.

    Args:
        name: What was looked at.
        ok: Is it there, and does it work?
        said: What was found, or what is wrong.
        advice: What to do where it is not ok.
        core: Does fedmer need it? Else only what it is named after does.
    """

    name: str
    ok: bool
    said: str
    advice: str = ""
    core: bool = True


def checks(runs: Path) -> Iterator[Check]:
    """All but the self-test, quickest first.

    Args:
        runs: Where runs are kept.
    """
    yield _python()
    for package in _CORE:
        yield _packages(package, (package,), f"pip install {package}", core=True)
    yield _device()
    yield _folder("runs", runs, "choose another place with --runs")
    yield _folder("temporary folder", Path(tempfile.gettempdir()), "set TMPDIR to another folder")
    for name, packages, advice in _OPTIONAL:
        yield _packages(name, packages, advice, core=False)
    yield from _extractors()


def _python() -> Check:
    return Check(
        "fedmer",
        sys.version_info >= (3, 11),
        f"{__version__}, Python {platform.python_version()}, {platform.system()} "
        f"{platform.machine()}, {os.cpu_count()} processors",
        "use Python 3.11 or newer",
    )


def _packages(name: str, packages: Sequence[str], advice: str, core: bool) -> Check:
    """Distributions that are there, by what is recorded of them."""
    found = {package: _version(package) for package in packages}
    missing = [package for package, known in found.items() if known is None]
    if missing:
        return Check(name, False, f"{', '.join(missing)} not installed", advice, core)
    said = ", ".join(p if p == name else f"{p} {v}" for p, v in found.items())
    return Check(
        name, True, said if len(found) > 1 or name not in found else str(found[name]), "", core
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _device() -> Check:
    advice = "install torch again; pytorch.org says which build suits this machine"
    try:
        torch = import_module("torch")
        threads = torch.get_num_threads()
        if torch.cuda.is_available():
            names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        else:
            names = ["Apple GPU"] if torch.backends.mps.is_available() else []
        float(torch.ones(2).sum())
    except (ImportError, OSError, RuntimeError, AssertionError) as error:
        return Check("device", False, f"torch cannot be used: {error}", advice)
    said = ", ".join(names) if names else "no GPU, so that everything runs on the processor"
    return Check("device", True, f"{said}; torch takes {threads} threads", advice)


def _folder(name: str, folder: Path, advice: str) -> Check:
    """Can a file be made there, or in the nearest folder above that there is?"""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        with tempfile.NamedTemporaryFile(dir=place):
            room = os.statvfs(place)
    except OSError as error:
        why = f"{place} cannot be written: {error.strerror or error}"
        return Check(name, False, why, advice)
    free = room.f_bavail * room.f_frsize / 1e9
    ok = free >= _ROOM_GB
    return Check(name, ok, f"{folder}, {free:.1f} GB free", f"make room there, or {advice}")


def _extractors() -> Iterator[Check]:
    """Each extractor's packages; its models are loaded where it is used."""
    for plugin in registry.plugins("extractors"):
        name = f"extractor {plugin.name}"
        place, _, last = plugin.path.rpartition(".")
        try:
            module = import_module(place)
            found = getattr(module, last)
        except Exception as error:  # noqa: BLE001 - whatever a third party's module raises
            said = f"{plugin.package} cannot be imported: {type(error).__name__}: {error}"
            yield Check(name, False, said, _ASK, core=False)
            continue
        # Some are installed in a way of their own, which their modules say.
        ways = [_INSTALL, getattr(module, "HOW", _INSTALL)]
        advice = " and ".join(dict.fromkeys(ways)) if plugin.package == "fedmer" else _ASK
        yield _packages(name, found.packages, advice, core=False)


def guarded(name: str, run: Callable[[], str]) -> Check:
    """A check that does something, and may fail in any way.

    Args:
        name: What is tried.
        run: Tries it, and says what came of it.
    """
    advice = "report this, with all that is printed here"
    try:
        return Check(name, True, run())
    except InputError as error:
        return Check(name, False, str(error), advice)
    except Exception as error:  # noqa: BLE001 - a doctor has to survive every illness
        return Check(name, False, f"{type(error).__name__}: {error}", advice)
