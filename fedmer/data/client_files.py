"""A corpus file a client, for federations whose clients are on other machines."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.formats import native
from fedmer.data.partition import ClientPartition, Sample
from fedmer.errors import InputError

WRITABLE = (
    "Central, Session, Dialogue, SpeakerGroup, NWay, Dirichlet, or SpeakerPrivate without keep_gaps"
)
"""Splits whose clients a corpus file can always describe."""


def check_empty(folder: Path) -> None:
    """Refuse a folder that holds anything, or that cannot be made.

    Raises:
        InputError: Something is in the folder, it is a file, or there is no folder to make it in.
    """
    try:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; name a new or an empty folder.")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file; name a new or an empty folder.")
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}.") from None
    if not folder.parent.is_dir():
        raise InputError(f"{folder.parent} is not a folder; make it first.")


def write_clients(
    corpus: ConversationCorpus, clients: Sequence[ClientPartition], folder: Path, split: str
) -> None:
    """Write what each client holds as a native corpus, and what is nobody's as another.

    Reading ``client-0.npz`` and holding its dialogues whole gives client 0's excerpts again, and so
    on; ``public.npz`` has the validation and test parts, if there are any. All files are written,
    or none.

    Args:
        corpus: What was split.
        clients: What a partitioner returned.
        folder: An empty folder, or one to make.
        split: The partitioner's name, for the sentence.

    Raises:
        InputError: A client sees a dialogue in a way that no file says, from a listener's side or
            with gaps; or the folder cannot be written to.
    """
    _check_seen(corpus, clients, split)
    public = [dialogue for dialogue in corpus.conversations if dialogue.split != "train"]
    made = not folder.exists()
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}.") from None
    written: list[Path] = []
    try:
        for number, client in enumerate(clients):
            written.append(folder / f"client-{number}.npz")
            native.write(client_corpus(corpus, client), written[-1])
        if public:
            written.append(folder / "public.npz")
            rest = ConversationCorpus(
                "public", public, corpus.label_names, extractors=corpus.extractors
            )
            native.write(rest, written[-1])
    except BaseException:
        # Part of a federation trains like a smaller one, and nobody would notice.
        for path in written:
            path.unlink(missing_ok=True)
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise


def client_corpus(corpus: ConversationCorpus, client: ClientPartition) -> ConversationCorpus:
    """A corpus of exactly what a client holds, and of nothing else.

    Utterances outside K are gone, labels outside M are overwritten, and the utterances that are
    left close up. From whose side a dialogue is seen is not kept.

    Args:
        corpus: What was split.
        client: One of the clients that a partitioner returned.
    """
    return ConversationCorpus(
        client.name,
        [_held(corpus.conversations[sample.dialogue], sample) for sample in client.samples],
        corpus.label_names,
        extractors=corpus.extractors,
    )


def _held(dialogue: Conversation, sample: Sample) -> Conversation:
    kept = sample.context
    words = [word for word, held in zip(dialogue.utterances, kept, strict=False) if held]
    return Conversation(
        id=dialogue.id,
        features={name: rows[kept] for name, rows in dialogue.features.items()},
        present={name: mask[kept] for name, mask in dialogue.present.items()},
        speakers=dialogue.speakers[kept],
        labels=np.where(sample.labelled, dialogue.labels, UNLABELLED)[kept],
        split="train",
        session=dialogue.session,
        utterances=words,
    )


def _check_seen(corpus: ConversationCorpus, clients: Sequence[ClientPartition], split: str) -> None:
    """Refuse clients who see a dialogue otherwise than somebody who holds their file would."""
    for client in clients:
        for sample in client.samples:
            seen = corpus.conversations[sample.dialogue]
            nobody = replace(sample, listener=None, keep_gaps=False)
            heard = sample.listener
            if heard is not None and (sample.roles(seen) != nobody.roles(seen)).any():
                why = f"hears it from the side of '{heard}', who is not the first to speak"
            elif sample.keep_gaps and (sample.positions() != nobody.positions()).any():
                why = "keeps gaps where utterances of others were"
            else:
                continue
            raise InputError(
                f"The split {split} cannot be written as files: in dialogue '{seen.id}' the "
                f"client '{client.name}' {why}, which no file says. Use {WRITABLE}."
            )
