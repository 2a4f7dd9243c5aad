"""Batches that are made once are those that would be made every time."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.batch import EpochOrder
from fedmer.data.batch_cache import BatchCache
from fedmer.plugins.partitioners.central import Central
from tests.federations import clients_of, small_corpus

(CLIENT,) = clients_of(small_corpus(), Central())
CPU = torch.device("cpu")


@settings(max_examples=25, deadline=None)
@given(count=st.integers(1, 9), size=st.integers(1, 9), epochs=st.integers(1, 3))
def test_cached_or_not_batches_are_the_same(count: int, size: int, epochs: int) -> None:
    cache, data = BatchCache(CPU), CLIENT.train[:count]
    order = EpochOrder(count, seed=3, client=1, batch_size=size)
    seen = []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        places = list(order)
        assert sorted(places) == list(range(count))
        kept = list(cache.batches(data, places, size, "one"))
        fresh = list(cache.batches(data, places, size))
        assert [len(batch.context) for batch in kept] == [len(batch.context) for batch in fresh]
        for one, other in zip(kept, fresh, strict=True):
            assert all(torch.equal(one.features[n], other.features[n]) for n in one.features)
            assert torch.equal(one.labels, other.labels)
        seen += kept
    # One object if everything fits into a batch, else new ones every time.
    assert len({id(batch) for batch in seen}) == (1 if count <= size else len(seen))


def test_nothing_more_is_kept_than_the_capacity() -> None:
    (batch,) = BatchCache(CPU).batches(CLIENT.train, range(len(CLIENT.train)), 20)
    cache = BatchCache(CPU, capacity=batch.nbytes + 1)
    one, again, other, anew = (
        next(cache.batches(CLIENT.train, range(len(CLIENT.train)), 20, name))
        for name in ("a", "a", "b", "b")
    )
    assert one is again
    assert other is not anew
    assert cache.capacity == 1
