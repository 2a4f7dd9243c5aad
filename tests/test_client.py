"""How a client steps."""

from collections.abc import Callable, Iterable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from fedmer.client import EmotionClient, fuse, restart
from fedmer.losses.distillation import SelfDistillation
from tests.federations import network_for, small_corpus

Make = Callable[[Iterable[nn.Parameter]], Optimizer]


def stepped(make: Make, fused: bool) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(3)
    parameters = [nn.Parameter(torch.randn(5, 4, generator=random)) for _ in range(3)]
    optimizer = make(parameters)
    if fused:
        assert fuse(optimizer) is optimizer
    for _ in range(4):
        for parameter in parameters:
            parameter.grad = torch.randn(5, 4, generator=random)
        optimizer.step()
    return [parameter.detach() for parameter in parameters]


@pytest.mark.parametrize(
    "make",
    [
        lambda parameters: Adam(parameters, lr=0.1, weight_decay=0.1),
        lambda parameters: AdamW(parameters, lr=0.1, amsgrad=True),
        lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, nesterov=True),
        lambda parameters: RMSprop(parameters, lr=0.1),
    ],
)
def test_a_fused_step_is_the_same_step(make: Make) -> None:
    for one, other in zip(stepped(make, True), stepped(make, False), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@given(
    make=st.sampled_from(
        [
            lambda parameters: Adam(parameters, lr=0.1, weight_decay=0.1, amsgrad=True),
            lambda parameters: AdamW(parameters, lr=0.1, foreach=True),
            lambda parameters: SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5),
            lambda parameters: SGD(parameters, lr=0.1),
        ]
    ),
    before=st.integers(0, 3),
    after=st.integers(1, 3),
)
def test_an_optimizer_that_starts_again_is_a_new_one(make: Make, before: int, after: int) -> None:
    random = torch.Generator().manual_seed(before)
    used = [nn.Parameter(torch.randn(5, 4, generator=random)) for _ in range(3)]
    optimizer = fuse(make(used))

    def step(optimizer: Optimizer, gradients: list[torch.Tensor]) -> None:
        (group,) = optimizer.param_groups
        for parameter, gradient in zip(group["params"], gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()

    for number in range(before):
        # A client whose numbers went astray leaves nothing behind either.
        step(optimizer, [torch.full((5, 4), float("nan") if number else 1.0)] * 3)
    with torch.no_grad():
        for parameter in used:
            parameter.copy_(torch.randn(5, 4, generator=random))
    fresh = [nn.Parameter(parameter.detach().clone()) for parameter in used]
    assert restart(optimizer)
    other = fuse(make(fresh))
    for _ in range(after):
        gradients = [torch.randn(5, 4, generator=random) for _ in used]
        step(optimizer, gradients)
        step(other, gradients)
    assert all(torch.equal(one, two) for one, two in zip(used, fresh, strict=True))


def test_an_optimizer_that_nobody_knows_how_to_start_again_is_left_alone() -> None:
    parameter = nn.Parameter(torch.ones(2))
    optimizer = RMSprop([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    assert not restart(optimizer)
    assert optimizer.state[parameter]["step"] == 1


@pytest.mark.parametrize("told", [{"foreach": True}, {"fused": False}, {"differentiable": True}])
def test_an_optimizer_that_was_told_how_stays_so(told: dict[str, bool]) -> None:
    client = EmotionClient(
        network_for(small_corpus()), SelfDistillation(), lambda p: Adam(p, lr=0.1, **told)
    )
    (group,) = client.configure_optimizers().param_groups
    assert not group["fused"]
    client.optimizer = lambda p: Adam(p, lr=0.1)
    (group,) = client.configure_optimizers().param_groups
    assert group["fused"]


def test_what_a_step_draws_is_fixed_by_client_epoch_and_step() -> None:
    client = EmotionClient(network_for(small_corpus()), SelfDistillation())
    client.begin_step(1, 2, 3)
    drawn = torch.rand(3)
    client.begin_step(1, 2, 3)
    assert torch.equal(torch.rand(3), drawn)
    client.begin_step(1, 2, 4)
    assert not torch.equal(torch.rand(3), drawn)
