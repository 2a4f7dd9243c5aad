"""Small federations that tests train for real."""

from collections.abc import Callable, Sequence

import torch

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.network import Network
from fedmer.contracts.partitioner import Partitioner
from fedmer.contracts.privacy import Privacy
from fedmer.contracts.selector import Selector
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.standardise import Standardise
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.network_average import ServerOptions
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.seeds import derive
from fedmer.steps import LocalTraining


def small_corpus(seed: int = 0) -> ConversationCorpus:
    """Twenty dialogues of the synthetic kind, two modalities."""
    return synthetic_corpus(seed=seed, dialogues=20, features={"text": 6, "audio": 4})


def clients_of(
    corpus: ConversationCorpus,
    partitioner: Partitioner,
    holdout: float = 0.0,
    seed: int = 0,
    standardise: Standardise = "federated",
) -> list[ClientData]:
    data = FederatedDataModule(partitioner, standardise=standardise, holdout=holdout, seed=seed)
    data._corpus = corpus
    data.setup("fit")
    return data.clients


def network_for(corpus: ConversationCorpus, seed: int = 0, dropout: float = 0.5) -> SDT:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        return SDT(corpus.shape, hidden=8, heads=2, dropout=dropout)


def federation(
    aggregator: Aggregator,
    corpus: ConversationCorpus | None = None,
    clients: Sequence[ClientData] | None = None,
    selector: Selector | None = None,
    training: LocalTraining | None = None,
    seed: int = 0,
    loss: SelfDistillation | None = None,
    executor: Executor | None = None,
    privacy: Sequence[Privacy] = (),
    network_of: Callable[[ConversationCorpus, int], Network] = network_for,
    server: ServerOptions | None = None,
    rounds: int | None = None,
) -> FederatedLoop:
    """A loop over a tiny SDT with dropout; everything is a function of the seed."""
    corpus = corpus or small_corpus()
    clients = clients or clients_of(corpus, VirtualSpeaker(8))
    network = network_of(corpus, seed)
    working = EmotionClient(network_of(corpus, seed), loss or SelfDistillation(), seed=seed)
    trainer = LocalTrainer(
        working, clients, aggregator, training or LocalTraining(), privacy=privacy
    )
    return FederatedLoop(
        network,
        aggregator,
        selector or All(),
        executor or Inline(),
        trainer,
        seed,
        rounds,
        server=server,
    )


def weights_of(loop: FederatedLoop) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in loop.state.network.state_dict().items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
