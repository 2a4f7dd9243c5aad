"""The learning rate of a client over rounds: torch's schedulers, stepped once a round."""

import inspect
import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LinearLR, LRScheduler, SequentialLR

from fedmer.client import LRSchedulerCallable, OptimizerCallable
from fedmer.errors import InputError


class Warmup(SequentialLR):
    """The rate climbs in a straight line over the first rounds; then another schedule begins.

    Args:
        optimizer: Whose rate it is.
        rounds: How many rounds it climbs; the rate is whole in the round after them.
        start: Factor of the first round.
        then: Optimizer -> the schedule that follows, counting from its own round 0; by default the
            rate stays.

    Raises:
        InputError: ``rounds`` is below 1, or ``start`` is not in (0, 1].

    >>> from torch.optim import SGD
    >>> optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    >>> schedule = Warmup(optimizer, rounds=2, start=0.5)
    >>> schedule.get_last_lr()
    [0.5]
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rounds: int,
        start: float = 0.1,
        then: LRSchedulerCallable | None = None,
    ) -> None:
        if rounds < 1:
            raise InputError(f"lr_scheduler.rounds is {rounds}; expected at least 1.")
        if not 0 < start <= 1:
            raise InputError(f"lr_scheduler.start is {start}; expected a number in (0, 1].")
        climb = LinearLR(optimizer, start_factor=start, total_iters=rounds)
        after = then(optimizer) if then is not None else ConstantLR(optimizer, factor=1.0)
        super().__init__(optimizer, [climb, after], milestones=[rounds])


class Schedule:
    """What a round's optimizer is set to, as a function of the round and of nothing else.

    A scheduler is stepped on a stand-in for the client's optimizer, as often as there were rounds.
    Whoever asks for a round, in whatever order and process, gets the same.

    Args:
        optimizer: Parameters -> optimizer of a client.
        scheduler: Optimizer -> scheduler, or None if the rate stays.
        parameters: Of the client's network; only how many there are, their number of dimensions,
            type and device are looked at.

    Raises:
        InputError: The optimizer or the scheduler cannot be used.
    """

    def __init__(
        self,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None,
        parameters: Iterable[nn.Parameter],
    ) -> None:
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._like = [_small(parameter) for parameter in parameters]
        _try_a_step(self._new_optimizer())
        self._begin()

    def rate(self, round: int) -> float:
        """The learning rate of a round, from 0; of the first group of parameters."""
        return float(self._at(round)[0]["lr"])

    def apply(self, optimizer: Optimizer, round: int) -> None:
        """Set a client's optimizer to a round, from 0; nothing where there is no scheduler.

        Raises:
            InputError: The scheduler ends before this round.
        """
        if self._scheduler is None:
            return
        for group, there in zip(optimizer.param_groups, self._at(round), strict=True):
            group.update({name: there[name] for name in self._steered if name in there})

    def check(self, rounds: int | None) -> None:
        """See that the scheduler reaches as far as a run.

        Raises:
            InputError: It does not.
        """
        if self._scheduler is not None:
            self._at(max((rounds or 1) - 1, 0))
            self._begin()

    def _begin(self) -> None:
        self._stand_in = self._new_optimizer()
        before = [dict(group) for group in self._stand_in.param_groups]
        self._round = 0
        self._stepped: LRScheduler | None = None
        if self._scheduler is None:
            return
        # Only what a scheduler may move: momentum and betas are moved by those that cycle.
        self._steered = [name for name in ("lr", "momentum", "betas") if name in before[0]]
        try:
            self._stepped = self._scheduler(self._stand_in)
        except InputError:
            raise
        except Exception as error:  # whatever a scheduler has against its settings
            raise InputError(f"--lr_scheduler cannot be used: {_words(error)}") from error
        if _required(self._stepped.step):
            raise InputError(_waits(type(self._stepped).__name__))
        self._look()

    def _at(self, round: int) -> list[dict[str, Any]]:
        if self._stepped is None:
            return self._stand_in.param_groups
        if round < self._round:
            self._begin()
        with warnings.catch_warnings():
            # That the stand-in has made no step, and what torch's own sequence says of itself.
            warnings.simplefilter("ignore")
            while self._round < round:
                self._step()
        return self._stand_in.param_groups

    def _step(self) -> None:
        assert self._stepped is not None
        try:
            self._stepped.step()
        except Exception as error:  # whatever a scheduler has against one more round
            raise InputError(
                f"--lr_scheduler {type(self._stepped).__name__} cannot go on to round "
                f"{self._round + 2}: {_words(error)}"
            ) from error
        self._round += 1
        self._look()

    def _look(self) -> None:
        for group in self._stand_in.param_groups:
            if not 0 <= group["lr"] < math.inf:
                raise InputError(
                    f"--lr_scheduler {type(self._stepped).__name__} gives round {self._round + 1} "
                    f"the learning rate {float(group['lr'])}; expected 0 or more."
                )

    def _new_optimizer(self) -> Optimizer:
        try:
            return self._optimizer(self._like)
        except InputError:
            raise
        except Exception as error:  # whatever an optimizer has against its settings
            raise InputError(f"--optimizer cannot be used: {_words(error)}") from error


def check_name(name: str) -> None:
    """Refuse a scheduler of torch's that no parser could make.

    Lightning has a class of the name ReduceLROnPlateau too, and two others are made of schedulers.

    Raises:
        InputError: It is one of these.
    """
    if name == "ReduceLROnPlateau":
        raise InputError(_waits(name))
    if name in ("SequentialLR", "ChainedScheduler"):
        raise InputError(
            f"--lr_scheduler {name} is made of schedulers, which cannot be said here; use Warmup, "
            "with --lr_scheduler.rounds and --lr_scheduler.then NAME."
        )


def _waits(name: str) -> str:
    return (
        f"--lr_scheduler {name} waits for a score, and the rate of a round is known before it; use "
        "one that goes by rounds, such as CosineAnnealingLR, ExponentialLR or Warmup."
    )


def _small(parameter: Tensor) -> nn.Parameter:
    """A parameter of the same number of dimensions, type and device, with one number."""
    small = torch.zeros([1] * parameter.dim(), dtype=parameter.dtype, device=parameter.device)
    return nn.Parameter(small, requires_grad=parameter.requires_grad)


def _try_a_step(optimizer: Optimizer) -> None:
    """Find out now what an optimizer would say in the first round."""
    name = type(optimizer).__name__
    wanted = _required(optimizer.step)
    if wanted:
        raise InputError(
            f"--optimizer {name} computes the loss several times a step (it asks for a "
            f"{wanted[0]}), and a client computes it once; use one such as Adam, AdamW or SGD."
        )
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
    except Exception as error:  # whatever an optimizer has against dense gradients
        raise InputError(
            f"--optimizer {name} cannot make a step: {_words(error)} Use one such as Adam, AdamW "
            "or SGD."
        ) from error


def _required(method: Any) -> list[str]:
    """The arguments without which it cannot be called."""
    return [
        name
        for name, argument in inspect.signature(method).parameters.items()
        if argument.default is argument.empty and argument.kind is argument.POSITIONAL_OR_KEYWORD
    ]


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if text.endswith(".") else f"{text}."
