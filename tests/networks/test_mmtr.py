"""MMTr: its LSTMs against torch's own and against a loop over speakers, and what asks what."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.plugins.networks.mmtr import MMTr, _BiLSTM, _Cues
from tests.networks.test_contract import ragged, shape_of

quick = settings(max_examples=15, deadline=None)
MODALITIES = {"audio": 2, "text": 3, "visual": 4}
seeds = st.integers(0, 1000)


def torch_s_own(ours: _BiLSTM) -> nn.LSTM:
    """torch's bidirectional LSTM with our weights."""
    theirs = nn.LSTM(
        ours.onward.input_size, ours.onward.hidden_size, batch_first=True, bidirectional=True
    )
    weights = dict(ours.onward.state_dict())
    weights |= {f"{name}_reverse": value for name, value in ours.reverse.state_dict().items()}
    theirs.load_state_dict(weights)
    return theirs


def alone(lstm: nn.LSTM, rows: Tensor) -> Tensor:
    """``(n, 2 * hidden)`` of one unpadded sequence ``(n, width)``."""
    said: Tensor = lstm(rows[None])[0][0]
    return said


@quick
@given(
    seed=seeds,
    sizes=st.lists(st.integers(0, 6), min_size=1, max_size=4),
    width=st.integers(1, 3),
    hidden=st.integers(1, 3),
)
def test_both_directions_are_torch_s_own(
    seed: int, sizes: list[int], width: int, hidden: int
) -> None:
    torch.manual_seed(seed)
    ours = _BiLSTM(width, hidden)
    theirs = torch_s_own(ours)
    rows = torch.randn(len(sizes), max(*sizes, 1), width)
    said = ours(rows, torch.tensor(sizes))
    for row, heard, size in zip(rows, said, sizes, strict=True):
        if size:
            torch.testing.assert_close(heard[:size], alone(theirs, row[:size]))


@quick
@given(
    seed=seeds,
    dialogues=st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=7), min_size=1, max_size=3),
    speakers=st.integers(1, 4),
)
def test_a_speaker_is_read_as_if_there_were_no_others(
    seed: int, dialogues: list[list[int]], speakers: int
) -> None:
    """Against a loop; people beyond the corpus's number are its last."""
    torch.manual_seed(seed)
    cues = _Cues(3, speakers)
    theirs = torch_s_own(cues.speaker)
    rows = [torch.randn(len(roles), 3) for roles in dialogues]
    padded = nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=5.0)
    roles = nn.utils.rnn.pad_sequence([torch.tensor(r) for r in dialogues], batch_first=True)
    sizes = torch.tensor([len(r) for r in dialogues])
    context = torch.arange(padded.shape[1]) < sizes[:, None]
    said = cues.by_speaker(padded, roles, context)
    assert (said[~context] == 0).all()
    for b, dialogue in enumerate(dialogues):
        people = torch.tensor(dialogue).clamp(max=speakers - 1)
        for person in people.unique():
            turns = (people == person).nonzero()[:, 0]
            torch.testing.assert_close(said[b, turns], alone(theirs, rows[b][turns]))


@pytest.mark.parametrize("changed", MODALITIES)
def test_text_is_kept_as_it_is_and_the_weak_modalities_ask_it(changed: str) -> None:
    torch.manual_seed(0)
    network = MMTr(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    features = {**batch.features, changed: batch.features[changed] + 1}
    with torch.no_grad():
        before = network(batch).embeddings
        after = network(dataclasses.replace(batch, features=features)).embeddings
    moved = {name for name in MODALITIES if not torch.equal(before[name], after[name])}
    assert moved == (set(MODALITIES) if changed == "text" else {changed})
    assert not torch.equal(before["fused"], after["fused"])


@quick
@given(seed=seeds)
def test_without_text_nobody_asks_it(seed: int) -> None:
    torch.manual_seed(seed)
    network = MMTr(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    with torch.no_grad():
        batch.present["text"][0, 1] = False
        some = network(batch).embeddings["audio"]
        batch.present["text"][:] = False
        none = network(batch).embeddings["audio"]
        for layer in network.enhance["audio"].layers:
            nn.init.normal_(layer.attention.value.weight)
        assert torch.equal(network(batch).embeddings["audio"], none)
    assert not torch.allclose(some, none, atol=1e-4)
