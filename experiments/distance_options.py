"""How the defaults of Distance and of the attention score were chosen: small runs on other corpora.

    python experiments/distance_options.py                 # all options, three seeds, half an hour
    python experiments/distance_options.py --seeds 5 --epochs 3

Every seed is a synthetic corpus that no published table uses, 40 dialogues long, split by NWay over
ten clients; scores are on its test part. A paired comparison: all options see the same corpora,
splits and initial weights.
"""

import argparse
import statistics
import warnings
from collections.abc import Mapping
from functools import partial

import torch

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.attention_score import AttentionScore
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.selectors.all import All
from fedmer.seeds import derive
from fedmer.steps import LocalTraining

FIRST_CORPUS = 100
RULES: Mapping[str, Aggregator] = {
    "FedAvg": FedAvg(),
    "Distance, lambda 0, epsilon 0.001": Distance(0.0, epsilon=1e-3),
    "Distance, lambda 0, epsilon 0.1": Distance(0.0, epsilon=0.1),
    "Distance, lambda 0, epsilon 1": Distance(0.0, epsilon=1.0),
    "Distance, lambda 0.01, epsilon 1": Distance(0.01, epsilon=1.0),
    "Distance, lambda 0.1, weights by counts": Distance(0.1, weighting="counts"),
    "the same, margin at least 3": Distance(0.1, weighting="counts", r_min=3.0),
    "the same, margin at least 10": Distance(0.1, weighting="counts", r_min=10.0),
    "the same, margin at least 3, by utterance": Distance(
        0.1, weighting="counts", r_min=3.0, correction="sample"
    ),
}
SCORES: Mapping[str, AttentionScore] = {
    "FedAvg, attention score as printed": AttentionScore(renorm=False),
    "FedAvg, attention score of mean 1": AttentionScore(renorm=True),
}


def weighted_f1(
    rule: Aggregator, score: AttentionScore | None, seed: int, epochs: int, rounds: int
) -> float:
    """Weighted F1 on test after the last round, in points."""
    corpus = synthetic_corpus(FIRST_CORPUS + seed, 40, {"text": 24, "audio": 12})
    data = FederatedDataModule(NWay(10), holdout=0.0, seed=seed)
    data._corpus = corpus
    data.setup("fit")

    def network() -> SDT:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(seed, "weights"))
            return SDT(corpus.shape, hidden=16, heads=2, dropout=0.2, attention_score=score)

    client = EmotionClient(
        network(),
        SelfDistillation(temperature=8.0),
        partial(torch.optim.Adam, lr=5e-3, weight_decay=1e-5),
        seed,
    )
    trainer = LocalTrainer(client, data.clients, rule, LocalTraining(epochs, batch_size=3))
    loop = FederatedLoop(network(), rule, All(), Inline(), trainer, seed, rounds)
    for number in range(rounds):
        loop.run_round(number)
    trainer.load(0, loop.knowledge())
    scores = trainer.evaluate(data.excerpts("test"), loop.knowledge())
    assert scores is not None
    return 100 * scores.weighted_f1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=1, help="Local epochs.")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("| | wF1 | every seed |\n|---|--:|---|")
    choices = [(name, rule, None) for name, rule in RULES.items()]
    choices += [(name, FedAvg(), score) for name, score in SCORES.items()]
    for name, rule, score in choices:
        found = [
            weighted_f1(rule, score, seed, options.epochs, options.rounds)
            for seed in range(options.seeds)
        ]
        every = ", ".join(f"{value:.1f}" for value in found)
        print(f"| {name} | {statistics.mean(found):.1f} | {every} |", flush=True)


if __name__ == "__main__":
    main()
