"""What nodes say of who made their features, and what a run makes of it."""

from dataclasses import replace

import pytest

pytest.importorskip("flwr")

import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.remote import Description, RemoteClients
from fedmer.errors import InputError
from fedmer.flower.extractors import put_extractors, take_extractors
from fedmer.flower.server.deployment import _check_alike

VOICE = ExtractorRecord("package.Voice", {"size": 2}, {"torch": "2.0"}, "0123456789abcdef")
NEWER = replace(VOICE, versions={"torch": "2.1"})
WORDS = ExtractorRecord("package.Words")


def node(name: str, made: dict[str, ExtractorRecord]) -> Description:
    features = {"text": 3, "audio": 2}
    counts = torch.tensor([2, 3])
    return Description(name, ("calm", "upset"), features, 2, counts, 0, extractors=made)


def met(*made: dict[str, ExtractorRecord]) -> RemoteClients:
    names = [f"node-{number}" for number in range(len(made))]
    return RemoteClients(names, {n: node(names[n], own) for n, own in enumerate(made)})


words = st.text(st.characters(categories=["L", "N", "P"]), max_size=20)
records = st.builds(
    ExtractorRecord,
    st.just("package.module.Name"),
    st.dictionaries(words, st.one_of(st.integers(), st.booleans(), words), max_size=4),
    st.dictionaries(words, words, max_size=4),
    words,
)


@given(st.dictionaries(st.sampled_from(["text", "audio", "visual"]), records))
def test_records_cross_as_they_are(made: dict[str, ExtractorRecord]) -> None:
    modalities = ["audio", "text", "visual"]
    assert take_extractors(put_extractors(made, modalities), modalities) == made


def test_a_record_that_no_server_reads_is_not_sent() -> None:
    long = replace(VOICE, init_args={"path": "x" * 4000})
    with pytest.raises(InputError, match=r"^its corpus says .* 'audio' has over 4000 characters"):
        put_extractors({"audio": long}, ["text", "audio"])


@pytest.mark.parametrize("silent", [[], [0], [1]])
def test_nodes_with_features_of_other_extractors_do_not_train_together(silent: list[int]) -> None:
    nodes = [{} if n in silent else {"text": WORDS, "audio": VOICE} for n in range(3)]
    alike = met(*nodes)
    _check_alike(alike.known)
    # The run knows what all of them say, and claims no more.
    assert alike.extractors == ({} if silent else {"text": WORDS, "audio": VOICE})
    nodes[2] = {"audio": NEWER}
    unlike = met(*nodes)
    first = 1 if 0 in silent else 0
    with pytest.raises(InputError) as refusal:
        _check_alike(unlike.known)
    assert str(refusal.value) == (
        f"node-{first} has 'audio' made by {VOICE}, but node-2 by {NEWER}; all nodes need the "
        "same, so let one extract again."
    )


def test_the_run_holds_what_nodes_say_and_a_test_file_has_to_fit() -> None:
    clients = met({"text": WORDS, "audio": VOICE}, {"audio": VOICE})
    corpus = clients.corpus(None, "federation")
    assert corpus.extractors == {"audio": VOICE}
    public = replace(corpus, name="public", extractors={"text": VOICE, "audio": VOICE})
    assert clients.corpus(public, "federation").extractors == {"audio": VOICE}
    other = replace(public, extractors={"audio": NEWER})
    with pytest.raises(InputError, match=r"^public: 'audio' was made by Voice.*torch 2\.1.*2\.0"):
        clients.corpus(other, "federation")
