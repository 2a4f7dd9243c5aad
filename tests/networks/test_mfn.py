"""MFN against torch's LSTM and a loop over utterances."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks.mfn import MFN
from tests.networks.dialogues import batch_of_dialogues

THREE = CorpusShape({"text": 3, "audio": 2}, classes=4, speakers=3)
HIDDEN = 5


def states_of(network: MFN, name: str, place: int, rows: list[Tensor]) -> list[tuple[Tensor, ...]]:
    """Output and cell after each row, by torch's cell with the same weights."""
    cell = nn.LSTMCell(rows[0].shape[-1], HIDDEN)
    enter = network.lstms.enter.layers[name]
    assert isinstance(enter, nn.Linear)
    with torch.no_grad():
        cell.weight_ih.copy_(enter.weight)
        cell.bias_ih.copy_(enter.bias)
        cell.weight_hh.copy_(network.lstms.recur.weight[place])
        cell.bias_hh.zero_()
    state = torch.zeros(1, HIDDEN), torch.zeros(1, HIDDEN)
    found = []
    for row in rows:
        state = cell(row[None], state)
        found.append(tuple(part[0] for part in state))
    return found


@torch.no_grad()
def by_hand(network: MFN, batch: Batch, b: int) -> Tensor:
    """[h_1; ...; h_M; u] of one dialogue, utterance by utterance."""
    length = int(batch.context[b].sum())
    outputs, cells = torch.zeros(length, 2, HIDDEN), torch.zeros(length + 1, 2, HIDDEN)
    for place, name in enumerate(THREE.features):
        there = batch.present[name][b].nonzero()[:, 0].tolist()
        rows = [batch.features[name][b, t] for t in there]
        known = dict(zip(there, states_of(network, name, place, rows), strict=True)) if rows else {}
        for t in range(length):
            last = outputs[t - 1, place] if t else torch.zeros(HIDDEN)
            outputs[t, place], cells[t + 1, place] = known.get(t, (last, cells[t, place]))
    memory, found = torch.zeros(HIDDEN), []
    for t in range(length):
        delta = torch.cat([cells[t].flatten(), cells[t + 1].flatten()])
        attended = network.attention(delta).softmax(dim=0) * delta
        if any(bool(batch.present[name][b, t]) for name in THREE.features):
            gates = torch.sigmoid(network.retain(attended)), torch.sigmoid(network.update(attended))
            memory = gates[0] * memory + gates[1] * torch.tanh(network.propose(attended))
        found.append(torch.cat([outputs[t].flatten(), memory]))
    return torch.stack(found)


@settings(max_examples=15, deadline=None)
@given(
    dialogues=st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=3),
    seed=st.integers(0, 1000),
)
def test_it_is_what_a_loop_over_utterances_gives(dialogues: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    network = MFN(THREE, hidden=HIDDEN).eval()
    batch = batch_of_dialogues(THREE, dialogues, seed)
    with torch.no_grad():
        fused = network(batch).embeddings["fused"]
    for b, dialogue in enumerate(dialogues):
        torch.testing.assert_close(
            fused[b, : len(dialogue)], by_hand(network, batch, b), atol=1e-5, rtol=0
        )


def test_no_value_is_waited_for() -> None:
    network = MFN(THREE).to("meta").train()
    assert network(batch_of_dialogues(THREE, [[0, 1], [1]], 0).to("meta")).logits.shape == (2, 2, 4)


@pytest.mark.parametrize("causal", [False, True])
def test_it_looks_back_only(causal: bool) -> None:
    torch.manual_seed(0)
    network = MFN(THREE, hidden=HIDDEN, causal=causal).eval()
    batch = batch_of_dialogues(THREE, [[0, 1, 0, 2]], 0)
    before = network(batch).logits
    batch.features["text"][0, 3] += 9
    batch.present["text"][0, 3] = True
    after = network(batch).logits
    assert torch.equal(before[0, :3], after[0, :3])
    assert not torch.equal(before[0, 3], after[0, 3])
