"""What ``fedmer validate`` and ``fedmer test`` print."""

from fedmer.console import Console
from fedmer.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.federated import FederatedModule
from fedmer.record.subsets import subset_votes
from fedmer.record.tables import part_table
from fedmer.record.votes import votes_of
from fedmer.report.subsets import scores_by_subset, shown_subsets


def print_evaluation(part: str, module: FederatedModule, data: FederatedDataModule) -> None:
    """Print the scores of a part, and those of ``test`` by subsets of the modalities.

    Raises:
        InputError: Nothing in it is labelled.
    """
    if part not in module.scores:
        raise InputError(f"{data.corpus.name} has nothing labelled in {part}.")
    console = Console()
    console.print(part_table(part, module.scores[part], data.corpus))
    found = subset_votes(module, data) if part == "test" else {}
    if found:
        counts = {name: votes.numpy() for name, votes in found.items()}
        votes = votes_of(data.corpus, data.views("test"), counts)
        console.print(shown_subsets(scores_by_subset("", [votes]), data.corpus.name))
