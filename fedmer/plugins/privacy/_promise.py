"""What mechanisms have in common that promise differential privacy for a whole run."""

import math
from collections.abc import Mapping

from fedmer.contracts.privacy import Plan
from fedmer.errors import InputError

BUDGET_SLACK = 1 + 1e-6
"""Of a budget, for rounding."""


def check_numbers(delta: float, above_zero: Mapping[str, float | None]) -> None:
    """See that options are what they can be.

    Args:
        delta: The probability that a promise may fail with.
        above_zero: Name -> value of the others; None is not given.

    Raises:
        InputError: One is out of range.
    """
    for name, value in above_zero.items():
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"privacy.{name} is {value}; expected a finite number above 0.")
    if not 0 < delta < 1:
        raise InputError(f"privacy.delta is {delta}; expected a number above 0 and below 1.")


def check_crossing(mechanism: str, plan: Plan) -> None:
    """Refuse what tells of clients' data beside the updates of rounds.

    Args:
        mechanism: Its name.
        plan: The run.

    Raises:
        InputError: Something does; says what and how to end it.
    """
    if plan.besides:
        raise refusal(
            mechanism,
            f"it covers rounds, and {' and '.join(plan.besides)} would cross besides",
            " ".join(plan.besides.values()),
        )
    if plan.sampling is None:
        raise refusal(
            mechanism,
            "who takes part would tell what clients hold",
            "--selector Poisson, Uniform or All",
        )


def check_end(mechanism: str, plan: Plan, multiplier: float | None) -> None:
    """Refuse to find the noise for a budget without knowing how many rounds share it.

    Args:
        mechanism: Its name.
        plan: The run.
        multiplier: The noise, where nobody has to find it.

    Raises:
        InputError: The number of rounds is open.
    """
    if multiplier is None and plan.rounds is None:
        raise refusal(
            mechanism,
            "privacy.target_epsilon is for all rounds, and nobody knows how many there are",
            "--trainer.max_epochs or --privacy.multiplier",
        )


def refusal(mechanism: str, why: str, instead: str) -> InputError:
    """That a promise cannot be kept, and what to do."""
    return InputError(f"--privacy {mechanism} cannot keep its promise: {why}; use {instead}.")
