"""A run that is attacked: its network, its clients, and rounds as they would go on."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.audit.recorder import Message, Recorder, Rehearsed
from fedmer.client import EmotionClient
from fedmer.contracts.network import Network
from fedmer.contracts.selector import Selector
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.evaluation import EvaluationBatches
from fedmer.datamodule import FederatedDataModule
from fedmer.federated import FederatedModule
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.selectors.all import All
from fedmer.seeds import derive


@dataclass(frozen=True, eq=False)
class Answers:
    """What a network says of the labelled utterances of some excerpts, in their order.

    Args:
        logits: ``(N, C)``.
        labels: ``(N,)`` int64.
        excerpt: ``(N,)`` int64, the excerpt that each is in.
    """

    logits: Tensor
    labels: Tensor
    excerpt: NDArray[np.int64]

    @property
    def losses(self) -> NDArray[np.float64]:
        """``(N,)``, cross-entropy."""
        rows = torch.nn.functional.cross_entropy(self.logits, self.labels, reduction="none")
        found: NDArray[np.float64] = rows.double().numpy()
        return found

    @property
    def confidence(self) -> NDArray[np.float64]:
        r"""``(N,)``, :math:`\log p_y - \log(1 - p_y)`, which is nearly normal over networks."""
        logits = self.logits.double()
        own = logits.gather(1, self.labels[:, None])[:, 0]
        others = logits.scatter(1, self.labels[:, None], -torch.inf).logsumexp(dim=1)
        found: NDArray[np.float64] = (own - others).numpy()
        return found


class Subject:
    """A run restored after one of its rounds; attacks leave it as it is.

    Args:
        module: Restored, with a loop.
        data: Its data, split as it was.
        rounds: How many more to listen to.
        done: How many it has behind it.
        optimizer: State of the server's optimizer.
        untold: What a network follows from that learns at one place from the clients' data.
    """

    def __init__(
        self,
        module: FederatedModule,
        data: FederatedDataModule,
        rounds: int,
        done: int,
        optimizer: dict[str, Any],
        untold: str = "",
    ) -> None:
        self.module = module
        self.data = data
        self.rounds = rounds
        self.done = done
        self.seed = module.seed
        self.untold = untold
        self._optimizer = optimizer

    @property
    def loop(self) -> FederatedLoop:
        return self.module.loop

    @property
    def rule(self) -> str:
        return self.module.aggregator.name

    @cached_property
    def clients(self) -> list[ClientData]:
        """By id."""
        return list(self.loop.trainer.data.values())

    @property
    def network(self) -> Network:
        """The global one, as it is evaluated."""
        found = self.loop.evaluated
        assert isinstance(found, Network)
        return found

    @cached_property
    def messages(self) -> list[Message]:
        """What a server sees of the clients in the rounds that come next."""
        loop, recorder = self.federation(self.clients, self.loop.selector)
        loop.trainer.load_state_dict(self.loop.trainer.state_dict())
        first = self.done
        return [m for place in range(self.rounds) for m in recorder.run(loop, first + place)]

    def rehearse(self, clients: Sequence[ClientData]) -> list[Message]:
        """What a server would see of others than its clients in the next round, all of them."""
        loop, recorder = self.federation(clients, All())
        return recorder.run(loop, self.done)

    def federation(
        self, clients: Sequence[ClientData], selector: Selector
    ) -> tuple[FederatedLoop, Recorder]:
        """The run as it stands, of some clients that remember nothing, and what listens to it."""
        module, ours, recorder = self.module, self.loop, Recorder()
        network = copy.deepcopy(ours.state.network)
        client = self.new_client()
        client.network.load_state_dict(network.state_dict())
        trainer = LocalTrainer(
            *(client, clients, module.aggregator, module.local),
            privacy=module.privacy,
            conditions=ours.trainer.conditions if clients is self.clients else None,
        )
        loop = FederatedLoop(
            *(network, module.aggregator, selector, recorder, trainer),
            *(self.seed, ours.state.rounds, module.server),
        )
        loop.state.tensors = {name: value.clone() for name, value in ours.state.tensors.items()}
        loop.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        kept = ours.protection
        loop.protection = Rehearsed(kept.mechanisms, kept.seed, kept.plan)
        loop.protection.load_state_dict(copy.deepcopy(kept.state_dict()))
        return loop, recorder

    def new_client(self, *purpose: int | str) -> EmotionClient:
        """A client with a network that has learnt nothing; whose weights ``purpose`` decides."""
        module = self.module
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "audit", *purpose))
            network = module.make_network(self.data.shape)
        seed = derive(self.seed, "audit", *purpose)
        return EmotionClient(
            network, module.loss, module.make_optimizer, seed, module.make_scheduler
        )

    def train(self, excerpts: Sequence[Excerpt], *purpose: int | str) -> Network:
        """A new network that learnt from some excerpts in one place, in as many passes as clients
        make in all rounds; whose weights ``purpose`` decides."""
        client, local, rule = self.new_client(*purpose), self.module.local, FedAvg()
        trainer = LocalTrainer(client, [ClientData("all", excerpts)], rule, local)
        for round in range(self.loop.state.rounds or self.done):
            trainer.fit(0, Broadcast(round, trainer.weights.clone()))
        return client.network

    @torch.no_grad()
    def ask(self, network: Network, excerpts: Sequence[Excerpt]) -> Answers:
        """What a network says of excerpts."""
        network.eval()
        batches = EvaluationBatches(excerpts)
        rows = [network(batch).logits[batch.labelled] for batch in batches]
        labels = torch.cat([one.labels[one.labelled] for one in excerpts])
        places = np.repeat(np.arange(len(excerpts)), [int(e.labelled.sum()) for e in excerpts])
        return Answers(batches.restore(torch.cat(rows)), labels, places)
