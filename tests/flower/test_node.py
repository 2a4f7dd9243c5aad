"""What a node has: its dialogues, what it tells of them, and what it remembers."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.client import ClientMemory
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats.native import write
from fedmer.data.partition import ClientPartition, whole
from fedmer.data.remote import Request
from fedmer.data.standardise import federated_statistics, statistics
from fedmer.errors import InputError
from fedmer.flower.node.data import FEWEST_TURNS, NodeData, NodeMemory, shape_for
from tests.federations import small_corpus
from tests.strategies import corpus_of, make_conversation

ASKED = Request("federated", 0.1, 0)


def file_of(corpus: ConversationCorpus, folder: Path, name: str = "c.npz") -> Path:
    # The native format wants a test part, which a node never reads.
    last = make_conversation("last", [("Ann", 0), ("Ben", 1)], split="test")
    parts = {dialogue.split for dialogue in corpus.conversations}
    conversations = list(corpus.conversations)
    if "test" not in parts and corpus.shape.features.keys() == last.features.keys():
        conversations.append(last)
    path = folder / name
    write(ConversationCorpus(corpus.name, conversations, corpus.label_names), path)
    return path


def conversations(count: int, split: str = "train", turns: int = 4) -> list:
    people = [("Ann", 0), ("Ben", 1), ("Ann", 2), ("Ben", 3), ("Cleo", 0)]
    return [
        make_conversation(f"{split}{i}", people[:turns], split=split, seed=i) for i in range(count)
    ]


def ids(data: NodeData, what: str) -> set[str]:
    samples = data.training.samples if what == "training" else data.held
    return {data.corpus.conversations[sample.dialogue].id for sample in samples}


def test_a_validation_part_is_kept_back(tmp_path: Path) -> None:
    corpus = corpus_of([*conversations(6), *conversations(2, "val"), *conversations(1, "test")])
    data = NodeData.read(file_of(corpus, tmp_path), replace(ASKED, holdout=0.5))
    assert ids(data, "training") == {f"train{i}" for i in range(6)}
    assert ids(data, "held") == {"val0", "val1"}
    assert data.describe(ASKED).held == 2


@pytest.mark.parametrize(("fraction", "held"), [(0.0, 0), (0.1, 1), (0.5, 5), (0.99, 9)])
def test_without_one_a_fraction_is_kept_back(tmp_path: Path, fraction: float, held: int) -> None:
    path = file_of(corpus_of(conversations(10)), tmp_path)
    data = NodeData.read(path, replace(ASKED, holdout=fraction))
    assert (len(ids(data, "training")), len(ids(data, "held"))) == (10 - held, held)
    assert not ids(data, "training") & ids(data, "held")
    again = NodeData.read(path, replace(ASKED, holdout=fraction))
    assert ids(again, "held") == ids(data, "held")
    described = data.describe(replace(ASKED, standardise="none"))
    assert int(described.counts.sum()) == 4 * (10 - held)
    assert described.held == held


def test_few_dialogues_are_all_learnt_from(tmp_path: Path) -> None:
    data = NodeData.read(
        file_of(corpus_of(conversations(4)), tmp_path), replace(ASKED, holdout=0.5)
    )
    assert (len(ids(data, "training")), len(ids(data, "held"))) == (4, 0)


def test_nothing_to_learn_from_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "c.npz"
    write(corpus_of([*conversations(1), *conversations(2, "test")]), path)
    with np.load(path) as file:
        rows = {key: file[key] for key in file.files}
    rows["split"] = np.where(rows["split"] == "train", "val", rows["split"])
    np.savez(path, **rows)
    with pytest.raises(InputError, match=r"has no dialogue of split 'train' to learn from\.$"):
        NodeData.read(path, ASKED)


def test_sums_of_few_turns_are_not_told(tmp_path: Path) -> None:
    few = corpus_of(conversations(2, turns=4))
    data = NodeData.read(file_of(few, tmp_path), replace(ASKED, holdout=0.0))
    said = rf"present in \d utterances only, and the sums of fewer than {FEWEST_TURNS} say too much"
    with pytest.raises(InputError, match=said):
        data.describe(ASKED)
    for kind in ("local", "none"):
        assert data.describe(replace(ASKED, standardise=kind)).moments == {}


def test_a_description_is_counts_and_sums(tmp_path: Path) -> None:
    corpus = corpus_of([*conversations(6, turns=5), *conversations(3, "test", turns=2)])
    data = NodeData.read(file_of(corpus, tmp_path), replace(ASKED, holdout=0.0))
    told = data.describe(ASKED)
    assert told.name == ""
    assert told.labels == tuple(corpus.label_names)
    assert told.features == {"text": 3, "audio": 2}
    assert told.counts.tolist() == [12, 6, 6, 6]
    assert told.speakers == 3
    for name, own in told.moments.items():
        rows = [
            dialogue.features[name][dialogue.present[name]].astype(np.float64)
            for dialogue in corpus.conversations
            if dialogue.split == "train"
        ]
        assert own.count == sum(map(len, rows))
        np.testing.assert_allclose(own.total, np.concatenate(rows).sum(axis=0))
        np.testing.assert_allclose(own.squares, np.square(np.concatenate(rows)).sum(axis=0))


def test_moments_of_nodes_give_the_statistics_of_one_process(tmp_path: Path) -> None:
    corpus = small_corpus()
    train = corpus.part("train")
    parts = [train[0::2], train[1::2]]
    samples = [
        ClientPartition(f"{n}", [whole(corpus.conversations[i], i) for i in part])
        for n, part in enumerate(parts)
    ]
    expected = federated_statistics(corpus, samples)
    told = []
    for number, part in enumerate(parts):
        rest = [corpus.conversations[i] for i in (*part, *corpus.part("test"))]
        own = ConversationCorpus("node", rest, corpus.label_names)
        path = file_of(own, tmp_path, f"{number}.npz")
        data = NodeData.read(path, replace(ASKED, holdout=0.0))
        told.append(data.describe(ASKED).moments)
    found = statistics(told)
    assert found.keys() == expected.keys()
    for name in expected:
        assert np.array_equal(found[name].mean, expected[name].mean)
        assert np.array_equal(found[name].deviation, expected[name].deviation)


def test_a_client_is_standardised_as_told(tmp_path: Path) -> None:
    corpus = corpus_of([*conversations(6, turns=5), *conversations(2, "val")])
    data = NodeData.read(file_of(corpus, tmp_path), ASKED)
    own = data.client(data.own_statistics())
    plain = data.client(None)
    assert (len(own.train), len(own.holdout)) == (6, 2)
    rows = torch.cat([e.features["text"][e.present["text"]] for e in own.train])
    torch.testing.assert_close(rows.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    raw = corpus.conversations[0].features["text"]
    assert np.array_equal(plain.train[0].features["text"].numpy(), raw)


def test_a_shape_has_room_for_the_most_people() -> None:
    corpus = corpus_of(conversations(2, turns=5))
    assert corpus.shape.speakers == 3
    assert (shape_for(corpus, 7).speakers, shape_for(corpus, 2).speakers) == (7, 3)


def memory_of(number: int) -> ClientMemory:
    return ClientMemory(rule={"c": torch.tensor([float(number)])})


def number_in(memory: ClientMemory) -> int | None:
    return int(memory.rule["c"]) if memory else None


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_memory_goes_from_round_to_round(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path / "run")
    assert not memory.before(0)
    memory.after(0, ClientMemory())
    assert not (tmp_path / "run").exists()
    memory.after(0, memory_of(0))
    assert number_in(memory.before(1)) == 0
    assert not memory.before(0)
    memory.after(3, memory_of(3))  # two rounds went by without this node
    assert number_in(NodeMemory(tmp_path / "run").before(4)) == 3
    assert number_in(memory.before(3)) == 0


def test_only_two_rounds_are_kept(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path)
    for number in range(5):
        memory.after(number, memory_of(number))
    assert files(tmp_path) == ["000003.pt", "000004.pt"]
    assert number_in(memory.before(5)) == 4
    assert number_in(memory.before(4)) == 3
    said = r"remembers rounds 4 to 5 only, and was asked to go on with round 3; go on from a later"
    with pytest.raises(InputError, match=said):
        memory.before(2)
    with pytest.raises(InputError, match="remembers rounds 4 to 5 only"):
        memory.before(3)


def test_a_round_that_is_repeated_replaces_what_came_of_it(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path)
    for number in range(3):
        memory.after(number, memory_of(number))
    memory.after(2, memory_of(20))
    assert files(tmp_path) == ["000001.pt", "000002.pt"]
    assert number_in(memory.before(3)) == 20
    memory.after(1, ClientMemory())
    assert files(tmp_path) == []


def test_half_a_file_is_never_read(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path)
    memory.after(0, memory_of(0))
    (tmp_path / "fresh.pt").write_bytes(b"half")
    assert number_in(memory.before(1)) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 2)), min_size=1, max_size=12))
@settings(max_examples=60)
def test_a_restart_from_the_last_checkpoint_finds_the_state_of_then(
    history: list[tuple[bool, int]],
) -> None:
    """A server loses at most the round in progress, which the node may have finished.

    It then chooses the same cohort again, so whoever took part does so again.
    """
    with TemporaryDirectory() as folder:
        memory = NodeMemory(Path(folder))
        remembered: int | None = None
        stamp = 0
        for round, (takes_part, lost) in enumerate(history):
            for _ in range(1 + lost if takes_part else 0):
                assert number_in(memory.before(round)) == remembered
                stamp += 1
                memory.after(round, memory_of(stamp))
            remembered = stamp if takes_part else remembered
        assert number_in(memory.before(len(history))) == remembered
        assert len(files(Path(folder))) <= 2


def test_what_an_attempt_that_was_given_up_left_behind_is_forgotten(tmp_path: Path) -> None:
    memory = NodeMemory(tmp_path)
    memory.begin("first", 0)
    for number in range(4):
        memory.after(number, memory_of(number))
    memory.begin("first", 0)
    assert number_in(memory.before(4)) == 3
    # The server lost round 3, goes on with it, and the node is not there until round 4.
    memory.begin("second", 3)
    assert number_in(memory.before(4)) == 2
