"""The first measured tables: centralised SDT and four federated rules on three real corpora.

    python experiments/first_run.py                        # all of it; runs that exist are kept
    python experiments/first_run.py --list                 # only print the commands
    python experiments/first_run.py --only meld_dev-fedavg # some runs, by the start of their names

Runs go to ``runs/first_run``. Their tables are put into ``experiments/results/first_run.md``,
between its ``<!-- table ... -->`` and ``<!-- end -->`` lines; the words around them are written by
hand, and have to be read again when a figure changes.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.marked_places import replace

HERE = Path(__file__).resolve().parent
REPORT = HERE / "results" / "first_run.md"
DATA = HERE.parent.parent / "shared" / "data"
SHOWN_DATA = Path("../shared/data")
"""Where the data lie for somebody who types a printed command in the repository's root."""

SEEDS = (0, 1, 2)
SIZE = (
    "--network.hidden 128 --network.heads 8 --network.dropout 0.5 --network.attention_score null "
    "--local.batch_size 16 --optimizer.weight_decay 1e-5"
)
CENTRAL = f"--partitioner Central --local.optimizer_state keep {SIZE}"
REFERENCE = f"{CENTRAL} --optimizer.lr 3e-4 --loss.temperature 1 --trainer.max_epochs 60"
FEDERATED = f"{SIZE} --optimizer.lr 1e-3 --loss.temperature 8"
RULES = {
    "fedavg": ("FedAvg", "--aggregator FedAvg"),
    "fedprox": ("FedProx, mu 0.01", "--aggregator FedProx --aggregator.mu 0.01"),
    "fedproto": ("FedProto", "--aggregator FedProto"),
    "local": ("Local", "--aggregator Local"),
}
PERSONAL = ("fedproto", "local")


@dataclass(frozen=True)
class Corpus:
    """What is run on one corpus.

    Args:
        name: File name without its ending.
        central: Recipe name -> flags of centralised training, each run with every seed.
        federated: Flags that all federated rules share.
        rounds: Of the federated rules.
    """

    name: str
    central: Mapping[str, str]
    federated: str
    rounds: int


CORPORA = (
    Corpus(
        "meld_dev",
        {
            "reference": REFERENCE,
            "recipe": f"{CENTRAL} --optimizer.lr 3e-4 --loss.temperature 8 --trainer.max_epochs 25",
        },
        f"--partitioner Speaker {FEDERATED} --local.epochs 2",
        12,
    ),
    Corpus(
        "mosi",
        {"reference": REFERENCE},
        f"--partitioner Speaker {FEDERATED} --local.epochs 2",
        8,
    ),
    Corpus(
        "meld_text",
        {
            "recipe": f"{CENTRAL} --optimizer.lr 5e-4 --loss.temperature 8 --trainer.max_epochs 20",
        },
        f"--partitioner Speaker --partitioner.min_utterances 10 {FEDERATED}",
        24,
    ),
)


@dataclass(frozen=True)
class Run:
    """One ``fedmer fit``: where it belongs, and its flags without data, name and seed."""

    corpus: str
    row: str
    flags: str
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.corpus}-{self.row}-seed{self.seed}"

    def command(self, data: Path, runs: Path) -> list[str]:
        """``fit ...``, without the program's name."""
        return [
            "fit", "--data.path", (data / f"{self.corpus}.npz").as_posix(),
            *shlex.split(self.flags), "--seed_everything", str(self.seed),
            "--runs", runs.as_posix(), "--name", self.name,
        ]  # fmt: skip


def all_runs() -> list[Run]:
    """Every run, the first seed of all of them before the second of any."""
    runs = []
    for corpus in CORPORA:
        for row, flags in corpus.central.items():
            runs += [Run(corpus.name, f"central-{row}", flags, seed) for seed in SEEDS]
        for row, (_, rule) in RULES.items():
            flags = f"{rule} {corpus.federated} --trainer.max_epochs {corpus.rounds}"
            if row in PERSONAL:
                # Every client's network reads all of val and test, so once is enough.
                flags += f" --trainer.check_val_every_n_epoch {corpus.rounds}"
            runs.append(Run(corpus.name, row, flags))
    return sorted(runs, key=lambda run: run.seed)


def result_of(run: Run, runs: Path) -> dict[str, Any] | None:
    """What the run found, or None if it did not get to its end."""
    path = runs / run.name / "result.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of the three corpora.")
    parser.add_argument("--runs", type=Path, default=Path("runs/first_run"), help="Where runs go.")
    parser.add_argument("--only", nargs="+", default=[""], metavar="START", help="Names to run.")
    parser.add_argument("--list", action="store_true", help="Print the commands and stop.")
    options = parser.parse_args()
    chosen = [run for run in all_runs() if run.name.startswith(tuple(options.only))]
    if options.list:
        print(*(_shown(run) for run in chosen), sep="\n")
        return 0
    absent = [f"{c.name}.npz" for c in CORPORA if not (options.data / f"{c.name}.npz").exists()]
    if absent:
        print(f"{options.data} has no {', '.join(absent)}; say where they lie with --data DIR.")
        return 2
    for run in chosen:
        if result_of(run, options.runs) is not None:
            continue
        print(f"\n{_shown(run)}", flush=True)
        # What an interrupted attempt left is not a result, so it may be replaced.
        command = [*run.command(options.data, options.runs), "--overwrite"]
        code = subprocess.run([sys.executable, "-m", "fedmer", *command], check=False).returncode
        if code:
            print(f"{run.name} ended with exit code {code}; the runs before it are kept.")
            return code
        write_report(options.runs)
    write_report(options.runs)
    print(f"The tables are in {REPORT.relative_to(HERE.parent)}.")
    return 0


def write_report(runs: Path) -> None:
    """Put the tables of the runs that are there into the report's marked places."""
    results = {run: result_of(run, runs) for run in all_runs()}
    found = {run: result for run, result in results.items() if result is not None}
    text = REPORT.read_text(encoding="utf-8")
    for corpus in CORPORA:
        own = {run: result for run, result in found.items() if run.corpus == corpus.name}
        if own:
            text = replace(REPORT, text, corpus.name, "\n".join(corpus_table(corpus, own)))
    text = replace(REPORT, text, "commands", "\n".join(["```", *map(_shown, found), "```"]))
    text = replace(REPORT, text, "provenance", "\n".join(provenance(found)))
    REPORT.write_text(text, encoding="utf-8")


def corpus_table(corpus: Corpus, results: Mapping[Run, dict[str, Any]]) -> Iterator[str]:
    """Test scores in points, a row a baseline, recipe or rule."""
    yield (
        "| | rounds | last: wF1 | acc | macro F1 | selected: round | wF1 | acc | macro F1 "
        "| seconds | down + up |"
    )
    yield "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    # A split decides which turns the baselines learn from; these see what the centralised runs see.
    first = next(iter(results.values()))["baselines"]
    for key, title in (("majority", "majority class"), ("probe", "logistic regression")):
        yield _line([title, "", *_cells([first[key]]), *[""] * 6])
    titles = {f"central-{name}": f"centralised SDT, {name}" for name in corpus.central}
    titles |= {name: title for name, (title, _) in RULES.items()}
    for row, title in titles.items():
        own = [result for run, result in results.items() if run.row == row]
        if own:
            yield _line([title, *_run_cells(own, row)])


def provenance(results: Mapping[Run, dict[str, Any]]) -> Iterator[str]:
    """What was read, and with which versions."""
    prints = {run.corpus: result["data"]["fingerprint"] for run, result in results.items()}
    yield from (f"* `{name}.npz`: fingerprint `{value}`" for name, value in prints.items())
    last = list(results.values())[-1]
    versions = ", ".join(f"{name} {number}" for name, number in last["versions"].items())
    yield f"* {versions}; Python {last['machine']['python']} on {last['machine']['processor']}"


def _run_cells(results: Sequence[Mapping[str, Any]], row: str) -> list[str]:
    last = [result["last"]["scores"]["test"] for result in results]
    cells = [str(results[0]["rounds"]), *_cells(last)]
    chosen = [result["selected"] for result in results if result["selected"]]
    if chosen and row not in PERSONAL:
        rounds = ", ".join(str(entry["round"]) for entry in chosen)
        cells += [rounds, *_cells([entry["scores"]["test"] for entry in chosen])]
    else:
        cells += [""] * 4
    cells.append(f"{statistics.mean(result['seconds'] for result in results):.0f}")
    # One client that is the server's neighbour in memory has no traffic worth a figure.
    traffic = results[0]["bytes_down"] + results[0]["bytes_up"]
    return [*cells, "" if row.startswith("central") else _size(traffic)]


def _cells(scores: Sequence[Mapping[str, float]]) -> list[str]:
    """Weighted F1, accuracy and macro F1 in points; over several seeds the mean and deviation."""
    cells = []
    for name in ("weighted_f1", "accuracy", "macro_f1"):
        values = [100 * entry[name] for entry in scores]
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.1f}{spread}")
    return cells


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _shown(run: Run) -> str:
    return shlex.join(["fedmer", *run.command(SHOWN_DATA, Path("runs/first_run"))])


if __name__ == "__main__":
    sys.exit(main())
