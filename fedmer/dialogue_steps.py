"""Steps whose gradient is a sum over dialogues, each clipped by itself, with noise on the sum."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields
from math import ceil
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call, grad_and_value, vmap

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator, ClientRound, Stage
from fedmer.contracts.privacy import LocalSteps, StepNoise
from fedmer.data.batch import Batch, Excerpt, collate
from fedmer.errors import InputError
from fedmer.losses.class_terms import ClassTerms
from fedmer.seeds import derive, generator
from fedmer.steps import Steps

AT_ONCE = 2**26
"""Numbers of the gradients that are held at once, where dialogues go through a network together."""
_SLACK = 1 + 1e-6
"""By how much more is clipped, so that rounding carries nothing over the norm."""


@dataclass(frozen=True)
class _Drawn:
    """The dialogues of a step, how many there are in the mean, and where its noise comes from."""

    dialogues: Sequence[Excerpt]
    expected: int
    seed: int


class DialogueSteps(Steps):
    r"""Steps with the gradient

    .. math:: \frac{1}{B} \Big(\sum_{d \in S} \nabla L_d
        \min\Big(1, \frac{C}{\lVert \nabla L_d \rVert}\Big) + \mathcal N(0, z^2 C^2 I)\Big)

    over the dialogues :math:`S` that are drawn, each by itself with probability :math:`B / N` of
    :math:`N`; :math:`C` and :math:`z` are those of :attr:`noise`. Everything is a function of the
    client's seed. A network that ``torch.func.vmap`` can run gets its dialogues together, another
    one by one.
    """

    noise = StepNoise(1.0, 1.0)
    """Of the client that trains next."""

    def plan(self, dialogues: int, stages: Sequence[Stage]) -> LocalSteps:
        """The steps that a client with so many dialogues will make."""
        batch = min(self.training.batch_size, dialogues)
        epochs = sum(stage.epochs for stage in stages)
        return LocalSteps(dialogues, batch, epochs * ceil(dialogues / batch))

    def make(
        self,
        context: ClientRound,
        stages: Sequence[Stage],
        data: Sequence[Excerpt],
        terms: ClassTerms,
        state: dict[str, Any],
    ) -> tuple[float, dict[str, Any] | None]:
        """As :meth:`Steps.make`.

        Raises:
            InputError: The network has changed a buffer by what it saw, and no noise covers that.
        """
        network = self.client.network
        before = {name: value.clone() for name, value in network.named_buffers()}
        found = super().make(context, stages, data, terms, state)
        for name, value in network.named_buffers():
            if not torch.equal(value, before[name]):
                raise InputError(
                    f"{type(network).__name__} changes '{name}' by what it sees, which no noise on "
                    "gradients covers; use another network."
                )
        return found

    def _batches(self, client: int, data: Sequence[Excerpt], epoch: int) -> Iterator[Any]:
        size = min(self.training.batch_size, len(data))
        for step in range(ceil(len(data) / size)):
            purpose = (client, epoch, step)
            draws = generator(self.client.seed, "dialogues", *purpose).random(len(data))
            chosen = np.flatnonzero(draws < size / len(data)).tolist()
            seed = derive(self.client.seed, "dialogue noise", *purpose)
            yield _Drawn([data[place] for place in chosen], size, seed)

    def _backward(self, batch: _Drawn, context: ClientRound) -> Tensor:
        learnt = {name: p for name, p in self._parameters.items() if p.requires_grad}
        total, loss = clipped_sum(self.client, learnt, batch.dialogues, self.noise.norm)
        device = self.client.device
        random = torch.Generator(device).manual_seed(batch.seed)
        deviation = self.noise.multiplier * self.noise.norm
        for name, parameter in self._parameters.items():
            parameter.grad = None
            if name in learnt:
                drawn = torch.randn(parameter.shape, generator=random, device=device)
                parameter.grad = total[name].add_(drawn, alpha=deviation).div_(batch.expected)
        return loss / batch.expected


def clipped_sum(
    client: EmotionClient,
    parameters: Mapping[str, Tensor],
    dialogues: Sequence[Excerpt],
    norm: float,
) -> tuple[dict[str, Tensor], Tensor]:
    """The gradients of the loss on each dialogue alone, each scaled down to a norm, added up.

    Args:
        client: Its network, in the mode that it is in, and its loss.
        parameters: By name, those of the network whose gradients count.
        dialogues: Any number of them.
        norm: The largest norm of all of a dialogue's gradients together.

    Returns:
        Name -> the sum, and the sum of the losses.
    """
    total = {name: torch.zeros_like(p, requires_grad=False) for name, p in parameters.items()}
    loss = torch.zeros((), device=client.device)
    if client.network.stackable:
        size = max(1, AT_ONCE // max(1, sum(p.numel() for p in parameters.values())))
        for start in range(0, len(dialogues), size):
            loss += _add_together(client, parameters, dialogues[start : start + size], norm, total)
    else:
        for dialogue in dialogues:
            loss += _add_one(client, parameters, dialogue, norm, total)
    return total, loss


def _add_together(
    client: EmotionClient,
    parameters: Mapping[str, Tensor],
    dialogues: Sequence[Excerpt],
    norm: float,
    total: Mapping[str, Tensor],
) -> Tensor:
    batch = collate(dialogues).to(client.device)

    def loss(learnt: Mapping[str, Tensor], parts: Mapping[str, Any]) -> Tensor:
        # A batch of this dialogue alone.
        alone = {name: _map(part, lambda rows: rows[None]) for name, part in parts.items()}
        seen = client.training_batch(Batch(**alone))
        output = functional_call(client.network, dict(learnt), (seen,))
        return client.supervised_loss(output, seen)

    with ExitStack() as runs:
        for network in filter(None, (client.network, client.teacher)):
            runs.enter_context(network.under_vmap())
        gradients, losses = vmap(grad_and_value(loss), in_dims=(None, 0), randomness="different")(
            {name: p.detach() for name, p in parameters.items()},
            {field.name: getattr(batch, field.name) for field in fields(batch)},
        )
    squares = sum(rows.flatten(1).square().sum(dim=1) for rows in gradients.values())
    factors = (norm / (squares.sqrt() * _SLACK)).clamp(max=1.0)
    for name, rows in gradients.items():
        total[name].add_(torch.tensordot(factors, rows, dims=1))
    every: Tensor = losses.detach().sum()
    return every


def _add_one(
    client: EmotionClient,
    parameters: Mapping[str, Tensor],
    dialogue: Excerpt,
    norm: float,
    total: Mapping[str, Tensor],
) -> Tensor:
    batch = client.training_batch(collate([dialogue]).to(client.device))
    loss = client.supervised_loss(client(batch), batch)
    gradients = torch.autograd.grad(
        loss, list(parameters.values()), allow_unused=True, materialize_grads=True
    )
    length = torch.stack(torch._foreach_norm(gradients)).norm()
    factor = (norm / (length * _SLACK)).clamp(max=1.0)
    torch._foreach_add_(list(total.values()), torch._foreach_mul(gradients, factor))
    return loss.detach()


def check_dialogues(
    mechanism: str, client: EmotionClient, rule: Aggregator, precision: str
) -> None:
    """Refuse what would let the gradient of one dialogue depend on others.

    Args:
        mechanism: That wants them apart.
        client: Its network and its loss.
        rule: Its client half.
        precision: Of the arithmetic.

    Raises:
        InputError: Something would, or the precision is not single; says which.
    """
    why, network = "", client.network
    kept = [name for name, _ in network.named_buffers() if name in network.state_dict()]
    hooks = ("client_loss", "on_batch")
    if any(getattr(rule, hook).__func__ is not getattr(Aggregator, hook) for hook in hooks):
        why = f"{rule.name} changes what a client minimises; use a rule such as FedAvg."
    elif client.loss.counts_classes:
        why = (
            "the loss weighs or moves classes by their counts in all dialogues; use "
            "--loss.calibration none --loss.class_weights none."
        )
    elif kept:
        why = (
            f"{type(network).__name__} keeps '{kept[0]}' beside its parameters, such as statistics "
            "of what it sees, which no noise on gradients covers; use another network."
        )
    elif precision != "32-true":
        why = f"the precision is {precision}; use --trainer.precision 32-true."
    if why:
        raise InputError(
            f"--privacy {mechanism} takes each dialogue's gradient by itself, but {why}"
        )


def _map(part: Any, change: Any) -> Any:
    """A tensor changed, or all of a dictionary."""
    if isinstance(part, dict):
        return {name: change(rows) for name, rows in part.items()}
    return change(part)
