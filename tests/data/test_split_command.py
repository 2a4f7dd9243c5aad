"""A client's file gives back what the client holds; what no file can say is a sentence."""

import itertools
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.commands import data as commands
from fedmer.contracts.partitioner import Partitioner
from fedmer.data.batch import Excerpt, excerpt
from fedmer.data.client_files import WRITABLE, write_clients
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.formats import native, read_corpus
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.dirichlet import Dirichlet
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.partitioners.session import Session
from fedmer.plugins.partitioners.speaker_group import SpeakerGroup
from fedmer.plugins.partitioners.speaker_private import SpeakerPrivate
from tests.data.partitions import clients as any_clients
from tests.data.typed import main
from tests.strategies import corpora, corpus_of, make_conversation

OWN = ("labels", "labelled", "roles", "positions")


def same(a: Excerpt, b: Excerpt) -> bool:
    """Everything but which utterances of the whole dialogue they are, which a file keeps to
    itself."""
    return (
        (a.dialogue, list(a.features)) == (b.dialogue, list(b.features))
        and all(getattr(a, name).tolist() == getattr(b, name).tolist() for name in OWN)
        and all(a.features[name].equal(b.features[name]) for name in a.features)
        and all(a.present[name].equal(b.present[name]) for name in a.features)
    )


def excerpts_of_file(path: Path) -> list[Excerpt]:
    corpus = read_corpus(path)
    assert corpus.part("train") == list(range(len(corpus)))
    return [excerpt(corpus, whole(dialogue, i)) for i, dialogue in enumerate(corpus.conversations)]


def check_files(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition], folder: Path
) -> None:
    """Every file and nothing else is there and gives the same excerpts as the corpus."""
    public = [dialogue for dialogue in corpus.conversations if dialogue.split != "train"]
    expected = {f"client-{number}.npz" for number in range(len(clients))}
    assert {p.name for p in folder.iterdir()} == expected | ({"public.npz"} if public else set())
    for number, client in enumerate(clients):
        path = folder / f"client-{number}.npz"
        given_back = excerpts_of_file(path)
        held = [excerpt(corpus, sample) for sample in client.samples]
        assert len(given_back) == len(held)
        assert all(same(a, b) for a, b in zip(given_back, held, strict=True))
        assert list(read_corpus(path).label_names) == list(corpus.label_names)
    if public:
        rest, again = corpus_of(public, len(corpus.label_names)), read_corpus(folder / "public.npz")
        assert list(again.label_names) == list(corpus.label_names)
        assert [t.split for t in again.conversations] == [t.split for t in public]
        for index, dialogue in enumerate(again.conversations):
            mine = excerpt(rest, whole(public[index], index))
            assert same(excerpt(again, whole(dialogue, index)), mine)


@pytest.mark.parametrize(
    ("words", "split"),
    [
        ("", Dialogue()),
        ("--partitioner.clients 3", Dialogue(3)),
        ("--partitioner Dialogue --partitioner.clients 3 --partitioner.alpha 1", Dialogue(3, 1.0)),
        ("--partitioner Central", Central()),
        ("--partitioner Session", Session()),
        ("--partitioner SpeakerGroup", SpeakerGroup()),
        ("--partitioner SpeakerPrivate", SpeakerPrivate()),
        ("--partitioner NWay --partitioner.clients 3", NWay(3)),
        ("--partitioner Dirichlet --partitioner.clients 3", Dirichlet(3)),
    ],
)
def test_files_give_back_what_clients_hold(
    words: str, split: Partitioner, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["synth", "made.npz", "--dialogues", "28"]) == 0
    corpus = read_corpus("made.npz")
    assert main(["split", "made.npz", "out", *words.split(), "--seed", "3"]) == 0
    clients = split.split(corpus, corpus.part("train"), 3)
    check_files(corpus, clients, here / "out")
    out = capsys.readouterr().out
    assert f"made split over {len(clients)} clients" in out
    assert f"Wrote out: {len(clients)} clients, and {len(corpus.part('test'))} dialogues" in out
    for client in clients:
        assert f" {client.examples} " in out


def test_the_split_is_that_of_fit() -> None:
    assert DEFAULTS["partitioner"]["class_path"] == commands.DEFAULT_SPLIT


def told(corpus: ConversationCorpus, sample: Sample) -> bool:
    """Is a sample what somebody without a listener makes of the utterances that are left?"""
    plain = replace(sample, listener=None, keep_gaps=False)
    return same(excerpt(corpus, sample), excerpt(corpus, plain))


@settings(max_examples=80, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_any_shares_are_written_or_refused_and_nothing_between(
    tmp_path_factory: pytest.TempPathFactory, corpus: ConversationCorpus, data: st.DataObject
) -> None:
    clients = data.draw(any_clients(corpus))
    folder = tmp_path_factory.mktemp("split") / "out"
    if all(told(corpus, sample) for client in clients for sample in client.samples):
        write_clients(corpus, clients, folder, "Any")
        check_files(corpus, clients, folder)
    else:
        with pytest.raises(InputError, match=r"^The split Any cannot .*which no file says. Use "):
            write_clients(corpus, clients, folder, "Any")
        assert not folder.exists()


def test_words_and_sessions_of_others_stay_behind(tmp_path: Path) -> None:
    turns = [("Ann", 0), ("Ben", 1), ("Ann", UNLABELLED), ("Ben", 2)]
    dialogue = replace(
        make_conversation("a", turns, session="s7"), utterances=("yes", "secret", "well", "hidden")
    )
    corpus = corpus_of([dialogue])
    (ann, _) = SpeakerPrivate().split(corpus, [0], 0)
    write_clients(corpus, [ann], tmp_path / "out", "SpeakerPrivate")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["client-0.npz"]
    with np.load(tmp_path / "out" / "client-0.npz") as file:
        assert file["turn"].tolist() == [0, 1]
        assert file["label"].tolist() == [0, UNLABELLED]
        assert file["utterance"].tolist() == ["yes", "well"]
        assert file["speaker"].tolist() == ["Ann", "Ann"]
        assert file["session"].tolist() == ["s7", "s7"]
        assert len(file["text"]) == 2


def test_training_dialogues_of_nobody_are_not_public(tmp_path: Path) -> None:
    conversations = [
        make_conversation("a", [("Ann", 0), ("Ann", 1)]),
        make_conversation("b", [("Ben", 0)]),
    ]
    corpus = corpus_of([*conversations, make_conversation("c", [("Cleo", 1)], split="val")])
    clients = SpeakerPrivate(min_utterances=2).split(corpus, [0, 1], 0)
    write_clients(corpus, clients, tmp_path, "SpeakerPrivate")
    assert [t.id for t in read_corpus(tmp_path / "public.npz").conversations] == ["c"]
    assert read_corpus(tmp_path / "public.npz").conversations[0].split == "val"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("split", "is missing; see"),
        ("split corpus.npz", "is missing; see"),
        ("split nowhere.npz out", "nowhere.npz does not exist"),
        ("split prose.npz out", "starts with 'Once"),
        ("split corpus.npz full", "full is not empty; name a new or an empty folder"),
        ("split corpus.npz corpus.npz", "corpus.npz is a file; name a new or an empty folder"),
        ("split corpus.npz no/where", "no is not a folder; make it first"),
        (f"split corpus.npz {'x' * 300}", "x cannot be written to: File name too long"),
        ("split corpus.npz out --partitioner Speker", "did you mean 'Speaker'?"),
        ("split corpus.npz out --partitioner null", "unknown partitioner 'null'"),
        ("split corpus.npz out --partitioner.clients 0", "clients is 0; expected at least 1"),
        ("split corpus.npz out --partitioner.clients 99", "there are only 16 training dialogues"),
        ("split corpus.npz out --partitioner.beta 1", "unknown option 'beta'"),
        ("split corpus.npz out --seed x", "seed"),
        (
            "split corpus.npz out --partitioner SpeakerGroup --partitioner.clients 9",
            "only 8 training speakers with labelled utterances",
        ),
        (
            "split corpus.npz out --partitioner Speaker",
            "The split Speaker cannot be written as files: in dialogue 'Ses01_0001' the client",
        ),
        (
            "split corpus.npz out --partitioner VirtualSpeaker --partitioner.clients 8",
            f"who is not the first to speak, which no file says. Use {WRITABLE}.",
        ),
        (
            "split corpus.npz out --partitioner SpeakerPrivate --partitioner.keep_gaps true",
            "keeps gaps where utterances of others were, which no file says. Use Central",
        ),
    ],
)
def test_wrong_words(
    words: str,
    sentence: str,
    here: Path,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "corpus.npz").write_bytes(corpus_file.read_bytes())
    (here / "prose.npz").write_bytes(b"Once upon a time")
    (here / "full").mkdir()
    (here / "full" / ".hidden").write_text("precious")
    before = sorted(here.rglob("*"))
    assert main(shlex.split(words)) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert sentence in error
    assert sorted(here.rglob("*")) == before


def test_an_empty_folder_will_do(here: Path, corpus_file: Path) -> None:
    (here / "out").mkdir()
    assert main(["split", str(corpus_file), "out", "--partitioner", "Central"]) == 0
    assert sorted(p.name for p in (here / "out").iterdir()) == ["client-0.npz", "public.npz"]
    assert main(["split", str(corpus_file), "out", "--partitioner", "Central"]) == 2


@pytest.mark.parametrize("made", [True, False])
def test_a_disk_that_is_full_leaves_nothing(
    made: bool,
    here: Path,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = itertools.count()
    save = np.savez_compressed

    def full(*arguments: object, **columns: object) -> None:
        if next(count) == 2:
            raise OSError(28, "No space left on device")
        save(*arguments, **columns)  # type: ignore[arg-type]

    monkeypatch.setattr(native.np, "savez_compressed", full)
    if made:
        (here / "out").mkdir()
    words = ["split", str(corpus_file), "out", "--partitioner.clients", "5"]
    assert main(words) == 2
    assert "client-2.npz cannot be written: No space left" in capsys.readouterr().err
    assert [p.name for p in here.rglob("*")] == (["out"] if made else [])
