"""How often did a client feel what? Told by its update."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.audit.recorder import Message
from fedmer.audit.resampling import mean_figure, resampled
from fedmer.audit.subject import Subject
from fedmer.data.client_data import ClientData
from fedmer.report.attacks import Figure, Finding
from fedmer.seeds import generator

STAND_INS = 20
"""Clients that the server makes of its own dialogues, to learn how much a bias moves."""


def label_histograms(subject: Subject) -> Finding:
    r"""How often does a client have each class?

    The gradient of a cross-entropy by the bias :math:`b_k` of the last layer is the mean chance of
    class :math:`k` less the share :math:`s_k` of its utterances (B. Zhao et al., "iDLG", arXiv
    2001.02610; A. Wainakh et al., "User-Level Label Leakage from Gradients in Federated Learning",
    PoPETs 2022), and training goes against it. So with :math:`\Delta b_i` what client :math:`i`
    changed, and a bar for the mean over the cohort by examples, the server estimates

    .. math:: \hat s_i = P\big(\bar s + c\,(\Delta b_i - \overline{\Delta b})\big)

    where :math:`P` goes to the nearest histogram. It knows the federation's :math:`\bar s`, and
    finds the one number :math:`c`, which an optimizer such as Adam hides, by least squares on
    clients that it makes of its own labelled dialogues. Judged is the total variation distance
    :math:`\frac12 \lVert \hat s_i - s_i \rVert_1`; chance is that of :math:`\bar s`.
    """
    bias = _bias(subject)
    if bias is None:
        return Finding(skipped="The network has no last layer with a bias, which would tell.")
    messages = [m for m in subject.messages if bias in m.change]
    if not messages:
        return Finding(skipped=f"Clients of {subject.rule} send no update that would tell.")
    classes = subject.data.shape.classes
    truth = shares(subject.clients, classes)
    everybody = torch.stack([client.class_counts(classes) for client in subject.clients]).sum(dim=0)
    mean = (everybody / everybody.sum()).double().numpy()
    scale = _scale(subject, bias, classes)
    found = np.concatenate([mean + scale * moved(of_one, bias) for of_one in by_round(messages)])
    estimate = np.stack([nearest_histogram(row) for row in found])
    clients = np.array([m.client for m in messages])
    real = truth[clients]
    distance, guess = (np.abs(rows - real).sum(axis=1) / 2 for rows in (estimate, mean))
    ours, theirs = estimate - mean, real - mean

    def alike(drawn: NDArray[np.float64] | None = None) -> float:
        weight = np.ones(len(clients)) if drawn is None else drawn[place]
        product = (weight[:, None] * ours * theirs).sum()
        sizes = (weight[:, None] * ours**2).sum() * (weight[:, None] * theirs**2).sum()
        # A sum that all clients share moves an estimate by rounding alone.
        return float(product / np.sqrt(sizes)) if sizes > 1e-12 else 0.0

    _, place = np.unique(clients, return_inverse=True)
    ends = resampled(alike, [np.arange(int(place.max()) + 1)], subject.seed)
    return Finding(
        [
            mean_figure(
                "distance to the histogram", distance, float(guess.mean()), clients, subject.seed
            ),
            Figure("correlation with it", alike(), 0.0, *ends),
        ]
    )


def shares(clients: Sequence[ClientData], classes: int) -> NDArray[np.float64]:
    """``(I, C)``, how large a part of its utterances each class is of each client's."""
    counts = torch.stack([client.class_counts(classes) for client in clients]).double()
    found: NDArray[np.float64] = (counts / counts.sum(dim=1, keepdim=True)).numpy()
    return found


def moved(messages: Sequence[Message], bias: str) -> NDArray[np.float64]:
    """``(I, C)``, what each client changed the bias by, less the :func:`mean_of` them."""
    rows = torch.stack([m.change[bias].flatten().double() for m in messages]).numpy()
    found: NDArray[np.float64] = rows - mean_of(rows, messages)
    return found


def mean_of(rows: NDArray[np.float64], messages: Sequence[Message]) -> NDArray[np.float64]:
    """``(C,)`` mean of a row for each message, by the examples that clients say they have."""
    found: NDArray[np.float64] = np.average(
        rows, axis=0, weights=[m.summary.examples for m in messages]
    )
    return found


def by_round(messages: Sequence[Message]) -> list[list[Message]]:
    """The messages of each round, in their order."""
    rounds: dict[int, list[Message]] = {}
    for message in messages:
        rounds.setdefault(message.round, []).append(message)
    return list(rounds.values())


def nearest_histogram(row: NDArray[np.float64]) -> NDArray[np.float64]:
    """The nearest point whose numbers are not negative and sum to 1.

    J. Duchi et al., "Efficient Projections onto the l1-Ball", ICML 2008.

    >>> nearest_histogram(np.array([0.9, 0.5, -1.0])).round(2).tolist()
    [0.7, 0.3, 0.0]
    """
    ordered = np.sort(row)[::-1]
    over = (np.cumsum(ordered) - 1) / np.arange(1, len(row) + 1)
    found: NDArray[np.float64] = np.maximum(row - over[np.flatnonzero(ordered > over)[-1]], 0)
    return found


def _bias(subject: Subject) -> str | None:
    head = subject.network.linear_head
    named = subject.network.named_parameters()
    bias: Tensor | None = None if head is None else head.bias
    return next((name for name, value in named if value is bias), None)


def _scale(subject: Subject, bias: str, classes: int) -> float:
    """How much of a share a step of the bias means: by least squares on stand-ins."""
    data = subject.data
    known = data.excerpts("val") or data.excerpts("test")
    sizes = sorted(len(client.train) for client in subject.clients)
    random = generator(subject.seed, "audit", "stand-ins")
    size = sizes[len(sizes) // 2]
    clients = [
        ClientData(f"stand-in {number}", [known[place] for place in chosen])
        for number in range(STAND_INS)
        for chosen in [random.integers(len(known), size=size).tolist()]
    ]
    messages = subject.rehearse(clients)
    real = shares(clients, classes)[[m.client for m in messages]]
    steps = moved(messages, bias)
    square = float((steps**2).sum())
    return (
        max(0.0, float((steps * (real - mean_of(real, messages))).sum()) / square)
        if square
        else 0.0
    )
