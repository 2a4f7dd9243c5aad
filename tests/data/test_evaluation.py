"""Evaluation in another order than the data's, and back."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.evaluation import EvaluationBatches
from fedmer.plugins.partitioners.speaker import Speaker
from tests.federations import clients_of, small_corpus

EXCERPTS = [piece for client in clients_of(small_corpus(), Speaker()) for piece in client.train]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(EXCERPTS), min_size=1, max_size=9), st.integers(1, 5))
def test_labelled_turns_find_back_to_the_datas_order(excerpts: list, size: int) -> None:  # type: ignore[type-arg]
    batches = EvaluationBatches(excerpts, size)
    assert sum(len(batch.context) for batch in batches) == len(excerpts)
    lengths = [length for batch in batches for length in batch.lengths]
    assert lengths == sorted(len(excerpt) for excerpt in excerpts)
    rows = torch.cat([batch.features["text"][batch.labelled] for batch in batches])
    expected = torch.cat([excerpt.features["text"][excerpt.labelled] for excerpt in excerpts])
    assert torch.equal(batches.restore(rows), expected)
