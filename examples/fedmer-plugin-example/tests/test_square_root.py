"""What SquareRoot promises."""

import pytest
import torch
from fedmer_plugin_example.square_root import SquareRoot

from fedmer.contracts import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary


def test_four_times_the_examples_are_twice_the_weight() -> None:
    summaries = [Summary(0, examples=25), Summary(1, examples=100)]
    state = ServerState(torch.nn.Linear(1, 1))
    assert SquareRoot().weigh(summaries, state) == {0: 5.0, 1: 10.0}
    assert SquareRoot(power=0).weigh(summaries, state) == {0: 1.0, 1: 1.0}


def test_a_wrong_power_is_a_sentence() -> None:
    with pytest.raises(InputError, match=r"power is -1; expected 0 or more"):
        SquareRoot(power=-1)
