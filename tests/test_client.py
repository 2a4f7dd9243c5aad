"""How a client steps."""

from collections.abc import Callable, Iterable

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop

from fedmer.client import EmotionClient, fuse
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
