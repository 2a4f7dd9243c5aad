"""Local, which exchanges nothing."""

import torch

from fedmer.contracts.aggregator import ClientRound, ServerState
from fedmer.messages import Summary
from fedmer.plugins.aggregators.local import Local
from tests.aggregators.rules import (
    batch_of,
    client,
)


def test_local_sends_nothing_and_changes_nothing() -> None:
    own, rule = client(0), Local()
    state = ServerState(own.network)
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    sent = rule.broadcast(state)
    assert sent.weights is None
    assert sent.nbytes == 0
    here = ClientRound(own, sent)
    supervised = torch.tensor(2.0)
    assert rule.client_loss(supervised, own(batch_of(0)), batch_of(0), here) is supervised
    assert rule.summarize(here, [batch_of(0)]) == {}
    summaries = [Summary(0, 1), Summary(1, 3)]
    rule.step(state, summaries, rule.weigh(summaries, state), None)
    after = own.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert state.tensors == {}
    assert rule.personal_names(own.network) == own.network.state_dict().keys()
