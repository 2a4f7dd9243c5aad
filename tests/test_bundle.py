"""A model by itself says what the run said, and what is wrong with one is a sentence."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fedmer
from fedmer.__main__ import main
from fedmer.bundle.calibration import fit_temperature
from fedmer.bundle.contents import FORMAT
from fedmer.bundle.files import read_bundle, write_bundle
from fedmer.bundle.graphs import save_graph
from fedmer.bundle.model import Model, load
from fedmer.bundle.prediction import Prediction, softmax
from fedmer.data.corpus import Conversation
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats import native, read_corpus
from fedmer.errors import InputError
from fedmer.plugins import registry
from tests.bundles import contents_of
from tests.federations import small_corpus

BUILT_IN = [plugin.name for plugin in registry.plugins("networks") if plugin.package == "fedmer"]
SMALL = ["--network.hidden", "8", "--network.heads", "2", "--trainer.max_epochs", "2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on a corpus that says what made its features, seen from every speaker."""
    folder = tmp_path_factory.mktemp("bundle")
    corpus = small_corpus()
    made = {"text": ExtractorRecord("fedmer.plugins.extractors.words.Words", {"size": 256})}
    native.write(replace(corpus, extractors=made), folder / "small.npz")
    words = ["--data.path", str(folder / "small.npz"), "--partitioner", "Speaker"]
    code = main(["fit", *words, *SMALL, "--runs", str(folder), "--name", "a"])
    assert code == 0
    return folder / "a"


@pytest.mark.parametrize(
    "rule", [p.name for p in registry.plugins("aggregators") if p.package == "fedmer"]
)
def test_a_run_of_every_rule_ends_well_and_leaves_a_model_or_says_why_not(
    rule: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = str(run.parent / "small.npz")
    words = ["--aggregator", rule, "--data.path", corpus, "--partitioner", "Speaker", *SMALL]
    assert main(["fit", *words, "--runs", str(tmp_path), "--name", "b"]) == 0
    said = capsys.readouterr().out
    assert ("no model" in said.lower()) != (tmp_path / "b" / "model").is_dir(), said


def damaged(run: Path, folder: Path) -> Path:
    shutil.copytree(run / "model", folder / "model")
    return folder / "model"


def redigest(bundle: Path, **changes: Any) -> None:
    """Change a description as somebody would who knows of the digests."""
    described = json.loads((bundle / "model.json").read_text()) | changes
    content = json.dumps(described).encode()
    (bundle / "model.json").write_bytes(content)
    digests = json.loads((bundle / "digests.json").read_text())
    digests["model.json"] = hashlib.sha256(content).hexdigest()
    (bundle / "digests.json").write_text(json.dumps(digests))


def test_a_fresh_process_says_what_the_run_counted(run: Path) -> None:
    """Three lines of Python, against the votes that the run kept of its last round."""
    program = (
        "import sys, json, fedmer\n"
        "model = fedmer.load(sys.argv[1])\n"
        "corpus = fedmer.read_corpus(sys.argv[2])\n"
        "said = {c.id: model.predict(c).emotions for c in corpus.conversations}\n"
        "assert 'pytorch_lightning.trainer' not in sys.modules\n"
        "print(json.dumps(said))\n"
    )
    words = [sys.executable, "-c", program, str(run), str(run.parent / "small.npz")]
    found = subprocess.run(words, capture_output=True, text=True, check=True)
    said = json.loads(found.stdout)
    with np.load(run / "test_votes.npz", allow_pickle=False) as votes:
        names = np.array(load(run).labels)[votes["votes_last"].argmax(axis=1)]
        assert len(names) > 10
        for dialogue, turn, name in zip(votes["dialogue"], votes["turn"], names, strict=True):
            assert said[str(dialogue)][int(turn)] == name


def test_the_checkpoint_the_run_and_the_bundle_are_one_model(run: Path, tmp_path: Path) -> None:
    assert main(["export", str(run / "checkpoints" / "last.ckpt"), str(tmp_path / "b")]) == 0
    corpus = read_corpus(run.parent / "small.npz")
    said = [load(p).predict(corpus.conversations[0]).probabilities for p in (run, tmp_path / "b")]
    assert np.array_equal(*said)
    np.testing.assert_allclose(said[0].sum(axis=1), 1, atol=1e-5)
    described = json.loads((tmp_path / "b" / "model.json").read_text())
    assert described["extractors"]["text"]["init_args"] == {"size": 256}
    card = (tmp_path / "b" / "README.md").read_text()
    assert card == (run / "model" / "README.md").read_text()
    for said_of in ("Words(size=256)", "95% interval", "### By emotion", "## Limits"):
        assert said_of in card
    assert main(["export", str(run), str(tmp_path / "b")]) == 2


def test_every_network_goes_through_a_bundle(tmp_path: Path) -> None:
    corpus = small_corpus()
    conversation = corpus.conversations[0]
    for plugin in registry.plugins("networks"):
        if plugin.package != "fedmer":
            continue
        contents = contents_of(corpus, plugin.name)
        folder = tmp_path / plugin.name
        write_bundle(contents, "A card.", folder)
        one, other = (Model(c, "x").predict(conversation) for c in (contents, read_bundle(folder)))
        assert np.array_equal(one.probabilities, other.probabilities), plugin.name
        for weights in (one.weights, other.weights):
            if weights:
                np.testing.assert_allclose(sum(weights.values()), 1, atol=1e-5)


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_said_of_a_dialogue_depends_on_no_other_and_on_no_label(
    data: st.DataObject,
) -> None:
    corpus = small_corpus()
    model = Model(contents_of(corpus, hidden=8, heads=2), "x")
    chosen = data.draw(st.lists(st.integers(0, 19), min_size=1, max_size=4, unique=True))
    conversations = [corpus.conversations[i] for i in chosen]
    alone = [model.predict(conversation).probabilities for conversation in conversations]
    for one, together in zip(alone, model.predict_all(conversations), strict=True):
        np.testing.assert_allclose(one, together.probabilities, atol=1e-5)
    first = conversations[0]
    bare = Conversation.of(
        {
            m: np.where(first.present[m][:, None], rows, np.nan)
            for m, rows in first.features.items()
        },
        first.speakers.tolist(),
    )
    np.testing.assert_allclose(model.predict(bare).probabilities, alone[0], atol=1e-5)


def test_a_missing_modality_is_a_mask_and_others_have_to_fit() -> None:
    corpus = small_corpus()
    model = Model(contents_of(corpus, hidden=8, heads=2), "x")
    conversation = corpus.conversations[0]
    text = Conversation.of({"text": conversation.features["text"]}, conversation.speakers.tolist())
    prediction = model.predict(text)
    assert (prediction.weights["text"] > 0.999).all()
    assert (prediction.weights["audio"] == 0).all()
    assert set(prediction.students) == {"text", "audio"}
    with pytest.raises(InputError, match="'text' has 4 dimensions, but the model was trained on 6"):
        model.predict(Conversation.of({"text": np.zeros((2, 4))}, ["a", "b"]))
    with pytest.raises(InputError, match="has gaze, but the model was trained on text, audio"):
        model.predict(Conversation.of({"gaze": np.zeros((2, 4))}, ["a", "b"]))
    with pytest.raises(InputError, match="has 3 speakers, but the network was built for 2"):
        model.predict(Conversation.of({"text": np.zeros((3, 6))}, ["a", "b", "c"]))
    with pytest.raises(InputError, match="holds NaN or infinity in turn 1"):
        model.predict(Conversation.of({"text": [[0] * 6, [np.inf] * 6]}, ["a", "b"]))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 2
    said = capsys.readouterr().err
    assert said.startswith("fedmer: error: ")
    assert said.count("\n") == 1
    return said


@pytest.mark.parametrize("name", ["model.json", "weights.safetensors", "README.md"])
def test_a_changed_or_missing_file_is_named(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = damaged(run, tmp_path)
    content = bytearray((bundle / name).read_bytes())
    content[-3] ^= 1
    (bundle / name).write_bytes(content)
    said = refused(capsys, "export", str(bundle), str(tmp_path / "x"))
    assert f"{name} is not what was exported: its digest differs" in said
    (bundle / name).unlink()
    said = refused(capsys, "export", str(bundle), str(tmp_path / "x"))
    assert f"lacks the file {name}" in said
    assert not (tmp_path / "x").exists()


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "newer": ({"format": FORMAT + 1}, "which a newer fedmer wrote"),
    "labels": ({"labels": ["a"]}, "its 'labels' are no names"),
    "features": ({"features": {"text": 7, "audio": 4}}, "no mean and deviation of 'text' of 7"),
    "speakers": ({"speakers": 10**9}, "its 'speakers' is no number of people"),
    "lacks": ({"network": None}, "its 'network' is missing"),
    "foreign": ({"network": {"class_path": "subprocess.Popen"}}, "name subprocess.Popen, which is"),
    "options": (
        {"network": {"class_path": "fedmer.plugins.networks.sdt.SDT", "init_args": {"x": 1}}},
        "cannot be built here",
    ),
    "huge": (
        {
            "network": {
                "class_path": "fedmer.plugins.networks.sdt.SDT",
                "init_args": {"hidden": 2**17, "heads": 2},
            }
        },
        "its weights do not fit its network",
    ),
    "personal": (
        {"aggregator": {"class_path": "fedmer.plugins.aggregators.local.Local"}},
        "Local keeps a personal network on every client",
    ),
    "second": (
        {"aggregator": {"class_path": "fedmer.plugins.aggregators.ditto.Ditto"}},
        "Ditto keeps a personal network on every client",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_description_from_anybody_is_checked(
    run: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = damaged(run, tmp_path)
    changes, sentence = CHANGES[name]
    redigest(bundle, **changes)
    assert sentence in refused(capsys, "export", str(bundle), str(tmp_path / "x"))


def test_what_is_no_model_is_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], run: Path
) -> None:
    assert "does not exist; expected a run" in refused(capsys, "export", "nowhere", "x")
    assert "is no model: neither a bundle" in refused(capsys, "export", str(tmp_path), "x")
    assert "expected hf://OWNER/NAME" in refused(capsys, "export", str(run), "hf://x")
    assert "exists; choose another" in refused(
        capsys, "export", str(run), str(run / "result.json"), "--format", "onnx"
    )


def test_a_run_of_personal_networks_has_no_model(
    tmp_path: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data.path", str(corpus_file), "--aggregator", "Local", "--partitioner.clients", "3"]
    assert main(["fit", *words, *SMALL[:4], "--trainer.max_epochs", "1", "--runs", str(tmp_path),
                 "--name", "a"]) == 0  # fmt: skip
    assert "Local keeps a personal network on every client" in capsys.readouterr().out
    assert not (tmp_path / "a" / "model").exists()


@pytest.mark.parametrize("network", ["EarlyFusion", "SDT"])
def test_torchscript_says_the_same_without_fedmer(network: str, tmp_path: Path) -> None:
    corpus = small_corpus()
    model = Model(contents_of(corpus, network), "x")
    save_graph(model, tmp_path / "a.pt", "torchscript")
    conversation = corpus.conversations[3]
    graph = torch.jit.load(tmp_path / "a.pt")
    rows = [torch.from_numpy(conversation.features[m])[None] for m in ("text", "audio")]
    there = [torch.from_numpy(conversation.present[m])[None] for m in ("text", "audio")]
    people = conversation.people
    roles = torch.tensor([[people.index(person) for person in conversation.speakers]])
    said = graph(*rows, *there, roles)[0].numpy()
    np.testing.assert_allclose(said, model.predict(conversation).probabilities, atol=1e-4)
    with pytest.raises(InputError, match="Window cannot be written as torchscript"):
        save_graph(Model(contents_of(corpus, "Window"), "x"), tmp_path / "b.pt", "torchscript")
    assert not (tmp_path / "b.pt").exists()


@pytest.mark.slow
@pytest.mark.parametrize("network", [name for name in BUILT_IN if name != "Window"])
def test_every_other_network_can_be_torchscript(network: str, tmp_path: Path) -> None:
    model = Model(contents_of(small_corpus(), network), "x")
    save_graph(model, tmp_path / "a.pt", "torchscript")


class Hub:
    """What fedmer calls of huggingface_hub, over a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> None:
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)

    def upload_folder(self, repo_id: str, folder_path: Path, revision: str | None) -> None:
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def snapshot_download(self, name: str, revision: str | None, allow_patterns: list[str]) -> str:
        if not (self.folder / name).is_dir():
            raise OSError("404: no such repository")
        return str(self.folder / name)


def test_the_hub_is_asked_by_its_library(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    said = refused(capsys, "export", str(run), "hf://me/mine")
    assert "install it with pip install huggingface_hub" in said
    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub(tmp_path))  # type: ignore[arg-type]
    assert main(["export", str(run), "hf://me/mine"]) == 0
    assert load("hf://me/mine").labels == load(run).labels
    with pytest.raises(InputError, match="the hub refuses"):
        load("hf://me/other")


@given(seed=st.integers(0, 10**6), factor=st.floats(0.2, 5.0))
@settings(max_examples=30)
def test_a_temperature_makes_labels_likeliest_and_moves_with_the_logits(
    seed: int, factor: float
) -> None:
    random = np.random.default_rng(seed)
    logits = random.normal(size=(200, 3)).astype(np.float32)
    drawn = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    spoken = Conversation.of({"text": np.zeros((200, 1))}, ["a"] * 200)
    labelled = replace(spoken, labels=drawn.astype(np.int64))

    def surprise(temperature: float) -> float:
        chances = Prediction(labelled, ("a", "b", "c"), logits, temperature).probabilities
        return float(-np.log(chances[np.arange(200), drawn]).mean())

    fitted = fit_temperature([Prediction(labelled, ("a", "b", "c"), logits)])
    for other in (0.9 * fitted, 1.1 * fitted, 1.0):
        assert surprise(fitted) <= surprise(other) + 1e-6
    scaled = fit_temperature([Prediction(labelled, ("a", "b", "c"), factor * logits)])
    assert scaled == pytest.approx(np.clip(factor * fitted, 0.05, 20), rel=1e-2)
    with pytest.raises(InputError, match="none of these utterances has a label"):
        fit_temperature([Prediction(spoken, ("a", "b", "c"), logits)])


def test_a_run_with_a_validation_part_fits_a_temperature(tmp_path: Path, corpus_file: Path) -> None:
    words = ["--data.path", str(corpus_file), "--partitioner.clients", "2", *SMALL]
    assert main(["fit", *words, "--runs", str(tmp_path), "--name", "a"]) == 0
    model = load(tmp_path / "a")
    found = model.contents.temperature
    assert found is not None
    assert model.calibrate() == found
    conversation = read_corpus(corpus_file).conversations[0]
    calm = model.predict(conversation)
    assert calm.emotions == load(tmp_path / "a").predict(conversation).emotions
    np.testing.assert_allclose(calm.probabilities, softmax(calm.logits / found))


def test_the_api_is_one_import() -> None:
    assert fedmer.load is load
    assert fedmer.Conversation is Conversation
    with pytest.raises(InputError, match="'text' is no matrix"):
        Conversation.of({"text": [[1], [2, 3]]}, ["a", "b"])
