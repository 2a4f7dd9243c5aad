"""Is a class mean near an utterance of the client that sent it?"""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.audit.recorder import Message
from fedmer.audit.resampling import mean_figure
from fedmer.audit.subject import Subject
from fedmer.data.client_data import ClientData
from fedmer.data.evaluation import EvaluationBatches
from fedmer.messages import Weights
from fedmer.prototypes import PrototypeSet
from fedmer.report.attacks import Finding
from fedmer.weights import load_weights

SENDERS = 20
"""Clients of the first round whose prototypes are looked at, since each takes a pass over all
data."""
Embedded = tuple[Tensor, NDArray[np.int64]]
"""``(N, D)`` embeddings, and ``(N,)`` whose each is."""
BEHIND = ((1, 1), (2, 4), (5, None))
"""From how many utterances to how many a mean is of."""


def nearest_utterance(subject: Subject) -> Finding:
    """Is the utterance whose embedding is nearest to a class mean one of the client that sent it?

    Of one utterance the mean is its embedding. Somebody who has the utterances of all clients, but
    does not know whose they are, names for each mean the nearest one. They embed by the network
    that the server sees of the client (under a masked sum the mean one; where networks stay on
    clients, the client's), or by the one that clients received, and of these two the one that finds
    more counts: noise may spoil the first. Chance is the client's share of all utterances.
    """
    sending = [m for m in subject.messages if PrototypeSet.unpack(m.summary.tensors)]
    if not sending:
        return Finding(skipped=f"Nobody sees prototypes of single clients of {subject.rule}.")
    messages = [m for m in sending if m.round == sending[0].round][:SENDERS]
    counts, clients = [], []
    hits: list[list[float]] = []
    for message in messages:
        labels = _labels(subject.clients[message.client])
        for _, place in _means(message):
            counts.append(int((labels == place).sum()))
            clients.append(message.client)
            hits.append([])
    common = _embedder(subject, messages[0].received)
    for received in (False, True):
        found = []
        for message in messages:
            own = common if received else _embedder(subject, message.weights or message.trained)
            found += _hits(message, own)
        for row, hit in zip(hits, found, strict=True):
            row.append(hit)
    return _finding(subject, np.array(hits), np.array(counts), np.array(clients))


def _finding(
    subject: Subject,
    hits: NDArray[np.float64],
    counts: NDArray[np.int64],
    clients: NDArray[np.int64],
) -> Finding:
    real = counts > 0  # noise may send means of classes that a client does not have
    if not real.any():
        return Finding(skipped="No client sent a mean of a class that it has.")
    better = hits[:, int(hits[real].mean(axis=0).argmax())]
    every = sum(client.examples for client in subject.clients)
    share = np.array([subject.clients[client].examples / every for client in clients])
    figures = []
    for low, high in ((1, None), *BEHIND):
        chosen = (counts >= low) & (counts <= (high or np.inf))
        if chosen.any():
            ending = "" if high == low else f" to {high}" if high else " or more"
            figures.append(
                mean_figure(
                    *(f"means of {low}{ending}", better[chosen], float(share[chosen].mean())),
                    *(clients[chosen], subject.seed),
                )
            )
    return Finding(figures)


def _means(message: Message) -> list[tuple[str, int]]:
    """Site and class of each mean in a message."""
    sites = PrototypeSet.unpack(message.summary.tensors).items()
    return [(site, k) for site, sent in sites for k in sent.known.nonzero()[:, 0].tolist()]


def _embedder(subject: Subject, weights: Weights | None) -> Callable[[str], Embedded]:
    """Site -> all utterances there, by the run's network with some weights; each site once."""
    network = subject.new_client().network
    state, known = subject.network.state_dict(), weights or {}
    load_weights(network, {name: known.get(name, value) for name, value in state.items()})
    return cache(lambda site: embedded(network, subject.clients, site))


def _hits(message: Message, everybody: Callable[[str], Embedded]) -> list[float]:
    """For each class mean in a message: is the nearest utterance its sender's?"""
    sent, hits = PrototypeSet.unpack(message.summary.tensors), []
    for site, place in _means(message):
        rows, owner = everybody(site)
        apart = (rows - sent[site].means[place].to(rows.dtype)).square().sum(dim=1)
        hits.append(float(owner[int(apart.argmin())] == message.client))
    return hits


@torch.no_grad()
def embedded(network: torch.nn.Module, clients: Sequence[ClientData], site: str) -> Embedded:
    """``(N, D)`` embeddings of all utterances that clients learn from, and whose each is."""
    network.eval()
    excerpts = [excerpt for client in clients for excerpt in client.train]
    batches = EvaluationBatches(excerpts)
    rows = [network(batch).embeddings[site][batch.labelled] for batch in batches]
    owner = [
        number
        for number, client in enumerate(clients)
        for excerpt in client.train
        for _ in range(int(excerpt.labelled.sum()))
    ]
    return batches.restore(torch.cat(rows)), np.array(owner)


def _labels(client: ClientData) -> Tensor:
    return torch.cat([one.labels[one.labelled] for one in client.train])
