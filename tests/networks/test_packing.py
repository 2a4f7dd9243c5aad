"""SDT works on utterances alone: equal to the padded network, gradients and all."""

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.padded_sdt import PaddedSDT
from fedmer.contracts.network import Network
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.networks._packing import Packing
from fedmer.plugins.networks.sdt import SDT
from tests.networks.dialogues import batch_of_dialogues

SHAPE = CorpusShape({"text": 5, "audio": 3, "visual": 2}, classes=4, speakers=3)
quick = settings(max_examples=15, deadline=None)
dialogues = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=4)


def learn(network: Network, batch: Batch) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Loss, loss after a step of SGD, and gradients by modality."""
    features = {name: rows.clone().requires_grad_() for name, rows in batch.features.items()}
    seen = dataclasses.replace(batch, features=features)
    step = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = SelfDistillation(temperature=2.0)
    before = loss(network(seen), seen)
    before.backward()
    step.step()
    return before.detach(), loss(network(batch), batch).detach(), {
        name: rows.grad for name, rows in features.items() if rows.grad is not None
    }  # fmt: skip


@quick
@given(dialogues=dialogues, seed=st.integers(0, 1000))
def test_packed_is_padded_and_its_gradients_are(dialogues: list[list[int]], seed: int) -> None:
    torch.manual_seed(seed)
    packed = SDT(SHAPE, hidden=8, heads=2, dropout=0.0).train()
    padded = PaddedSDT(packed).train()
    batch = batch_of_dialogues(SHAPE, dialogues, seed)
    batch.labels = torch.randint(0, 4, batch.labels.shape)
    (one, then, slopes), (other, later, theirs) = learn(packed, batch), learn(padded, batch)
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(then, later, atol=1e-5, rtol=1e-5)
    for name, slope in slopes.items():
        there = batch.present[name][..., None]
        torch.testing.assert_close(slope * there, theirs[name] * there, atol=1e-5, rtol=1e-5)


@quick
@given(lengths=st.lists(st.integers(0, 5), min_size=1, max_size=5), width=st.integers(1, 3))
def test_unpacking_undoes_packing(lengths: list[int], width: int) -> None:
    longest = max(*lengths, 1)
    context = torch.arange(longest) < torch.tensor(lengths)[:, None]
    packing = Packing(context.flatten().nonzero()[:, 0], lengths, longest)
    rows = torch.randn(2, sum(lengths), width)
    padded = packing.unpack(rows, dim=1, value=7.0)
    assert padded.shape == (2, len(lengths), longest, width)
    assert torch.equal(packing.pack(padded, dim=1), rows)
    assert bool((padded[:, ~context] == 7.0).all())
    assert [end - start for start, end in packing.spans] == [n for n in lengths if n]
    held = torch.rand(2, sum(lengths)) < 0.3
    expected = (packing.unpack(held, dim=1) & context).any(dim=-1, keepdim=True) & context
    assert torch.equal(packing.any(held), packing.pack(expected, dim=1))
