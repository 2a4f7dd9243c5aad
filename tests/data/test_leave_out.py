"""One session left out for the test."""

import pytest
from hypothesis import given, settings

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.leave_out import leave_session_out
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from tests.strategies import corpora


@settings(max_examples=25, deadline=None)
@given(corpora())
def test_every_dialogue_is_tested_once_over_all_folds(corpus: ConversationCorpus) -> None:
    sessions = sorted({dialogue.session for dialogue in corpus.conversations})
    if len(sessions) < 2:
        with pytest.raises(InputError, match="At least two are needed"):
            leave_session_out(corpus, sessions[0])
        return
    tested: list[int] = []
    for session in sessions:
        fold = leave_session_out(corpus, session)
        tested += fold.part("test")
        assert sorted(fold.part("train") + fold.part("test")) == list(range(len(corpus)))
        assert {fold.conversations[i].session for i in fold.part("test")} == {session}
        assert fold.fingerprint != leave_session_out(corpus, sessions[0]).fingerprint or (
            session == sessions[0]
        )
    assert sorted(tested) == list(range(len(corpus)))


def test_an_unknown_session_is_refused_and_the_known_ones_are_named() -> None:
    sentence = "'Ses09', but synthetic has the sessions Ses01, Ses02, Ses03, Ses04, Ses05"
    with pytest.raises(InputError, match=sentence):
        leave_session_out(synthetic_corpus(dialogues=10), "Ses09")
