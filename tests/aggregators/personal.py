"""A small federation that tests of personal rules run."""

import torch
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network
from fedmer.data.corpus import ConversationCorpus
from fedmer.loop import FederatedLoop
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from tests.federations import clients_of, federation, small_corpus

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4))
HEADS = {"students.weight", "students.bias", "teacher.weight", "teacher.bias"}


def with_norms(corpus: ConversationCorpus, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EarlyFusion(corpus.shape, hidden=8, heads=2)


def ran(rule: Aggregator, rounds: int = 2, **options: object) -> FederatedLoop:
    chosen: dict[str, object] = {"corpus": CORPUS, "clients": CLIENTS, **options}
    loop = federation(rule, **chosen)  # type: ignore[arg-type]
    for number in range(rounds):
        loop.run_round(number)
    loop.executor.close()
    return loop


def personal_of(loop: FederatedLoop) -> dict[str, Tensor]:
    """What every client keeps of its network."""
    memory = loop.trainer.memory
    return {f"{i} {n}": v for i in memory for n, v in loop.trainer.recall(i).weights.items()}
