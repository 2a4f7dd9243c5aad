"""Real runs that take their time: published shapes, real conversations, loggers, benchmarks."""

import json
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import read_corpus
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.record.record import read_rows

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
REAL = ROOT.parent / "shared" / "data"
SMALL = ["--network.hidden", "16", "--local.batch_size", "16"]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up file of the shape of SDT's IEMOCAP pickle."""
    path = tmp_path_factory.mktemp("published") / "iemocap_multimodal_features.pkl"
    command = ["data", "synth", str(path), "--preset", "iemocap", "--format", "sdt-pickle"]
    assert main(command) == 0
    return path


def people(corpus: ConversationCorpus, split: str) -> set[str]:
    return {p for i in corpus.part(split) for p in corpus.conversations[i].people}


def test_published_shape_has_the_published_speakers(published: Path) -> None:
    corpus = read_corpus(published)
    assert corpus.shape.features == {"text": 1024, "audio": 1582, "visual": 342}
    assert len(corpus) == 151
    turns = {
        s: sum(len(corpus.conversations[i]) for i in corpus.part(s)) for s in ("train", "test")
    }
    assert turns == {"train": 5810, "test": 1623}
    assert len(people(corpus, "train")) == 8
    assert len(people(corpus, "test")) == 2
    assert not people(corpus, "train") & people(corpus, "test")
    train = corpus.part("train")
    assert len(Speaker().split(corpus, train, 0)) == 8
    assert len(VirtualSpeaker(20).split(corpus, train, 0)) == 20
    assert len(NWay(20).split(corpus, train, 0)) == 20


@pytest.mark.parametrize(
    ("split", "clients"), [("Speaker", 8), ("VirtualSpeaker", 20), ("NWay", 20)]
)
def test_published_shape_trains(here: Path, published: Path, split: str, clients: int) -> None:
    arguments = ["--partitioner", split, *SMALL, "--trainer.max_epochs", "1", "--name", "run"]
    assert main(["fit", "--data.path", str(published), *arguments]) == 0
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    assert result["clients"] == clients
    assert len(read_rows(here / "runs" / "run" / "clients.csv")) == clients
    assert sum(map(sum, result["last"]["scores"]["test"]["confusion"])) == 1623


@pytest.mark.parametrize("rule", ["FedAvg", "FedProx", "FedProto", "Local"])
@pytest.mark.parametrize(
    ("file", "modalities", "more"),
    [
        ("meld_dev.npz", 2, []),
        ("mosi.npz", 3, []),
        ("meld_text.npz", 1, ["--partitioner.min_utterances", "10"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*in both train and test.*")
def test_every_rule_runs_on_real_conversations(
    here: Path, rule: str, file: str, modalities: int, more: list[str]
) -> None:
    path = REAL / file
    if not path.exists():
        pytest.skip(f"{file} is real data and stays out of the repository; it is not here")
    arguments = [
        *("fit", "--data.path", str(path), "--aggregator", rule, "--partitioner", "Speaker"),
        *(*more, *SMALL, "--trainer.max_epochs", "1", "--name", "run"),
        *("--selector", "Uniform", "--selector.fraction", "0.2"),
    ]
    assert main(arguments) == 0
    result = json.loads((here / "runs" / "run" / "result.json").read_text())
    assert len(result["data"]["modalities"]) == modalities
    scores = result["last"]["scores"]["test"]
    assert 0 < scores["weighted_f1"] < 1
    support = [sum(row) for row in scores["confusion"]]
    recall = sum(r * s for r, s in zip(scores["recall"], support, strict=True)) / sum(support)
    assert recall == pytest.approx(scores["accuracy"], abs=1e-6)


def test_the_demonstration_beats_a_probe_without_context(here: Path) -> None:
    assert main(["fit", "--name", "demo"]) == 0
    result = json.loads((here / "runs" / "demo" / "result.json").read_text())
    for entry in ("last", "selected"):
        scores = result[entry]["scores"]["test"]
        assert scores["weighted_f1"] > result["baselines"]["probe"]["weighted_f1"] + 0.02
        assert scores["accuracy"] > result["baselines"]["majority"]["accuracy"] + 0.2
