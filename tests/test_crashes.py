"""A few of the kills of ``python -m tests.crashes``."""

import pytest

from tests.crashes import campaign


@pytest.mark.slow
def test_runs_survive_kills_at_random_moments() -> None:
    count = campaign(kills=6, seed=1, executors=["Inline", "Workers"])
    assert count["kills"] == 6
    assert count["runs compared"] >= 2
