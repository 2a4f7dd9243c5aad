"""What a run's networks say where only some modalities are there: ``subset_votes.npz``."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedmer.data.evaluation import EvaluationBatches
from fedmer.data.missing import restricted, subsets
from fedmer.datamodule import FederatedDataModule
from fedmer.federated import FederatedModule
from fedmer.files import write_atomically
from fedmer.messages import Broadcast
from fedmer.metrics import TOTALS, Scores, count_votes, named, scores_of
from fedmer.record.rows import as_csv
from fedmer.record.votes import SUBSETS, Votes, read_all_votes, write_votes

TABLE = "subsets.csv"
_COLUMNS = ("modalities", "utterances", *TOTALS)


@torch.no_grad()
def subset_votes(module: FederatedModule, data: FederatedDataModule) -> dict[str, Tensor]:
    """Ask the networks of the test part with every subset of the modalities.

    An utterance that has nothing of a subset is masked altogether, and what is said of it comes
    from its dialogue alone. The test part is that of the run's conditions.

    Args:
        module: It was trained, or loaded.
        data: With two modalities or more.

    Returns:
        Such as ``text+audio`` -> ``(N, C)`` votes as in ``module.votes``, the whole first. Nothing
        for one modality, without a test part, and where every network is on a machine of its own.
    """
    names = list(data.shape.features)
    elsewhere = data.remote is not None and bool(module.loop.trainer.personal)
    excerpts = [] if elsewhere or len(names) < 2 else data.excerpts("test")
    if not excerpts:
        return {}
    shared = module.loop.evaluated
    training = shared.training
    shared.eval()
    knowledge = module.loop.knowledge()
    found = {}
    for chosen in subsets(names):
        batches = EvaluationBatches(restricted(excerpts, chosen))
        votes = torch.cat(list(_votes(module, batches, knowledge, data.shape.classes)))
        found["+".join(chosen)] = batches.restore(votes)
    shared.train(training)
    return found


def _votes(
    module: FederatedModule, batches: EvaluationBatches, known: Broadcast, classes: int
) -> Iterator[Tensor]:
    rule, autocast = module.aggregator, module.loop.trainer.fabric.autocast
    for batch in batches:
        predictions = []
        for network in module.networks(known):
            # After a test Lightning has moved the global network, and nothing else, to the CPU.
            device = next(network.parameters()).device
            here = batch.to(device)
            tensors = {name: value.to(device) for name, value in known.tensors.items()}
            with autocast():
                logits = rule.logits(network, here, replace(known, tensors=tensors))
            predictions.append(named(logits, here).cpu())
        yield count_votes(predictions, classes)


def write_subsets(folder: Path, data: FederatedDataModule, found: Mapping[str, Tensor]) -> None:
    """Write the votes, and their scores as ``subsets.csv``, into the folder of a run."""
    counts = {name: votes.numpy() for name, votes in found.items()}
    write_votes(folder / SUBSETS, data.corpus, data.views("test"), counts)
    rows = []
    for name, scores in subset_scores(read_all_votes(folder / SUBSETS)).items():
        rows.append({"modalities": name, "utterances": len(counts[name]), **scores.totals})
    write_atomically(folder / TABLE, as_csv(_COLUMNS, rows))


def subset_scores(found: Mapping[str, Votes]) -> dict[str, Scores]:
    """The scores of votes, by the same names."""
    return {
        name: scores_of(votes.confusion(np.zeros_like(votes.turn), 1)[0].tolist())
        for name, votes in found.items()
    }
