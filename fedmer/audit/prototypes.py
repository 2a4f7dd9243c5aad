"""Is a class mean near an utterance of the client that sent it?"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.audit.recorder import Message
from fedmer.audit.resampling import mean_figure
from fedmer.audit.subject import Subject
from fedmer.data.client_data import ClientData
from fedmer.data.evaluation import EvaluationBatches
from fedmer.prototypes import PrototypeSet
from fedmer.report.attacks import Finding
from fedmer.weights import load_weights

SENDERS = 20
"""Clients of the first round whose prototypes are looked at, since each takes a pass over all
data."""
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
        return Finding(skipped=f"Clients of {subject.rule} send no prototypes.")
    messages = [m for m in sending if m.round == sending[0].round][:SENDERS]
    counts, clients = [], []
    hits: list[list[float]] = []
    for message in messages:
        own = _labels(subject.clients[message.client])
        for _, place in _means(message):
            counts.append(int((own == place).sum()))
            clients.append(message.client)
            hits.append([])
    for number in range(2):
        found = (hit for message in messages for hit in _hits(subject, message, number == 1))
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


def _hits(subject: Subject, message: Message, received: bool) -> list[float]:
    """For each class mean in a message: is the nearest utterance its sender's?

    Args:
        subject: The run.
        message: With prototypes.
        received: Embed by the network that the client received, and not by what is seen of it.
    """
    network = subject.new_client().network
    state = subject.network.state_dict()
    seen = message.received if received else message.weights or message.trained
    load_weights(network, {name: (seen or state).get(name, state[name]) for name in state})
    sent = PrototypeSet.unpack(message.summary.tensors)
    embedded_at = {site: embedded(network, subject.clients, site) for site in sent}
    hits = []
    for site, place in _means(message):
        rows, owner = embedded_at[site]
        apart = (rows - sent[site].means[place].to(rows.dtype)).square().sum(dim=1)
        hits.append(float(owner[int(apart.argmin())] == message.client))
    return hits


@torch.no_grad()
def embedded(
    network: torch.nn.Module, clients: Sequence[ClientData], site: str
) -> tuple[Tensor, NDArray[np.int64]]:
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
