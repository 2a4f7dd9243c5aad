"""FedProx against autograd."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmer.contracts.aggregator import ClientRound
from fedmer.errors import InputError
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.fed_prox import FedProx
from tests.aggregators.rules import SEEDS, batch_of, client, few


@few
@given(seed=SEEDS, mu=st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_proximal_gradient_is_that_of_autograd(seed: int, mu: float) -> None:
    own, batch = client(seed), batch_of(seed)
    start = {n: v + torch.randn_like(v) for n, v in own.network.state_dict().items()}
    named = dict(own.network.named_parameters())
    torch.autograd.backward(own.training_step(batch, 0))
    plain = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    assert plain.keys() == named.keys()
    apart = sum(((p - start[name]).square().sum() for name, p in named.items()), torch.zeros(()))
    pull = dict(zip(named, torch.autograd.grad(mu / 2 * apart, list(named.values())), strict=True))
    FedProx(mu).on_before_optimizer_step(ClientRound(own, Broadcast(0, start)))
    for name, parameter in named.items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, plain[name] + pull[name], msg=name)
        assert (pull[name] != 0).any(), name


@few
@given(seed=SEEDS)
def test_no_proximal_term_leaves_gradients_untouched(seed: int) -> None:
    own = client(seed)
    start = dict(client(seed + 1).network.state_dict())
    torch.autograd.backward(own.training_step(batch_of(seed), 0))
    before = [p.grad.clone() for p in own.network.parameters() if p.grad is not None]
    FedProx(0).on_before_optimizer_step(ClientRound(own, Broadcast(0, start)))
    FedProx(1).on_before_optimizer_step(ClientRound(own, Broadcast(0, None)))
    after = [p.grad for p in own.network.parameters() if p.grad is not None]
    assert len(before) == len(after) > 0
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_a_negative_mu_is_refused(value: float) -> None:
    with pytest.raises(InputError, match=f"mu is {value}; expected 0 or more"):
        FedProx(value)
