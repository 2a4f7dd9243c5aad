from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.holdout import FEWEST, hold_out
from fedmer.data.partition import ClientPartition, Sample

quick = settings(max_examples=60, deadline=None)
ONE = np.ones(1, dtype=bool)


@st.composite
def some_clients(draw: st.DrawFn, dialogues: int = 41, least: int = 1) -> list[ClientPartition]:
    """One to four clients with some of the dialogues each."""
    own = st.lists(st.integers(0, dialogues - 1), min_size=least, max_size=15, unique=True)
    return [
        ClientPartition(f"client {number}", [Sample(d, ONE, ONE) for d in draw(own)])
        for number in range(draw(st.integers(1, 4)))
    ]


CLIENTS = some_clients()
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
SEEDS = st.integers(0, 1000)


def dialogues(samples: Sequence[Sample]) -> list[int]:
    return [sample.dialogue for sample in samples]


@quick
@given(clients=CLIENTS, fraction=FRACTIONS, seed=SEEDS)
def test_every_share_is_kept_or_held_and_something_is_left(
    clients: list[ClientPartition], fraction: float, seed: int
) -> None:
    kept, held = hold_out(clients, fraction, seed)
    assert len(kept) == len(held) == len(clients)
    for client, left, back in zip(clients, kept, held, strict=True):
        size = len(client.samples)
        assert left.name == client.name
        assert {id(s) for s in client.samples} == {id(s) for s in [*left.samples, *back]}
        assert len(left.samples) + len(back) == size
        assert len(left.samples) >= 1
        assert left.examples >= 1
        if size < FEWEST:
            assert not back
        else:
            assert len(back) == min(max(1, round(fraction * size)), size - 1)
        # Both parts stay in the client's order.
        order = dialogues(client.samples)
        assert dialogues(left.samples) == [d for d in order if d in dialogues(left.samples)]
        assert dialogues(back) == [d for d in order if d in dialogues(back)]


@quick
@given(clients=some_clients(16, least=5), fraction=FRACTIONS, seed=SEEDS)
def test_clients_hold_out_by_one_ranking(
    clients: list[ClientPartition], fraction: float, seed: int
) -> None:
    """Of two dialogues that two clients both have, they never hold out opposite ones."""
    kept, held = hold_out(clients, fraction, seed)
    before = {
        (back.dialogue, left.dialogue)
        for client, own in zip(kept, held, strict=True)
        for back in own
        for left in client.samples
    }
    assert not any((second, first) in before for first, second in before)


@quick
@given(clients=CLIENTS, fraction=FRACTIONS, seed=SEEDS)
def test_holdout_is_a_function_of_the_seed(
    clients: list[ClientPartition], fraction: float, seed: int
) -> None:
    np.random.seed(seed + 1)  # noqa: NPY002 - nothing may depend on it
    one = hold_out(clients, fraction, seed)
    other = hold_out(clients, fraction, seed)
    assert [dialogues(h) for h in one[1]] == [dialogues(h) for h in other[1]]
    assert [dialogues(c.samples) for c in one[0]] == [dialogues(c.samples) for c in other[0]]


def test_holdouts_differ_by_seed() -> None:
    client = ClientPartition("c", [Sample(d, ONE, ONE) for d in range(40)])
    assert len({tuple(dialogues(hold_out([client], 0.5, s)[1][0])) for s in range(10)}) == 10


@quick
@given(clients=CLIENTS, seed=SEEDS)
def test_nothing_is_held_out_at_0(clients: list[ClientPartition], seed: int) -> None:
    kept, held = hold_out(clients, 0, seed)
    assert held == [[]] * len(clients)
    assert [list(k.samples) for k in kept] == [list(c.samples) for c in clients]
