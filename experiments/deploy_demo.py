"""A server and four nodes on this machine, with TLS and node keys, beside the same run in-process.

    python experiments/deploy_demo.py [--rounds 10] [--corpus FILE] [--save]

Four clients hold a group of speakers each (``SpeakerGroup``). Printed at the end: are the weights
and the tables the same, how long it took, and what crossed. Then once more with ``SecureSum``, and
a node killed after the third round. ``make deploy-demo`` runs it on MELD's development part where
that lies beside the project, else on the synthetic corpus.
"""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from fedmer.flower.deploy.processes import free_port
from fedmer.flower.node.policy import Policy

NODES = 4
REAL = Path(__file__).resolve().parents[2] / "shared" / "data" / "meld_dev.npz"
COMMON = [
    *("--network", "SDT", "--network.hidden", "64", "--network.heads", "4"),
    *("--local.batch_size", "8", "--trainer.accelerator", "cpu"),
]


def fedmer(*words: str) -> list[str]:
    return [sys.executable, "-m", "fedmer", *words]


@contextmanager
def running(words: list[str], log: Path, ready: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command that has said ``ready``; ended with everything it started."""
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, start_new_session=True)
    try:
        for _ in range(600):
            if ready in log.read_text(errors="replace"):
                break
            if process.poll() is not None:
                sys.exit(log.read_text(errors="replace"))
            time.sleep(0.2)
        else:
            sys.exit(f"{' '.join(words)} was not ready within 120 s")
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def fit(folder: Path, name: str, *words: str, kill: tuple[int, int] | None = None) -> float:
    """Train, with live progress; returns wall-clock seconds.

    Args:
        folder: Where runs go.
        name: Of the run.
        *words: More options.
        kill: A process to kill after so many rounds.
    """
    began = time.perf_counter()
    command = fedmer("fit", *COMMON, "--runs", str(folder), "--name", name, *words)
    process = subprocess.Popen(command)
    rows = folder / name / "metrics.csv"
    while process.poll() is None:
        time.sleep(0.2)
        if kill is not None and rows.exists() and len(rows.read_text().splitlines()) > kill[1]:
            os.killpg(kill[0], signal.SIGKILL)
            kill = None
    if process.returncode:
        sys.exit(f"{name} ended with exit code {process.returncode}")
    return time.perf_counter() - began


def result(folder: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / name / "result.json").read_text())
    return found


def weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    path = folder / name / "checkpoints" / "last.ckpt"
    state: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return {key: value for key, value in state.items() if key.startswith("network.")}


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[key].double() - other[key].double()).abs().max()) for key in one)


def table_gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of a score in the final tables."""
    pairs = [
        (one["last"]["scores"][part][key], other["last"]["scores"][part][key])
        for part in one["last"]["scores"]
        for key in ("accuracy", "weighted_f1", "macro_f1", "uar")
    ]
    return max(abs(a - b) for a, b in pairs)


def row(folder: Path, name: str, seconds: float, base: str) -> str:
    own, inline = result(folder, name), result(folder, base)
    scores = own["last"]["scores"]["test"]
    with (folder / name / "metrics.csv").open() as file:
        rounds = [float(line["seconds"]) for line in csv.DictReader(file)]
    with (folder / name / "failures.csv").open() as file:
        lost = len({(line["round"], line["client"]) for line in csv.DictReader(file)})
    megabytes = [own[key] / 1e6 for key in ("bytes_down", "bytes_up")]
    return (
        f"| {name} | {own['rounds']} | {lost} | {100 * scores['accuracy']:.2f} | "
        f"{100 * scores['weighted_f1']:.2f} | "
        f"{furthest(weights(folder, name), weights(folder, base)):.1e} | "
        f"{table_gap(own, inline):.1e} | {megabytes[0]:.2f} | {megabytes[1]:.2f} | "
        f"{sorted(rounds)[len(rounds) // 2]:.2f} | {seconds:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--corpus", type=Path, default=REAL if REAL.exists() else None)
    parser.add_argument("--save", action="store_true", help="into benchmarks/results/deploy.md")
    options = parser.parse_args()
    # So that the server and the nodes are ended whoever ends this.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="fedmer-demo-") as temporary, ExitStack() as stack:
        folder = Path(temporary)
        corpus = options.corpus
        if corpus is None:
            corpus = folder / "synthetic.npz"
            subprocess.run(fedmer("data", "synth", str(corpus)), check=True)
        parts, place, runs = folder / "parts", folder / "federation", folder / "runs"
        split = ["--partitioner", "SpeakerGroup", "--partitioner.clients", str(NODES)]
        subprocess.run(fedmer("data", "split", str(corpus), str(parts), *split), check=True)
        init = ["deploy", "init", str(place), "--nodes", str(NODES), "--port", str(free_port())]
        subprocess.run(fedmer(*init), check=True)
        for number in range(NODES):
            # The run beside Inline has to show the same bits, so its weights come as they are.
            Policy(secure_sum=False).write(place / f"node-{number}" / "policy.json")
        server = fedmer("deploy", "server", str(place))
        stack.enter_context(running(server, folder / "server.log", "Server is ready"))
        nodes = []
        for number in range(NODES):
            command = fedmer("deploy", "node", str(place / f"node-{number}"))
            command += ["--data", str(parts / f"client-{number}.npz")]
            log = folder / f"node-{number}.log"
            nodes.append(stack.enter_context(running(command, log, "is connected")))
        deployed = ["--executor", "Flower", "--executor.federation", str(place)]
        deployed += ["--data.path", str(parts / "public.npz"), "--executor.timeout", "120"]
        # Under a mask a class that few hold keeps its rows, and in Inline it does not.
        joint = ["--aggregator.heads", "joint"]
        deployed += joint
        whole = ["--data.path", str(corpus), *split, *joint]
        rounds = ["--trainer.max_epochs", str(options.rounds)]
        masked = ["--privacy", "SecureSum"]
        one = ["--trainer.max_epochs", "1"]
        seconds = {
            "Inline": fit(runs, "Inline", *whole, *rounds),
            "Flower": fit(runs, "Flower", *deployed, *rounds),
            "Inline-1": fit(runs, "Inline-1", *whole, *one),
            "SecureSum-1": fit(runs, "SecureSum-1", *deployed, *masked, *one),
            "SecureSum": fit(
                runs, "SecureSum", *deployed, *masked, *rounds, kill=(nodes[-1].pid, 3)
            ),
        }
        lines = [
            "| run | rounds | lost | accuracy | wF1 | weights: furthest from Inline | tables: "
            "furthest | MB down | MB up | seconds a round, median | seconds in all |",
            "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
        ]
        bases = {"Inline-1": "Inline-1", "SecureSum-1": "Inline-1"}
        lines += [
            row(runs, name, taken, bases.get(name, "Inline")) for name, taken in seconds.items()
        ]
        failures = (runs / "SecureSum" / "failures.csv").read_text().splitlines()[1:3]
        text = "\n".join([*lines, "", "Lost, first lines of `failures.csv`:", "", "```"])
        text += "\n" + "\n".join(failures) + "\n```"
        print(text)
        if options.save:
            from benchmarks.machine import machine, save

            save(
                "deploy.md", f"A deployment on one machine: {corpus.stem}", f"{text}\n\n{machine()}"
            )


if __name__ == "__main__":
    main()
