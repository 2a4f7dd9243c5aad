import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.errors import InputError
from tests.strategies import corpora, make_conversation

CONVERSATION = make_conversation(
    "conversation",
    [("Ben", 0), ("Ann", 1), ("Ben", UNLABELLED), ("Cleo", 1), ("Ann", 0), ("Dan", 2)],
)


def sample(context: list[int], listener: str | None = None, keep_gaps: bool = False) -> Sample:
    mask = np.zeros(len(CONVERSATION), dtype=bool)
    mask[context] = True
    return Sample(0, mask, mask & (CONVERSATION.labels != UNLABELLED), listener, keep_gaps)


def test_the_listener_is_role_0_and_partners_follow_in_order_of_speech() -> None:
    assert sample([0, 1, 2, 3, 4, 5], "Cleo").roles(CONVERSATION).tolist() == [1, 2, 1, 0, 2, 3]
    assert sample([0, 1, 2, 3, 4, 5], "Ben").roles(CONVERSATION).tolist() == [0, 1, 0, 2, 1, 3]


def test_without_a_listener_the_first_to_speak_is_role_0() -> None:
    assert sample([0, 1, 2, 3, 4, 5]).roles(CONVERSATION).tolist() == [0, 1, 0, 2, 1, 3]
    assert sample([3, 4, 5]).roles(CONVERSATION).tolist() == [0, 1, 2]


def test_roles_count_only_people_within_the_context() -> None:
    assert sample([1, 4], "Ann").roles(CONVERSATION).tolist() == [0, 0]
    assert sample([0, 4, 5], "Ann").roles(CONVERSATION).tolist() == [1, 0, 2]


def test_positions_keep_their_gaps_or_close_up() -> None:
    assert sample([0, 3, 4], keep_gaps=True).positions().tolist() == [0, 3, 4]
    assert sample([0, 3, 4], keep_gaps=False).positions().tolist() == [0, 1, 2]


@settings(max_examples=50, deadline=None)
@given(corpora(), st.data())
def test_roles_say_who_is_the_same_and_nothing_else(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    dialogue = corpus.conversations[0]
    listener = data.draw(st.sampled_from([None, *dialogue.people]))
    first_labelled = int(np.flatnonzero(dialogue.labels != UNLABELLED)[0])
    context = np.array(
        data.draw(st.lists(st.booleans(), min_size=len(dialogue), max_size=len(dialogue)))
    )
    context[first_labelled] = True
    held = Sample(0, context, context & (dialogue.labels != UNLABELLED), listener)
    roles, people = held.roles(dialogue), dialogue.speakers[context]
    assert ((roles[:, None] == roles) == (people[:, None] == people)).all()
    assert len(held.positions()) == len(roles) == context.sum()
    assert roles.min() >= 0
    assert roles.max() < corpus.shape.speakers
    if listener is not None:
        assert ((roles == 0) == (people == listener)).all()


@pytest.mark.parametrize(
    ("context", "labelled", "why"),
    [
        ([True, False], [True, True], "within its context"),
        ([True, False], [True], "within its context"),
        ([True, True], [False, False], "at least one labelled utterance"),
    ],
)
def test_a_share_refuses_masks_that_cannot_be(
    context: list[bool], labelled: list[bool], why: str
) -> None:
    with pytest.raises(InputError, match=why):
        Sample(0, np.array(context), np.array(labelled))


def test_whole_holds_everything_but_learns_only_from_labels() -> None:
    held = whole(CONVERSATION, 7)
    assert held.dialogue == 7
    assert held.context.all()
    assert held.labelled.tolist() == [True, True, False, True, True, True]
    assert ClientPartition("all", [held, held]).examples == 10
