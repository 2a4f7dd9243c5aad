"""Models for tests, made without training."""

from importlib import import_module
from typing import Any

import torch

from fedmer.bundle.contents import Contents
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import ClientPartition, whole
from fedmer.data.standardise import moments, statistics
from fedmer.plugins import registry
from fedmer.seeds import derive


def contents_of(corpus: ConversationCorpus, network: str = "SDT", **options: Any) -> Contents:
    """A model of random weights that fits a corpus."""
    (path,) = (p.path for p in registry.plugins("networks") if p.name == network)
    module, _, name = path.rpartition(".")
    make = getattr(import_module(module), name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(0, "weights"))
        weights = make(corpus.shape, **options).state_dict()
    samples = [whole(dialogue, i) for i, dialogue in enumerate(corpus.conversations)]
    return Contents(
        parts={
            "network": {"class_path": path, "init_args": options},
            "aggregator": {"class_path": "fedmer.plugins.aggregators.fed_avg.FedAvg"},
            "partitioner": {"class_path": "fedmer.plugins.partitioners.dialogue.Dialogue"},
        },
        shape=corpus.shape,
        labels=tuple(corpus.label_names),
        weights=weights,
        statistics=statistics([moments(corpus, ClientPartition("all", samples))]),
    )
