"""Who sent this, and of which group is the sender? Told by messages of other rounds and clients."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.audit.recorder import Message
from fedmer.audit.resampling import mean_figure
from fedmer.audit.subject import Subject
from fedmer.prototypes import PrototypeSet
from fedmer.report.attacks import Finding

RIDGE = 0.1
"""Of the probe, as a share of the mean squared length of a message."""


def sender(subject: Subject) -> Finding:
    """Can a server tell by a message which client sent it, from those of another round?

    Each message is compared with those of every other round by the cosine of what it differs from
    the mean of its round; the most alike one names the sender. That its name stands on a
    message is not used: what is measured is how well messages of one client that hides its
    name can be linked. Messages that are equally alike share the guess.
    """
    if subject.rounds < 2:
        return Finding(skipped="One round has nothing to compare it with; give --rounds 2 or more.")
    figures = []
    for name, messages, rows in views(subject):
        client, round = (np.array([key(m) for m in messages]) for key in (_client, _round))
        right, chance = linked(rows, client, round)
        tried = ~np.isnan(right)
        if tried.any():
            clients = client[tried]
            figures.append(mean_figure(f"by {name}", right[tried], chance, clients, subject.seed))
    if not figures:
        return Finding(skipped="No client took part in two of the rounds, or none sent anything.")
    return Finding(figures)


def group(subject: Subject, groups: Mapping[str, str]) -> Finding:
    """Can a server tell the group of a client, such as a gender, from those of the others?

    A ridge regression on the mean message of each other client, whose groups are known, says
    which group the left-out client is of. Chance is the commonest group.

    Args:
        subject: The run.
        groups: Name of a client -> its group.
    """
    if not groups:
        return Finding(
            skipped="No groups of speakers were given, and corpora have none; --groups "
            "SPEAKERS.csv tells."
        )
    names = [client.name for client in subject.clients]
    known = sorted({groups[name] for name in names if name in groups})
    figures = []
    for name, messages, rows in views(subject):
        clients = sorted({m.client for m in messages if names[m.client] in groups})
        if len(clients) < 3 or len(known) < 2:
            continue
        of = np.array([m.client for m in messages])
        means = torch.stack(
            [rows[torch.from_numpy(of == client)].mean(dim=0) for client in clients]
        )
        truth = np.array([known.index(groups[names[client]]) for client in clients])
        right = left_out(means, truth) == truth
        chance = float(np.bincount(truth).max() / len(truth))
        figures.append(
            mean_figure(
                *(f"by {name}", right.astype(np.float64), chance),
                *(np.array(clients), subject.seed),
            )
        )
    if not figures:
        return Finding(
            skipped="Fewer than three clients are named in --groups, or all are of one group; a "
            "client is called by its speaker with --partitioner Speaker."
        )
    return Finding(figures)


def views(subject: Subject) -> list[tuple[str, list[Message], Tensor]]:
    """What of messages can be compared: its name, the messages that have it, and ``(N, D)`` rows,
    less the mean of their round."""
    found = []
    for name, row_of in (("update", _update), ("prototypes", _prototypes)):
        messages = [m for m in subject.messages if row_of(m) is not None]
        if not messages:
            continue
        rows = torch.stack([row for m in messages if (row := row_of(m)) is not None])
        rounds = torch.tensor([m.round for m in messages])
        for number in set(rounds.tolist()):
            there = rounds == number
            rows[there] -= rows[there].mean(dim=0)
        found.append((name, messages, rows))
    return found


def linked(
    rows: Tensor, client: NDArray[np.int64], round: NDArray[np.int64]
) -> tuple[NDArray[np.float64], float]:
    """How often each row's nearest one of another round is of the same client, and chance.

    A row is judged against each other round in which its client took part.

    Args:
        rows: ``(N, D)``.
        client: ``(N,)``.
        round: ``(N,)``.

    Returns:
        ``(N,)`` in [0, 1], one half where two are equally near and one is right; NaN if the client
        took no part in another round. And the mean of one over how many there were to choose from.

    >>> rows = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1], [0.1, 0.9]])
    >>> linked(rows, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))[0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    unit = torch.nn.functional.normalize(rows.double(), dim=1)
    alike = (unit @ unit.T).round(decimals=9).numpy()
    right = np.full(len(rows), np.nan)
    chances = []
    for place in range(len(rows)):
        hits = []
        for other in np.unique(round[round != round[place]]):
            there = np.flatnonzero(round == other)
            if client[place] in client[there]:
                best = there[alike[place, there] == alike[place, there].max()]
                hits.append(float((client[best] == client[place]).mean()))
                chances.append(1 / len(there))
        if hits:
            right[place] = np.mean(hits)
    return right, float(np.mean(chances)) if chances else 0.0


def left_out(rows: Tensor, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """What a ridge regression on all other rows says of each.

    Args:
        rows: ``(I, D)``.
        truth: ``(I,)``, classes from 0.
    """
    centred = rows.double() - rows.double().mean(dim=0)
    kernel = (centred @ centred.T).numpy()
    kernel += kernel.trace() / len(kernel) * (RIDGE * np.eye(len(kernel)))
    wanted = np.eye(int(truth.max()) + 1)[truth]
    found = []
    for place in range(len(truth)):
        others = np.delete(np.arange(len(truth)), place)
        mean = wanted[others].mean(axis=0)
        square = kernel[np.ix_(others, others)]
        dual = np.linalg.lstsq(square, wanted[others] - mean, rcond=None)[0]
        found.append(int((mean + kernel[place, others] @ dual).argmax()))
    return np.array(found)


def _client(message: Message) -> int:
    return message.client


def _round(message: Message) -> int:
    return message.round


def _update(message: Message) -> Tensor | None:
    change = message.change
    return torch.cat([value.flatten() for value in change.values()]) if change else None


def _prototypes(message: Message) -> Tensor | None:
    sites = PrototypeSet.unpack(message.summary.tensors)
    rows = [site.means.flatten().float() for site in sites.values()]
    return torch.cat(rows) if rows else None
