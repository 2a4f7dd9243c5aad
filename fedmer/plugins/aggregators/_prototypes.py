"""What rules that exchange class prototypes have in common."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from fedmer.contracts.aggregator import ClientRound
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.losses.prototype import class_sums
from fedmer.messages import Weights
from fedmer.prototypes import Prototypes, PrototypeSet

_SUM = "sum."
_COUNT = "count."


def embedding_at(output: NetworkOutput, site: str) -> Tensor:
    """``(B, L, D)``, what a network makes of every utterance at a site.

    Raises:
        InputError: The network has no such site.
    """
    if site not in output.embeddings:
        known = ", ".join(output.embeddings)
        raise InputError(f"The network has no site '{site}' for prototypes; it has: {known}.")
    return output.embeddings[site]


def counted_at(batch: Batch, site: str) -> Tensor:
    """``(B, L)`` bool: the labelled utterances; at a modality's site those that have the
    modality."""
    return batch.labelled & batch.present[site] if site in batch.present else batch.labelled


def local_prototypes(
    context: ClientRound, batches: Iterable[Batch], sites: Sequence[str] = ("fused",)
) -> PrototypeSet:
    """A client's prototypes over all that it trained on, in one pass.

    The mean of a class that it does not hold is zero.

    Raises:
        InputError: The network lacks a site.
    """
    classes = context.client.network.shape.classes
    sums: dict[str, list[tuple[Tensor, Tensor]]] = {site: [] for site in sites}
    for batch in batches:
        output = context.client(batch)
        for site in sites:
            rows = embedding_at(output, site)
            sums[site].append(class_sums(rows, batch.labels, counted_at(batch, site), classes))
    result = {}
    for site, parts in sums.items():
        total = torch.stack([part for part, _ in parts]).sum(dim=0)
        result[site] = _means(total, torch.stack([count for _, count in parts]).sum(dim=0))
    return PrototypeSet(result)


def collect_prototypes(
    context: ClientRound, output: NetworkOutput, batch: Batch, sites: Sequence[str]
) -> None:
    """Add a batch of training to sums that the client keeps until :func:`collected_prototypes`.

    Raises:
        InputError: The network lacks a site.
    """
    classes, memory = context.client.network.shape.classes, context.memory
    for site in sites:
        rows = embedding_at(output, site).detach().float()
        found = class_sums(rows, batch.labels, counted_at(batch, site), classes)
        for name, value in zip((_SUM + site, _COUNT + site), found, strict=True):
            memory[name] = memory[name] + value if name in memory else value


def collected_prototypes(context: ClientRound, sites: Sequence[str]) -> PrototypeSet:
    """The means of what :func:`collect_prototypes` added up, which is then forgotten."""
    memory = context.memory
    return PrototypeSet(
        {site: _means(memory.pop(_SUM + site), memory.pop(_COUNT + site)) for site in sites}
    )


def held_by(found: PrototypeSet, least: int, counted: bool = True) -> PrototypeSet:
    """What a client sends of its prototypes.

    Args:
        found: Its prototypes, with counts.
        least: A class of which it has fewer utterances is not held: its mean and count are 0.
        counted: Does it send how many utterances are behind each, and not only which it holds?
    """
    sent = {}
    for site, local in found.items():
        assert local.counts is not None
        kept = local.counts >= least
        counts = local.counts * kept if counted else None
        sent[site] = Prototypes(local.means * kept[:, None], kept, counts)
    return PrototypeSet(sent)


def check_least(least: int) -> None:
    """Refuse a number of utterances that no class could have too few of.

    Raises:
        InputError: It is below 1.
    """
    if least < 1:
        raise InputError(f"min_count is {least}; expected at least 1.")


def in_sum(tensors: Mapping[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """A summary's tensors with means of the given names as parts of a masked sum."""
    means = PrototypeSet.unpack(tensors).pack_sums()
    return {**tensors, **{name: means[name] for name in names if name in means}}


def split_mean(mean: Weights | None, names: Sequence[str]) -> tuple[Weights | None, PrototypeSet]:
    """The mean of the weights, None if there are none, and the prototypes that came with it."""
    if mean is None:
        return None, PrototypeSet({})
    came = {name: mean[name] for name in names if name in mean}
    rest = mean if not came else {n: value for n, value in mean.items() if n not in came}
    return rest or None, PrototypeSet.unpack_sums(came)


def _means(sums: Tensor, counts: Tensor) -> Prototypes:
    return Prototypes(sums / counts.clamp(min=1)[:, None], counts > 0, counts)
