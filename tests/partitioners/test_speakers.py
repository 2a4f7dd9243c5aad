"""Splits by person: Speaker, SpeakerPrivate, SpeakerGroup, VirtualSpeaker."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, whole
from fedmer.errors import InputError
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.plugins.partitioners.speaker_group import SpeakerGroup
from fedmer.plugins.partitioners.speaker_private import SpeakerPrivate
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from tests.strategies import corpora, corpus_of, make_conversation, random_corpus

TWO_CONVERSATIONS = corpus_of(
    [
        make_conversation("a", [("Cleo", 0), ("Ann", 1), ("Cleo", 2), ("Dan", UNLABELLED)]),
        make_conversation("b", [("Ben", 0), ("Cleo", 1), ("Ben", 3)]),
        make_conversation("c", [("Ben", 0), ("Ann", UNLABELLED), ("Ann", 1)], split="test"),
    ]
)


@pytest.mark.parametrize("split", [Speaker(), SpeakerPrivate(), SpeakerPrivate(keep_gaps=True)])
@settings(max_examples=40, deadline=None)
@given(corpus=corpora())
def test_a_client_is_a_speaker(split: Speaker, corpus: ConversationCorpus) -> None:
    clients = split.split(corpus, corpus.part("train"), 0)
    assert [c.name for c in clients] == sorted(c.name for c in clients)
    for client in clients:
        for sample in client.samples:
            conversation = corpus.conversations[sample.dialogue]
            assert sample.listener == client.name
            assert (conversation.speakers[sample.labelled] == client.name).all()
            own = conversation.speakers == client.name
            if isinstance(split, SpeakerPrivate):
                assert (sample.context == own).all()
                assert sample.keep_gaps == split.keep_gaps
                assert (sample.roles(conversation) == 0).all()
            else:
                assert sample.context.all()


def test_speakers_without_labels_get_no_client() -> None:
    clients = Speaker().split(TWO_CONVERSATIONS, [0, 1], 0)
    assert [(c.name, c.examples, len(c.samples)) for c in clients] == [
        ("Ann", 1, 1),
        ("Ben", 2, 1),
        ("Cleo", 3, 2),
    ]


def test_min_utterances_leaves_out_those_who_say_little() -> None:
    clients = Speaker(min_utterances=2).split(TWO_CONVERSATIONS, [0, 1], 0)
    assert [c.name for c in clients] == ["Ben", "Cleo"]
    assert [c.name for c in SpeakerPrivate(3).split(TWO_CONVERSATIONS, [0, 1], 0)] == ["Cleo"]
    with pytest.raises(InputError, match=r"min_utterances is 4.* more than 3 labelled"):
        Speaker(min_utterances=4).split(TWO_CONVERSATIONS, [0, 1], 0)
    with pytest.raises(InputError, match="min_utterances is 0; expected at least 1"):
        SpeakerPrivate(min_utterances=0)


def test_views_are_one_share_a_speaker() -> None:
    views = Speaker(min_utterances=3).views(TWO_CONVERSATIONS, 2)
    assert [(v.listener, v.labelled.tolist(), v.context.tolist()) for v in views] == [
        ("Ben", [True, False, False], [True, True, True]),
        ("Ann", [False, False, True], [True, True, True]),
    ]
    views = SpeakerPrivate(keep_gaps=True).views(TWO_CONVERSATIONS, 2)
    assert [(v.listener, v.context.tolist(), v.keep_gaps) for v in views] == [
        ("Ben", [True, False, False], True),
        ("Ann", [False, True, True], True),
    ]
    assert [v.listener for v in VirtualSpeaker(20).views(TWO_CONVERSATIONS, 2)] == ["Ben", "Ann"]


@settings(max_examples=60, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_virtual_speakers_are_as_many_as_asked_for(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    people = Speaker().split(corpus, corpus.part("train"), 0)
    dialogues = {person.name: len(person.samples) for person in people}
    clients = data.draw(st.integers(len(people), sum(dialogues.values())))
    devices = VirtualSpeaker(clients).split(corpus, corpus.part("train"), 1)
    assert len(devices) == clients
    held: dict[str, list[int]] = {person: [] for person in dialogues}
    for device in devices:
        (person,) = {sample.listener for sample in device.samples}
        held[str(person)].append(len(device.samples))
    for person, sizes in held.items():
        assert sum(sizes) == dialogues[person]
        assert max(sizes) - min(sizes) <= 1
    # One device fewer anywhere would be busier than the busiest is now.
    busiest = max(dialogues[p] / len(sizes) for p, sizes in held.items())
    assert all(len(s) == 1 or dialogues[p] / (len(s) - 1) >= busiest for p, s in held.items())


def test_iemocap_gives_four_speakers_three_devices_and_four_two() -> None:
    dialogues_a_session = {"Ses01": 28, "Ses02": 30, "Ses03": 32, "Ses04": 30}
    conversations = [
        make_conversation(f"{session}_{i}", [(f"{session}F", 0), (f"{session}M", 1)])
        for session, count in dialogues_a_session.items()
        for i in range(count)
    ]
    corpus = corpus_of(conversations)
    clients = VirtualSpeaker(20).split(corpus, corpus.part("train"), 0)
    devices = np.unique([c.name.split()[0] for c in clients], return_counts=True)[1]
    assert sorted(devices.tolist()) == [2, 2, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize("clients", [1, 2, 5])
def test_virtual_speakers_refuse_what_cannot_be(clients: int) -> None:
    with pytest.raises(InputError, match=f"clients is {clients}.*ask for 3 to 4 clients"):
        VirtualSpeaker(clients).split(TWO_CONVERSATIONS, [0, 1], 0)


def turns_by_person(corpus: ConversationCorpus, client: ClientPartition) -> Counter[str]:
    """Speaker -> utterances of theirs whose labels the client holds."""
    held = [(corpus.conversations[sample.dialogue], sample) for sample in client.samples]
    return Counter(
        p for conversation, sample in held for p in conversation.speakers[sample.labelled].tolist()
    )


@settings(max_examples=60, deadline=None)
@given(corpus=corpora(), data=st.data())
def test_a_group_holds_the_dialogues_and_the_labels_of_its_people(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    train = corpus.part("train")
    people = {c.name for c in Speaker().split(corpus, train, 0)}
    count = data.draw(st.integers(1, len(people)))
    groups = SpeakerGroup(count).split(corpus, train, 0)
    members = [set(turns_by_person(corpus, group)) for group in groups]
    assert len(groups) == count
    assert all(members)
    assert sum(map(len, members)) == len(people)
    assert set().union(*members) == people
    for group, own in zip(groups, members, strict=True):
        expected = {}
        for index in train:
            conversation = corpus.conversations[index]
            labelled = np.isin(conversation.speakers, list(own)) & (
                conversation.labels != UNLABELLED
            )
            if labelled.any():
                expected[index] = labelled.tolist()
        assert {s.dialogue: s.labelled.tolist() for s in group.samples} == expected
        assert all(s.context.all() and s.listener is None for s in group.samples)


@settings(max_examples=60, deadline=None)
@given(corpus=corpora(max_dialogues=8), data=st.data())
def test_groups_are_dealt_from_those_who_say_most(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    train = corpus.part("train")
    said = {c.name: c.examples for c in Speaker().split(corpus, train, 0)}
    count = data.draw(st.integers(1, len(said)))
    expected: list[dict[str, int]] = [{} for _ in range(count)]
    for person in sorted(said, key=lambda name: (-said[name], name)):
        fewest = min(expected, key=lambda group: sum(group.values()))
        fewest[person] = said[person]
    groups = SpeakerGroup(count).split(corpus, train, data.draw(st.integers(0, 9)))
    assert [dict(turns_by_person(corpus, group)) for group in groups] == expected


def test_groups_of_many_speakers_are_nearly_equal() -> None:
    corpus = random_corpus(0, dialogues=40, turns=10, modalities={"text": 1})
    sizes = [c.examples for c in SpeakerGroup().split(corpus, corpus.part("train"), 0)]
    assert len(sizes) == 4
    assert sum(sizes) == 400
    assert max(sizes) - min(sizes) <= 5


def test_a_group_sees_a_dialogue_of_nobody_whole() -> None:
    (view,) = SpeakerGroup(2).views(TWO_CONVERSATIONS, 2)
    expected = whole(TWO_CONVERSATIONS.conversations[2], 2)
    assert view.context.tolist() == expected.context.tolist()
    assert view.labelled.tolist() == expected.labelled.tolist()
    assert view.listener is None


def test_more_groups_than_speakers_with_labels_are_refused() -> None:
    assert len(SpeakerGroup(3).split(TWO_CONVERSATIONS, [0, 1], 0)) == 3
    why = (
        r"^clients is 4, but there are only 3 training speakers with labelled utterances and every "
    )
    with pytest.raises(InputError, match=why + r"client needs one; ask for at most 3 clients\.$"):
        SpeakerGroup(4).split(TWO_CONVERSATIONS, [0, 1], 0)
