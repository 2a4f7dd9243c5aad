"""SDT against its published size, its equations and a second computation of its encoder."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Linears, sinusoid
from fedmer.plugins.networks._packing import Packing
from fedmer.plugins.networks.sdt import SDT, _Encoders

IEMOCAP = CorpusShape({"text": 1024, "audio": 1582, "visual": 342}, classes=6, speakers=2)
TWO = CorpusShape({"text": 3, "audio": 2}, classes=4, speakers=2)
quick = settings(max_examples=15, deadline=None)


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def some_batch(seed: int, lengths: tuple[int, ...] = (5, 3)) -> Batch:
    """Two modalities, random features, audio missing in the last dialogue."""
    random = torch.Generator().manual_seed(seed)
    longest = max(lengths)
    context = torch.arange(longest) < torch.tensor(lengths)[:, None]
    present = {name: context.clone() for name in TWO.features}
    present["audio"][-1] = False
    return Batch(
        features={
            name: torch.randn(len(lengths), longest, width, generator=random)
            * present[name][..., None]
            for name, width in TWO.features.items()
        },
        present=present,
        context=context,
        labelled=context.clone(),
        labels=torch.zeros(len(lengths), longest, dtype=torch.int64),
        roles=torch.arange(longest).remainder(2).expand(len(lengths), -1) * context,
        positions=torch.arange(longest).expand(len(lengths), -1) * context,
    )


def test_the_published_size_less_the_norms_that_are_never_used() -> None:
    with torch.device("meta"):
        network = SDT(IEMOCAP, hidden=1024, attention_score=None)
    assert size(network) == 79_687_704 - 18_432 == 79_669_272


@quick
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    classes=st.integers(2, 7),
    speakers=st.integers(1, 9),
    gates=st.sampled_from(["learned", "identity"]),
)
def test_size_follows_from_the_equations(
    heads: int, width: int, widths: list[int], classes: int, speakers: int, gates: str
) -> None:
    d, m = heads * width, len(widths)
    shape = CorpusShape({f"m{i}": w for i, w in enumerate(widths)}, classes, speakers)
    with torch.device("meta"):
        network = SDT(shape, hidden=d, heads=heads, gates=gates, attention_score=None)  # type: ignore[arg-type]
    encoders = m**2 * (6 * (d**2 + d) + 2 * d)
    gated = m**2 * d**2 if gates == "learned" else 0
    reduce, fuse = m * (m * d**2 + d), d**2
    heads_of_classes = (m + 1) * (d * classes + classes)
    assert size(network) == (
        encoders + gated + reduce + fuse + heads_of_classes + d * sum(widths) + d * (speakers + 1)
    )


@quick
@given(positions=st.lists(st.integers(0, 5000), min_size=1, max_size=6), width=st.integers(1, 17))
def test_sinusoid_is_the_closed_formula(positions: list[int], width: int) -> None:
    encoded = sinusoid(torch.tensor(positions), width)
    assert encoded.shape == (len(positions), width)
    for row, t in zip(encoded.tolist(), positions, strict=True):
        for i, value in enumerate(row):
            angle = t / 10000 ** (2 * (i // 2) / width)
            exact = math.cos(angle) if i % 2 else math.sin(angle)
            assert value == pytest.approx(exact, abs=1e-6 + 5e-7 * t)


def test_dialogues_may_be_longer_than_512_turns() -> None:
    network = SDT(TWO, hidden=8, heads=2, dropout=0.0).eval()
    batch = some_batch(0, (600,))
    with torch.no_grad():
        logits = network(batch).logits
        batch.positions = batch.positions.clamp(max=511)
        clamped = network(batch).logits
    assert logits.isfinite().all()
    assert not torch.allclose(logits[0, 512:], clamped[0, 512:], atol=1e-4)


@quick
@given(seed=st.integers(0, 1000))
def test_identity_gates_are_learned_gates_at_the_identity(seed: int) -> None:
    torch.manual_seed(seed)
    learned = SDT(TWO, hidden=8, heads=2).eval()
    identity = SDT(TWO, hidden=8, heads=2, gates="identity").eval()
    assert not [name for name in identity.state_dict() if name.startswith("gates")]
    batch = some_batch(seed)
    with torch.no_grad():
        identity.load_state_dict(
            {name: v for name, v in learned.state_dict().items() if not name.startswith("gates")}
        )
        apart = learned(batch).logits
        assert isinstance(learned.gates, Linears)
        learned.gates.weight.copy_(torch.eye(8))
        torch.testing.assert_close(learned(batch).logits, identity(batch).logits)
        assert not torch.allclose(apart, identity(batch).logits, atol=1e-5)


@quick
@given(seed=st.integers(0, 1000))
def test_reduction_fusion_and_heads_follow_the_equations(seed: int) -> None:
    """From the encoders' outputs on, computed a second time an utterance at a time."""
    torch.manual_seed(seed)
    network = SDT(TWO, hidden=8, heads=2, attention_score=None).eval()
    said: list[Tensor] = []
    batch = some_batch(seed, (4, 4, 2))
    packing = Packing.of(batch)
    network.encoders.register_forward_hook(
        lambda _, __, output: said.append(packing.unpack(output, dim=1))
    )
    batch.present["text"][0, 1] = False
    batch.present["audio"][0, 2] = False
    batch.present["text"][1, 0] = batch.present["audio"][1, 0] = False
    with torch.no_grad():
        output = network(batch)
        assert isinstance(network.gates, Linears)
        gated = [
            torch.sigmoid(hidden @ weight.T) * hidden
            for hidden, weight in zip(said[0], network.gates.weight, strict=True)
        ]
        gated[1][-1] = 0  # from audio to text, and the last dialogue has no audio
        gated[2][-1] = 0  # from audio to audio
        rows = {"text": torch.cat(gated[:2], dim=-1), "audio": torch.cat(gated[2:], dim=-1)}
        reduced = {
            name: affine(network.reduce, i, row) for i, (name, row) in enumerate(rows.items())
        }
        for b, t in batch.context.nonzero().tolist():
            there = [name for name in reduced if batch.present[name][b, t]]
            scores = {n: (reduced[n][b, t] @ network.fuse.weight.T).exp() for n in there}
            total = sum(scores.values(), start=torch.zeros(8))
            fused = sum((scores[n] / total * reduced[n][b, t] for n in there), start=torch.zeros(8))
            torch.testing.assert_close(output.embeddings["fused"][b, t], fused, msg="fused")
            torch.testing.assert_close(output.logits[b, t], network.teacher(fused), msg="teacher")
        for i, (name, hidden) in enumerate(reduced.items()):
            there = hidden * batch.context[..., None]
            torch.testing.assert_close(output.embeddings[name], there, msg=name)
            student = affine(network.students, i, hidden.clamp(min=0))
            student = student * batch.context[..., None]
            torch.testing.assert_close(output.students[name], student, msg=f"student {name}")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden": 10, "heads": 4}, r"hidden is 10 and heads is 4; expected hidden to be a posit"),
        ({"hidden": 0, "heads": 1}, r"hidden is 0; expected hidden to be 1 or more"),
        ({"hidden": -8, "heads": 8}, r"hidden is -8"),
        ({"hidden": 8, "heads": 0}, r"heads is 0"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected a number in \[0, 1\)"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"dropout": float("nan")}, r"dropout is nan"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    arguments: dict[str, float], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        SDT(TWO, **arguments)  # type: ignore[arg-type]


@quick
@given(
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    turns=st.integers(1, 6),
    seed=st.integers(0, 1000),
    same=st.booleans(),
)
def test_encoders_equal_attention_written_out(
    heads: int, width: int, turns: int, seed: int, same: bool
) -> None:
    torch.manual_seed(seed)
    hidden = heads * width
    encoders = _Encoders(2, hidden, heads, dropout=0.5).eval()
    for parameter in encoders.parameters():  # also away from LayerNorm's ones and zeros
        nn.init.normal_(parameter)
    query = torch.randn(2, 2, turns, hidden)
    keys = query if same else torch.randn(2, 2, turns, hidden)
    present = torch.rand(2, 2, turns) < 0.6
    present[..., seed % turns] = True
    packing = Packing(torch.arange(2 * turns), [turns, turns], turns)
    with torch.no_grad():
        rows = [packing.pack(part, dim=1) for part in (query, keys, present)]
        actual = packing.unpack(encoders(*rows, packing), dim=1)
        for p, b, t in itertools.product(range(2), range(2), range(turns)):
            there = keys[p, b][present[p, b]]
            expected = written_out(encoders, p, query[p, b, t], there)
            torch.testing.assert_close(actual[p, b, t], expected, atol=1e-4, rtol=1e-4)


def written_out(encoders: _Encoders, p: int, query: Tensor, keys: Tensor) -> Tensor:
    """One utterance through encoder ``p``, head by head, over the keys that are there."""
    hidden, heads = len(query), encoders.heads
    width = hidden // heads
    q = affine(encoders.query, p, query)
    mixed = torch.zeros(hidden)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        found = [affine(encoders.key, p, key)[part] for key in keys]
        scores = [float(q[part] @ key) / math.sqrt(width) for key in found]
        weights = [math.exp(score - max(scores)) for score in scores]
        for weight, key in zip(weights, keys, strict=True):
            mixed[part] += weight / sum(weights) * affine(encoders.value, p, key)[part]
    attended = query + affine(encoders.out, p, mixed)
    variance = (attended - attended.mean()).square().mean()
    normed = (attended - attended.mean()) / torch.sqrt(variance + 1e-6)
    scaled = normed * encoders.scale[p].flatten() + encoders.shift[p].flatten()
    inner = affine(encoders.widen, p, scaled)
    slope = math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)
    return attended + affine(encoders.narrow, p, inner * (1 + torch.tanh(slope)) / 2)


def affine(layers: Linears, p: int, rows: Tensor) -> Tensor:
    """``(..., D)`` through layer ``p`` of those that stand side by side."""
    assert layers.bias is not None
    return rows @ layers.weight[p].T + layers.bias[p, 0]
