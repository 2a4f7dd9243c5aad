"""Another test part than a corpus comes with: one session left out."""

from dataclasses import replace

from fedmer.data.corpus import ConversationCorpus
from fedmer.errors import InputError


def leave_session_out(corpus: ConversationCorpus, session: str) -> ConversationCorpus:
    """A corpus whose test part is one session, and whose other dialogues all train.

    Leaving out every session in turn tests every speaker once, each unheard in training. There is
    no validation part; clients keep dialogues back for it.

    Args:
        corpus: Its parts are not looked at.
        session: The name of a session.

    Raises:
        InputError: The corpus has no such session, or no other.

    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = leave_session_out(synthetic_corpus(), "Ses03")
    >>> {corpus.conversations[i].session for i in corpus.part("test")}
    {'Ses03'}
    """
    known = sorted({dialogue.session for dialogue in corpus.conversations} - {""})
    if session not in known or len(known) < 2:
        raise InputError(
            f"data.test_session is '{session}', but {corpus.name} has "
            + (f"the sessions {', '.join(known)}." if known else "no sessions.")
            + (" At least two are needed." if len(known) == 1 else "")
        )
    dialogues = [
        replace(dialogue, split="test" if dialogue.session == session else "train")
        for dialogue in corpus.conversations
    ]
    return ConversationCorpus(
        f"{corpus.name}, {session} left out",
        dialogues,
        corpus.label_names,
        corpus.notes,
        corpus.extractors,
    )
