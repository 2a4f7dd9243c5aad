"""What did a client with one utterance learn from? Told by its update."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fedmer.audit.resampling import mean_figure
from fedmer.audit.subject import Subject
from fedmer.data.batch import Batch, Excerpt, collate
from fedmer.data.client_data import ClientData
from fedmer.report.attacks import Finding
from fedmer.seeds import generator

VICTIMS = 20
"""Utterances, each by itself on a client."""


def one_utterance(subject: Subject) -> Finding:
    r"""Can a server read the features of a client that has learnt from a single utterance?

    The first layer of a network is linear in them, :math:`Wf + b`. With :math:`\delta` the
    gradient of the loss by what it says, that by :math:`W` is :math:`\delta f^\top`, a matrix of
    rank one whose rows are multiples of the features: no search is needed, only its first singular
    vector. With a bias, :math:`\delta` itself is seen, and then the length too (J. Geiping et al.,
    "Inverting Gradients", NeurIPS 2020, arXiv 2003.14053). Steps of SGD add such matrices up,
    and Adam's first is its sign. What is looked at is what a client with this one utterance sends
    after all steps of a round, under the run's protections.

    The figures are the size of the cosine between what is read and the features, and how often
    those are the nearest, by it, of all utterances that clients learn from. Chance is the mean over
    all of them, and one of so many. Each modality counts.
    """
    excerpts = [excerpt for client in subject.clients for excerpt in client.train]
    layers = first_layers(subject.network, collate(excerpts[:1]))
    if not layers:
        return Finding(skipped="The network has no first layer that is linear in the features.")
    victims = _victims(excerpts, subject.seed)
    clients = [ClientData(f"victim {i}", [one]) for i, one in enumerate(victims)]
    messages = [m for m in subject.rehearse(clients) if m.change]
    if not messages:
        return Finding(skipped=f"Clients of {subject.rule} send no update that would tell.")
    alike, hits, owner, chance = [], [], [], []
    for name, weight in layers.items():
        every = torch.cat([one.features[name][one.present[name]] for one in excerpts])
        for message in messages:
            truth = victims[message.client]
            if weight not in message.change or not bool(truth.present[name][0]):
                continue
            found = read_features(message.change, weight)
            cosines = torch.cosine_similarity(every, found[None], dim=1).abs()
            own = torch.cosine_similarity(truth.features[name], found[None], dim=1).abs()
            alike.append(float(own[0]))
            hits.append(float(own[0] >= cosines.max() - 1e-6))
            chance.append((float(cosines.mean()), 1 / len(every)))
            owner.append(message.client)
    if not alike:
        return Finding(skipped="The first layer stays on the client.")
    clients_of = np.array(owner)
    by_chance = np.array(chance).mean(axis=0)
    return Finding(
        [
            mean_figure(
                *("cosine with the features", np.array(alike), float(by_chance[0])),
                *(clients_of, subject.seed),
            ),
            mean_figure(
                *("utterance found", np.array(hits), float(by_chance[1])),
                *(clients_of, subject.seed),
            ),
        ]
    )


def read_features(change: Mapping[str, Tensor], weight: str) -> Tensor:
    """``(D,)``, what a change of a first layer says of the one row that it learnt from.

    With a bias it is :math:`\\Delta W^\\top \\Delta b / \\lVert \\Delta b \\rVert^2`, which is the
    row; without, a multiple of it of length 1.

    Args:
        change: Of all weights.
        weight: The name of the layer's ``(d, D)`` weight.
    """
    matrix = change[weight].double()
    bias = change.get(f"{weight.removesuffix('weight')}bias")
    if bias is not None and bias.shape == matrix.shape[:1] and bool(bias.any()):
        step = bias.double()
        return (matrix.T @ step / step.square().sum()).float()
    first: Tensor = torch.linalg.svd(matrix, full_matrices=False)[2][0]
    return first.float()


@torch.no_grad()
def first_layers(network: nn.Module, batch: Batch) -> dict[str, str]:
    """Modality -> the name of the weight that is multiplied with its features as they are.

    Args:
        network: That reads the batch.
        batch: Of one dialogue.
    """
    found: dict[str, str] = {}
    rows = {name: batch.pack(features) for name, features in batch.features.items()}

    def listen(name: str, inputs: Sequence[Tensor]) -> None:
        seen = inputs[0].flatten(0, -2)
        for modality, features in rows.items():
            same = seen.shape == features.shape and torch.equal(seen, features)
            if same and modality not in found:
                found[modality] = f"{name}.weight"

    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, name=name: listen(name, inputs))
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        network.eval()
        network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _victims(excerpts: Sequence[Excerpt], seed: int) -> list[Excerpt]:
    """Labelled utterances, each cut out of its dialogue."""
    places = [
        (number, turn)
        for number, excerpt in enumerate(excerpts)
        for turn in excerpt.labelled.nonzero()[:, 0].tolist()
    ]
    random = generator(seed, "audit", "victims")
    drawn: NDArray[np.int64] = random.permutation(len(places))[:VICTIMS]
    return [_cut(excerpts[places[i][0]], places[i][1]) for i in drawn.tolist()]


def _cut(excerpt: Excerpt, turn: int) -> Excerpt:
    one = slice(turn, turn + 1)
    return replace(
        excerpt,
        turns=excerpt.turns[one],
        features={name: rows[one] for name, rows in excerpt.features.items()},
        present={name: rows[one] for name, rows in excerpt.present.items()},
        labels=excerpt.labels[one],
        labelled=excerpt.labelled[one],
        roles=torch.zeros_like(excerpt.roles[one]),
        positions=torch.zeros_like(excerpt.positions[one]),
    )
