"""TFN and LMF against explicit tensors."""

import dataclasses
import itertools
import string

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.network import Network
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.losses.distillation import cross_entropy
from fedmer.plugins.networks.lmf import LMF
from fedmer.plugins.networks.tfn import TFN, outer
from tests.networks.test_contract import ragged, shape_of

quick = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 1000)
names = ("text", "audio", "visual", "pulse")


def extended(vectors: list[Tensor]) -> list[Tensor]:
    """``[1; h_m]``."""
    return [torch.cat([torch.ones_like(v[..., :1]), v], dim=-1) for v in vectors]


def explicit(vectors: list[Tensor]) -> Tensor:
    """The outer product with one axis a modality, by einsum."""
    letters = string.ascii_lowercase[: len(vectors)]
    recipe = ",".join(f"...{letter}" for letter in letters) + "->..." + letters
    return torch.einsum(recipe, *extended(vectors))


@quick
@given(seed=seeds, widths=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_outer_is_an_einsum_and_holds_every_subset(seed: int, widths: list[int]) -> None:
    torch.manual_seed(seed)
    vectors = [torch.randn(2, 3, width) for width in widths]
    product = outer(vectors)
    torch.testing.assert_close(product, explicit(vectors).flatten(2))
    # One index a modality, 0 for the one: all subsets of modalities occur, and nothing else.
    places = itertools.product(*(range(width + 1) for width in widths))
    for place, values in zip(places, product.unbind(dim=-1), strict=True):
        expected = torch.ones(2, 3)
        for vector, index in zip(vectors, place, strict=True):
            if index:
                expected = expected * vector[..., index - 1]
        torch.testing.assert_close(values, expected)


@quick
@given(
    seed=seeds,
    width=st.integers(1, 3),
    hidden=st.integers(1, 5),
    rank=st.integers(1, 4),
    count=st.integers(1, 4),
)
def test_lmf_is_the_contraction_that_it_factorises(
    seed: int, width: int, hidden: int, rank: int, count: int
) -> None:
    torch.manual_seed(seed)
    modalities = dict.fromkeys(names[:count], 2)
    network = LMF(shape_of(modalities), hidden=hidden, width=width, rank=rank)
    nn.init.normal_(network.bias)
    vectors = {name: torch.randn(2, 3, width) for name in modalities}
    # The full weight tensor: (hidden, width + 1, width + 1, ...), a sum of `rank` outer products.
    weight = torch.zeros(hidden, *[width + 1] * count)
    for r, d in itertools.product(range(rank), range(hidden)):
        term = torch.ones(())
        for name in modalities:
            term = term[..., None] * network.factors[name][r, :, d]
        weight[d] += term
    contracted = explicit(list(vectors.values())).flatten(2) @ weight.flatten(1).T
    torch.testing.assert_close(
        network.fuse(vectors), contracted + network.bias, atol=1e-4, rtol=1e-4
    )


@quick
@given(seed=seeds, missing=st.sampled_from(names[:3]))
def test_tfn_without_a_modality_is_the_part_of_its_tensor_that_lacks_it(
    seed: int, missing: str
) -> None:
    torch.manual_seed(seed)
    modalities = dict(zip(names[:3], (3, 2, 4), strict=True))
    network = TFN(shape_of(modalities), hidden=6, width=3).eval()
    batch = ragged(modalities, [4])
    batch.present[missing][:] = False
    with torch.no_grad():
        fused = network(batch).embeddings["fused"]
        vectors = network.subnetworks(batch)
        others = outer([vector for name, vector in vectors.items() if name != missing])
        first = network.fuse[0]
        assert isinstance(first, nn.Linear)
        axis = names.index(missing)
        part = first.weight.unflatten(1, (4, 4, 4)).select(axis + 1, 0).flatten(1)
        expected = network.fuse[1:](others @ part.T + first.bias)
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)


@quick
@given(
    hidden=st.integers(1, 9),
    width=st.integers(1, 5),
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    classes=st.integers(2, 7),
    rank=st.integers(1, 4),
)
def test_sizes_follow_from_the_equations(
    hidden: int, width: int, widths: list[int], classes: int, rank: int
) -> None:
    shape = CorpusShape({f"m{i}": w for i, w in enumerate(widths)}, classes, speakers=2)
    subnetworks = sum((w + 1) * width + (width + 1) * width for w in widths)
    head = (hidden + 1) * classes
    tensor = ((width + 1) ** len(widths) + 1) * hidden + (hidden + 1) * hidden
    factors = len(widths) * rank * (width + 1) * hidden + hidden
    with torch.device("meta"):
        tfn = TFN(shape, hidden=hidden, width=width)
        lmf = LMF(shape, hidden=hidden, width=width, rank=rank)
    assert size(tfn) == subnetworks + tensor + head
    assert size(lmf) == subnetworks + factors + head


def size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_a_tensor_that_is_too_large_is_refused_and_a_smaller_one_is_not() -> None:
    shape = CorpusShape({f"m{i}": 2 for i in range(6)}, classes=3, speakers=2)
    with pytest.raises(InputError, match=r"width is 16, so 6 modalities have 24,137,569 products"):
        TFN(shape)
    assert TFN(shape, hidden=2, width=5).fuse[0].in_features == 6**6


@pytest.mark.parametrize("kind", [TFN, LMF])
def test_what_only_the_product_of_two_modalities_tells_is_learnt(kind: type[Network]) -> None:
    """The label is whether the signs agree; either modality alone says nothing."""
    torch.manual_seed(0)
    modalities = {"text": 1, "audio": 1}
    batch = ragged(modalities, [64], classes=2)
    signs = {name: torch.randn(1, 64, 1).sign() for name in modalities}
    agree = (signs["text"] == signs["audio"])[..., 0].long()
    batch = dataclasses.replace(batch, features=signs, labels=agree)
    network = kind(shape_of(modalities, classes=2), hidden=8, dropout=0.0)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        loss = cross_entropy(network(batch).logits, batch.labels, batch.labelled)
        torch.autograd.backward(loss)
        optimizer.step()
    assert (network(batch).logits.argmax(dim=-1) == agree).all()
