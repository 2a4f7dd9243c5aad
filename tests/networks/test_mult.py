"""MulT's flows against its equations."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks.mult import MulT
from tests.networks.test_contract import ragged, shape_of

quick = settings(max_examples=15, deadline=None)
MODALITIES = {"text": 3, "audio": 2, "visual": 4}


@quick
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    classes=st.integers(2, 7),
    layers=st.integers(1, 3),
)
def test_size_follows_from_the_equations(
    heads: int, width: int, widths: list[int], classes: int, layers: int
) -> None:
    d, m = heads * width, len(widths)
    shape = CorpusShape({f"m{i}": w for i, w in enumerate(widths)}, classes, speakers=2)
    with torch.device("meta"):
        network = MulT(shape, hidden=d, heads=heads, layers=layers)

    def transformer(d: int) -> int:
        return layers * (6 * (d**2 + d) + 4 * d) + 2 * d

    wide = d * max(m - 1, 1)
    residual, head = 2 * ((m * wide) ** 2 + m * wide), (m * wide + 1) * classes
    assert len(network.crossmodal) == m * (m - 1)
    assert sum(p.numel() for p in network.parameters()) == (
        d * sum(widths)
        + 3 * d
        + m * (m - 1) * transformer(d)
        + m * transformer(wide)
        + residual
        + head
    )


@quick
@given(seed=st.integers(0, 1000))
def test_flows_and_residual_follow_the_equations(seed: int) -> None:
    """Each dialogue by itself, without padding, layer by layer."""
    torch.manual_seed(seed)
    network = MulT(shape_of(MODALITIES), hidden=4, heads=2).eval()
    batch = ragged(MODALITIES, [4, 2])
    batch.present["audio"][1] = False
    with torch.no_grad():
        output = network(batch)
        rows, place = network.project(batch), network.place(batch)
        for b, size in enumerate([4, 2]):
            x = {name: (rows[name] + place)[b : b + 1, :size] for name in MODALITIES}
            there = {name: batch.present[name][b : b + 1, :size] for name in MODALITIES}
            hidden = []
            for target in MODALITIES:
                flows = []
                for source in MODALITIES:
                    if source == target:
                        continue
                    stack = network.crossmodal[f"{source}_to_{target}"]
                    flow = x[target]
                    for layer in stack.layers:
                        flow = layer(flow, there[source], x[source])
                    flows.append(stack.norm(flow))
                own = network.transformers[target]
                everybody = torch.ones(1, size, dtype=torch.bool)
                hidden.append(own(torch.cat(flows, dim=-1), everybody))
                found = output.embeddings[target][b : b + 1, :size]
                torch.testing.assert_close(found, hidden[-1], atol=1e-5, rtol=1e-5)
            u = torch.cat(hidden, dim=-1)
            first, last = network.residual[0], network.residual[-1]
            fused = u + last(first(u).clamp(min=0))
            torch.testing.assert_close(
                output.logits[b : b + 1, :size], network.head(fused), atol=1e-5, rtol=1e-5
            )


@pytest.mark.parametrize("lacking", MODALITIES)
def test_nothing_flows_from_a_modality_that_a_dialogue_lacks(lacking: str) -> None:
    torch.manual_seed(0)
    network = MulT(shape_of(MODALITIES), hidden=4, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    batch.present[lacking][:] = False
    with torch.no_grad():
        before = network(batch).logits
        for pair, stack in network.crossmodal.items():
            if pair.startswith(f"{lacking}_to_"):
                for layer in stack.layers:
                    nn.init.normal_(layer.attention.value.weight)
                    nn.init.normal_(layer.attention.out.bias)
        assert torch.equal(network(batch).logits, before)
        batch.present[lacking][:] = True
        assert not torch.allclose(network(batch).logits, before, atol=1e-3)


def test_a_modality_is_told_of_the_others_and_not_of_itself() -> None:
    """In two modalities, the keys of each are the other's; its own rows are its queries."""
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = MulT(shape_of(modalities), hidden=4, heads=2).eval()
    batch = ragged(modalities, [4])
    changed = batch.features["text"].clone()
    changed[0, 0] += 1
    other = dataclasses.replace(batch, features={**batch.features, "text": changed})
    flows = {}
    for pair, stack in network.crossmodal.items():
        stack.register_forward_hook(lambda _, __, out, pair=pair: flows.update({pair: out}))
    with torch.no_grad():
        network(batch)
        before = dict(flows)
        network(other)
    moved = {pair: (flows[pair] != before[pair]).any(dim=-1)[0].tolist() for pair in flows}
    assert moved == {"audio_to_text": [True] + [False] * 3, "text_to_audio": [True] * 4}
