from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.holdout import FEWEST, hold_out
from fedmer.data.share import ClientShares, Share

quick = settings(max_examples=60, deadline=None)
ONE = np.ones(1, dtype=bool)


@st.composite
def some_clients(draw: st.DrawFn, dialogues: int = 41, least: int = 1) -> list[ClientShares]:
    """One to four clients with some of the dialogues each."""
    own = st.lists(st.integers(0, dialogues - 1), min_size=least, max_size=15, unique=True)
    return [
        ClientShares(f"client {number}", [Share(d, ONE, ONE) for d in draw(own)])
        for number in range(draw(st.integers(1, 4)))
    ]


CLIENTS = some_clients()
FRACTIONS = st.floats(0, 1, exclude_min=True, exclude_max=True)
SEEDS = st.integers(0, 1000)


def dialogues(shares: Sequence[Share]) -> list[int]:
    return [share.dialogue for share in shares]


@quick
@given(clients=CLIENTS, fraction=FRACTIONS, seed=SEEDS)
def test_every_share_is_kept_or_held_and_something_is_left(
    clients: list[ClientShares], fraction: float, seed: int
) -> None:
    kept, held = hold_out(clients, fraction, seed)
    assert len(kept) == len(held) == len(clients)
    for client, left, back in zip(clients, kept, held, strict=True):
        size = len(client.shares)
        assert left.name == client.name
        assert {id(s) for s in client.shares} == {id(s) for s in [*left.shares, *back]}
        assert len(left.shares) + len(back) == size
        assert len(left.shares) >= 1
        assert left.examples >= 1
        if size < FEWEST:
            assert not back
        else:
            assert len(back) == min(max(1, round(fraction * size)), size - 1)
        # Both parts stay in the client's order.
        order = dialogues(client.shares)
        assert dialogues(left.shares) == [d for d in order if d in dialogues(left.shares)]
        assert dialogues(back) == [d for d in order if d in dialogues(back)]


@quick
@given(clients=some_clients(16, least=5), fraction=FRACTIONS, seed=SEEDS)
def test_clients_hold_out_by_one_ranking(
    clients: list[ClientShares], fraction: float, seed: int
) -> None:
    """Of two dialogues that two clients share, they never hold out opposite ones."""
    kept, held = hold_out(clients, fraction, seed)
    before = {
        (back.dialogue, left.dialogue)
        for client, own in zip(kept, held, strict=True)
        for back in own
        for left in client.shares
    }
    assert not any((second, first) in before for first, second in before)


@quick
@given(clients=CLIENTS, fraction=FRACTIONS, seed=SEEDS)
def test_holdout_is_a_function_of_the_seed(
    clients: list[ClientShares], fraction: float, seed: int
) -> None:
    np.random.seed(seed + 1)  # noqa: NPY002 - nothing may depend on it
    one = hold_out(clients, fraction, seed)
    other = hold_out(clients, fraction, seed)
    assert [dialogues(h) for h in one[1]] == [dialogues(h) for h in other[1]]
    assert [dialogues(c.shares) for c in one[0]] == [dialogues(c.shares) for c in other[0]]


def test_holdouts_differ_by_seed() -> None:
    client = ClientShares("c", [Share(d, ONE, ONE) for d in range(40)])
    assert len({tuple(dialogues(hold_out([client], 0.5, s)[1][0])) for s in range(10)}) == 10


@quick
@given(clients=CLIENTS, seed=SEEDS)
def test_nothing_is_held_out_at_0(clients: list[ClientShares], seed: int) -> None:
    kept, held = hold_out(clients, 0, seed)
    assert held == [[]] * len(clients)
    assert [list(k.shares) for k in kept] == [list(c.shares) for c in clients]
