"""What a minute of sound, of film or of words costs each extractor, and whether memory grows.

    python benchmarks/bench_extract.py --busy

Recordings are made: a tone that swells, a drawn face. Each row is a fresh process.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.recordings import face, record, tone

SECONDS = 6
SOUND, FILM, TEXT = "sound", "film", "words"
ROWS = (
    (TEXT, ("--text", "Words")),
    (TEXT, ("--text", "MiniLM")),
    (SOUND, ("--audio", "OpenSmile")),
    (SOUND, ("--audio", "OpenSmile", "--audio.features", "eGeMAPSv02")),
    (SOUND, ("--audio", "OpenSmile", "--audio.features", "ComParE")),
    (SOUND, ("--audio", "Voice")),
    (FILM, ("--visual", "Expression")),
)


def table(folder: Path, clips: int) -> Path:
    """Rows that cut clips of six seconds out of one recording of a minute."""
    path = folder / f"{clips}.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        head = ("dialogue", "turn", "speaker", "label", "split", "utterance", "audio", "video")
        writer.writerow((*head, "start", "end"))
        for place in range(clips):
            # A start of its own for each, so that nothing is made only once.
            start = (place * 0.37) % (60 - SECONDS)
            part = "test" if place // 10 % 5 == 4 else "train"
            words = f"I said it {place} times and I do not want to say it again"
            row = (f"d{place // 10}", place, "p", "ab"[place % 2], part, words)
            writer.writerow((*row, "a.wav", "a.mp4", start, start + SECONDS))
    return path


def measured(source: Path, words: tuple[str, ...], jobs: int) -> tuple[float, float]:
    """Seconds and megabytes at the most, of one command in a process."""
    target = source.with_suffix(".npz")
    command = [sys.executable, "-m", "fedmer", "extract", str(source), str(target), *words]
    before = time.monotonic()
    program = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e3)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *command, "--overwrite", "--jobs", str(jobs)],
        check=True,
        capture_output=True,
        text=True,
    )
    return time.monotonic() - before, float(done.stdout)


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=20, help="of six seconds, for the costs")
    parser.add_argument("--growth", type=int, nargs="*", default=[50, 500], help="numbers of clips")
    parser.add_argument("--only", default="", help="rows whose options hold this")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        record(folder / "a.wav", tone(60, 16_000), 16_000)
        frames = [face(1.5 - (place % 30) / 10, x=place % 40) for place in range(100)]
        record(folder / "a.mp4", tone(60, 16_000), 16_000, [frames[i % 100] for i in range(600)])
        print(f"load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores; one job, and two\n")
        print("| of | options | start, s | s a minute, 1 job | s a minute, 2 jobs | MB |")
        print("|---|---|---|---|---|---|")
        for kind, words in ROWS:
            if given.only not in " ".join(words):
                continue
            start, _ = measured(table(folder, 2), words, 1)
            whole, peak = measured(table(folder, given.clips), words, 1)
            two, _ = measured(table(folder, given.clips), words, 2)
            minutes = (given.clips - 2) * SECONDS / 60
            costs = f"{(whole - start) / minutes:.2f} | {(two - start) / minutes:.2f}"
            print(
                f"| {kind} | `{' '.join(words)}` | {start:.1f} | {costs} | {peak:.0f} |", flush=True
            )
        print("\n| clips | MB at the most |\n|---|---|")
        for clips in given.growth:
            _, peak = measured(table(folder, clips), (*ROWS[0][1], *ROWS[3][1]), 1)
            print(f"| {clips} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
