"""Window against a loop over utterances, and the linear head of every network."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmer.data.batch import Excerpt, collate
from fedmer.data.corpus import ConversationCorpus
from fedmer.errors import InputError
from fedmer.plugins.networks.window import Window
from tests.networks.test_contract import build, every_network, excerpts_of, few, ragged, shape_of
from tests.strategies import corpora

MODALITIES = {"text": 3, "audio": 2}


def turn(one: Excerpt, t: int) -> NDArray[np.float32]:
    """Features, and bits of what is there; zero beyond the border."""
    there = 0 <= t < len(one)
    bits = {name: float(there and one.present[name][t]) for name in one.features}
    rows = [bits[n] * values[t if there else 0].numpy() for n, values in one.features.items()]
    return np.concatenate([*rows, np.array(list(bits.values()))])


def mean(one: Excerpt, turns: list[int]) -> NDArray[np.float32]:
    rows, bits = [], []
    for name, values in one.features.items():
        heard = [values[t].numpy() for t in turns if one.present[name][t]]
        rows.append(np.mean(heard, axis=0) if heard else np.zeros(values.shape[1]))
        bits.append(float(bool(heard)))
    return np.concatenate([*rows, np.array(bits)])


@few
@given(corpora(max_dialogues=4), st.integers(0, 3), st.booleans())
def test_every_turn_has_its_neighbours_and_the_means_of_its_dialogue(
    corpus: ConversationCorpus, window: int, causal: bool
) -> None:
    network = Window(corpus.shape, window=window, causal=causal)
    excerpts = excerpts_of(corpus)
    fused = network(collate(excerpts)).embeddings["fused"]
    for place, one in enumerate(excerpts):
        for t in range(len(one)):
            known = range(t + 1 if causal else len(one))
            same = [s for s in known if one.roles[s] == one.roles[t]]
            others = [s for s in known if one.roles[s] != one.roles[t]]
            around = range(t - window, t + 1 if causal else t + window + 1)
            expected = [*(turn(one, s) for s in around), mean(one, same), mean(one, others)]
            np.testing.assert_allclose(
                fused[place, t].numpy(), np.concatenate(expected), atol=1e-6, rtol=0
            )


def test_cosines_make_a_gaussian_kernel_and_do_not_travel() -> None:
    batch = ragged(MODALITIES, [3, 5])
    many, same = (Window(shape_of(MODALITIES), random_features=20_000) for _ in range(2))
    assert all(not name.startswith(("freq", "phas")) for name in many.state_dict())
    z = many(batch).embeddings["fused"]
    assert torch.equal(z, same(batch).embeddings["fused"])
    plain, waves = batch.pack(z[..., :-20_000]), batch.pack(z[..., -20_000:])
    expected = (-torch.cdist(plain, plain).square() / (2 * plain.shape[1])).exp()
    torch.testing.assert_close(waves @ waves.T, expected, atol=0.04, rtol=0)


def test_what_is_out_of_range_is_refused() -> None:
    for settings, said in (
        ({"window": -1}, "window is -1; expected a whole number, 0 or more."),
        ({"random_features": -1}, "random_features is -1; expected"),
        ({"kernel_width": 0.0}, "kernel_width is 0.0; expected a number above 0."),
    ):
        with pytest.raises(InputError, match=said):
            Window(shape_of(MODALITIES), **settings)  # type: ignore[arg-type]


@every_network
def test_logits_are_the_linear_head_of_the_fused_embeddings(path: str) -> None:
    batch = ragged(MODALITIES, [4, 2])
    network = build(path, shape_of(MODALITIES)).eval()
    output, head = network(batch), network.linear_head
    assert head is not None
    made = batch.pack(head(output.embeddings["fused"]))
    torch.testing.assert_close(made, batch.pack(output.logits), atol=1e-5, rtol=0)
