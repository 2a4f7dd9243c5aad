"""A live federation whose nodes make their features of their own clips, up to its model."""

import contextlib
import csv
import os
import signal
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("flwr")

import fedmer
from fedmer.__main__ import main
from fedmer.data.formats import read_corpus
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.processes import free_port
from fedmer.flower.node.policy import Policy
from tests.flower.deployed import Command, belonging_to, until
from tests.recordings import record, tone

for needed in ("av", "opensmile", "wordllama"):
    pytest.importorskip(needed, reason="needs pip install 'fedmer[extract,flower]'")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]

NODES = 2
SETTINGS = """\
labels: [glad, cross]
text: Words
audio: {class_path: OpenSmile, init_args: {features: eGeMAPSv02}}
"""


def clips(folder: Path, node: int) -> Path:
    """Eight dialogues of two short clips: high voices are glad."""
    folder.mkdir()
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("dialogue", "turn", "speaker", "label", "utterance", "audio"))
        for number in range(16):
            glad = number // 2 % 2 == 0
            sound = tone(0.4, 16_000, 300 if glad else 120, seed=100 * node + number)
            name = record(folder / f"{number}.wav", sound).name
            said = ("so good to see you", "leave me alone")[not glad]
            label = ("glad", "cross")[not glad]
            row = (f"n{node}-d{number // 2}", number % 2, f"ann{node}", label, said, name)
            writer.writerow(row)
    return folder / "clips.csv"


def test_two_rounds_over_nodes_with_clips_end_with_a_model(here: Path) -> None:
    (here / "extractors.yaml").write_text(SETTINGS)
    where = ["--host", "127.0.0.1", "--port", str(free_port()), "--nodes", str(NODES)]
    words = ["deploy", "init", str(here / "federation"), *where]
    assert main([*words, "--extractors", str(here / "extractors.yaml")]) == 0
    federation = Federation.read(here / "federation")
    tables = [clips(here / f"hospital-{number}", number) for number in range(NODES)]
    started: list[Command] = []

    def start(name: str, *words: object) -> Command:
        made = Command(*words, output=here / f"{name}.out", environment={})
        started.append(made)
        return made

    try:
        for number, table in enumerate(tables):
            node = federation.node(f"node-{number}")
            Policy(secure_sum=False, smallest_cohort=NODES).write(node.policy)
            start(f"node-{number}", "deploy", "node", node.folder, "--source", table)
        server = start("server", "deploy", "server", federation.folder)
        server.until_it_says("Server is ready")
        for node_process in started[:NODES]:
            node_process.until_it_says("is connected")
        over = ("--executor", "Flower", "--executor.federation", federation.folder)
        network = ("--network.hidden", 8, "--network.heads", 2, "--aggregator", "FedAvg")
        rounds = ("--trainer.max_epochs", 2, "--name", "clips")
        run = start("fit", "fit", *over, *network, *rounds)
        assert run.ends() == 0, run.said()
    finally:
        for command in started:
            if command.process.poll() is None:
                command.process.send_signal(signal.SIGTERM)
        for command in started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.ends(seconds=60)
        with contextlib.suppress(AssertionError):
            until(lambda: not belonging_to(here), str, 15)
        left = belonging_to(here)
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        assert not left

    # Clips and features stay where they were made.
    for number in range(NODES):
        kept = read_corpus(federation.node(f"node-{number}").folder / "corpus.npz")
        assert kept.shape.features == {"text": 256, "audio": 88}
        assert len(kept) == 8
    found = fedmer.Run(here / "runs" / "clips")
    assert [row["clients"] for row in found.rounds] == [NODES, NODES]
    assert not list((here / "runs").rglob("corpus*"))
    # The model knows what made its features, and reads new clips.
    (here / "new").mkdir()
    source = clips(here / "new" / "clips", 7)
    model = here / "runs" / "clips" / "model"
    assert main(["predict", str(model), str(source), "--out", str(here / "said.csv")]) == 0
    with (here / "said.csv").open(newline="") as file:
        said = list(csv.DictReader(file))
    assert len(said) == 16
    assert {row["dialogue"] for row in said} == {f"n7-d{number}" for number in range(8)}
    assert found.model.labels == ("glad", "cross")
    new = read_corpus(federation.node("node-0").folder / "corpus.npz")
    for dialogue in found.model.predict_all(new.conversations):
        assert set(dialogue.emotions) <= {"glad", "cross"}
