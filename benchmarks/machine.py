"""What every benchmark needs: a quiet machine, interleaved repeats, and a page for the figures."""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
BUSY = 0.25
"""Share of the cores that others may use before a benchmark refuses to run."""


def options_parser(description: str | None, writes: str) -> argparse.ArgumentParser:
    """What every benchmark may be told.

    Args:
        description: A docstring, of which the first line is shown.
        writes: The pages and plots that ``--save`` writes.
    """
    made = argparse.ArgumentParser(description=(description or "").partition("\n")[0])
    made.add_argument("--busy", action="store_true", help="measure on a busy machine all the same")
    made.add_argument("--save", action="store_true", help=f"write {writes} in results/")
    return made


def refuse_if_busy(anyway: bool = False) -> None:
    """End the program, with exit code 3, if other programs are at work."""
    share = busy_share()
    if share > BUSY and not anyway:
        print(
            f"Others use {100 * share:.0f} % of this machine's cores, and a benchmark beside them "
            f"says nothing; wait until it is less than {100 * BUSY:.0f} %, or pass --busy.",
            file=sys.stderr,
        )
        raise SystemExit(3)


def busy_share(seconds: float = 1.0) -> float:
    """How much of all cores is in use while this process sleeps, in [0, 1]; 0 if unknown."""
    stat = Path("/proc/stat")
    if not stat.exists():
        return 0.0

    def read() -> tuple[int, int]:
        numbers = [int(part) for part in stat.read_text().splitlines()[0].split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]

    total, idle = read()
    time.sleep(seconds)
    later, rest = read()
    return 1 - (rest - idle) / max(later - total, 1)


def interleave(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of every way, ``repeats`` each, in turns; the first turn warms up and is dropped."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, run in ways.items():
            took = run()
            if repeat:
                seconds[name].append(took)
    return seconds


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Median and quartiles of paired ratios, ``0.50 [0.48, 0.52]``."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def timed(run: Callable[[], object]) -> Callable[[], float]:
    """The same, returning seconds; waits for an accelerator."""

    def measured() -> float:
        synchronise()
        began = time.perf_counter()
        run()
        synchronise()
        return time.perf_counter() - began

    return measured


def synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def matrix_rate(size: int = 2048, kind: torch.dtype = torch.float32, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a large product, with the threads set now."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    one = torch.randn(size, size, device=device, dtype=kind)
    best, until = 0.0, time.perf_counter() + seconds
    multiply = timed(lambda: one @ one)
    multiply()
    while time.perf_counter() < until:
        best = max(best, 2 * size**3 / multiply())
    return best


def peak(process: int | str = "self") -> float:
    """Megabytes of a process at the most, by Linux's own account; 0 where there is none.

    Not ``getrusage``, whose peak a process inherits from the one that started it.
    """
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [line.split()[1] for line in lines if line.startswith("VmHWM")]
    return int(found[0]) / 1024 if found else 0.0


def peak_memory(script: str, arguments: Sequence[str]) -> float:
    """Megabytes at the most of a fresh process that runs a script and prints that number last."""
    # Parts of a result must not depend on who calls: the child inherits no thread settings.
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path.cwd())
    return float(done.stdout.split()[-1])


def machine(packages: Iterable[str] = ("torch", "pytorch-lightning")) -> str:
    """Processor, cores, Python and versions, as one sentence."""
    model = platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    found = []
    for name in packages:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    card = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{model}, {os.cpu_count()} cores{card}, Python {platform.python_version()}, "
        f"{', '.join(found)}."
    )


def save(name: str, title: str, text: str) -> None:
    """Write a page of results."""
    RESULTS.mkdir(exist_ok=True)
    script = Path(sys.argv[0]).resolve().relative_to(RESULTS.parents[1])
    command = " ".join(["python", script.as_posix(), *sys.argv[1:]])
    (RESULTS / name).write_text(f"# {title}\n\n`{command}`\n\n{text}\n", encoding="utf-8")
