"""What a parameter of a sweep may be: listed values, or a distribution to draw from."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown

_Defaults = dict[str, float | None]
_BOUNDS: _Defaults = {"min": None, "max": None}
_NORMAL: _Defaults = {"mu": 0.0, "sigma": 1.0}
_BETA: _Defaults = {"a": 1.0, "b": 1.0}
_STEP: _Defaults = {"q": 1.0}

SETTINGS: dict[str, _Defaults] = {
    "constant": {"value": None},
    "categorical": {"values": None},
    "categorical_w_probabilities": {"values": None, "probabilities": None},
    "int_uniform": _BOUNDS,
    "uniform": _BOUNDS,
    "q_uniform": _BOUNDS | _STEP,
    "log_uniform": _BOUNDS,
    "log_uniform_values": _BOUNDS,
    "q_log_uniform": _BOUNDS | _STEP,
    "q_log_uniform_values": _BOUNDS | _STEP,
    "inv_log_uniform": _BOUNDS,
    "inv_log_uniform_values": _BOUNDS,
    "normal": _NORMAL,
    "q_normal": _NORMAL | _STEP,
    "log_normal": _NORMAL,
    "q_log_normal": _NORMAL | _STEP,
    "beta": _BETA,
    "q_beta": _BETA | _STEP,
}
"""W&B's distributions: each setting with its default, None where one must be given."""

_HIGHEST_EXPONENT = math.log(np.finfo(float).max)


@dataclass(frozen=True)
class Parameter:
    """One parameter of a sweep.

    Args:
        name: As after ``--`` on the command line, such as ``aggregator.mu``.
        distribution: A key of :data:`SETTINGS`.
        settings: What that distribution takes, defaults filled in.
    """

    name: str
    distribution: str
    settings: Mapping[str, Any]

    @property
    def listed(self) -> list[Any] | None:
        """Every value of it in the order of the file, or None if there is no end to them."""
        if self.distribution == "constant":
            return [self.settings["value"]]
        if self.distribution.startswith("categorical"):
            return list(self.settings["values"])
        if self.distribution == "int_uniform":
            return list(range(self.settings["min"], self.settings["max"] + 1))
        return None

    def draw(self, random: np.random.Generator) -> Any:
        r"""One value, as W&B's random search draws it.

        With :math:`u \sim U(\text{min}, \text{max})`, a log-uniform value is :math:`e^u` and an
        inverse one :math:`e^{-u}`; the kinds that end in ``_values`` take the bounds of the value
        itself. A ``q_`` before the name rounds to a multiple of q, which is an integer if q is.

        >>> from fedmer.seeds import generator
        >>> tuned = parameter("lr", {"distribution": "log_uniform_values", "min": 0.1, "max": 1})
        >>> 0.1 <= tuned.draw(generator(0)) <= 1
        True
        """
        chosen = self.listed
        if chosen is not None:
            return chosen[int(random.choice(len(chosen), p=self.settings.get("probabilities")))]
        value = _DRAW[self.distribution.removeprefix("q_")](random, self.settings)
        if not self.distribution.startswith("q_"):
            return value
        step = self.settings["q"]
        return round(value / step) * step


def parameter(name: str, given: Any) -> Parameter:
    """Check what a sweep file says about one parameter.

    Args:
        name: Its name.
        given: What stands below it in the file.

    Raises:
        InputError: It is no mapping, names an unknown distribution, or has settings that are
            missing, unknown, empty or out of range.
    """
    what = f"parameter '{name}'"
    if not isinstance(given, dict):
        raise InputError(f"{what} is {given!r}; expected a mapping with value, values or min, max.")
    if "parameters" in given:
        raise InputError(
            f"{what} holds nested parameters, which a command line has no place for; "
            f"write each as a dotted name, such as '{name}.{next(iter(given['parameters']), 'x')}'."
        )
    distribution = given.get("distribution", _usual(given))
    if distribution is None:
        raise InputError(f"{what} has neither value, values, min and max, nor a distribution.")
    if distribution not in SETTINGS:
        raise InputError(f"{what}: " + unknown("distribution", str(distribution), SETTINGS))
    if distribution == "categorical" and "probabilities" in given:
        distribution = "categorical_w_probabilities"
    settings = {key: value for key, value in given.items() if key != "distribution"}
    for key in settings:
        if key not in SETTINGS[distribution]:
            known = ["distribution", *SETTINGS[distribution]]
            raise InputError(f"{what}: " + unknown(f"setting of {distribution}", str(key), known))
    for key, default in SETTINGS[distribution].items():
        if settings.setdefault(key, default) is None:
            raise InputError(_missing(what, distribution, key, given))
    _check(what, distribution, settings)
    return Parameter(name, distribution, settings)


def _usual(given: Mapping[str, Any]) -> str | None:
    """The distribution that W&B takes when none is named."""
    if "value" in given:
        return "constant"
    if "values" in given:
        return "categorical"
    if "min" in given or "max" in given:
        whole = all(type(given.get(key, 0)) is int for key in ("min", "max"))
        return "int_uniform" if whole else "uniform"
    return None


def _missing(what: str, distribution: str, key: str, given: Mapping[str, Any]) -> str:
    if key in given:
        return (
            f"{what}: {key} is null, which W&B passes on as the word None; put null into a "
            "YAML file and name that file in a parameter 'config'."
        )
    return f"{what} has no {key}, which {distribution} needs."


def _check(what: str, distribution: str, settings: Mapping[str, Any]) -> None:
    if "value" in settings:
        _check_value(what, "value", settings["value"])
    elif "values" in settings:
        _check_values(what, settings)
    else:
        _check_numbers(what, distribution, settings)


def _check_value(what: str, key: str, value: Any) -> None:
    if value is None:
        raise InputError(_missing(what, "", key, {key: None}))
    if isinstance(value, dict):
        raise InputError(
            f"{what}: {value} is a mapping; write each of its entries as a parameter with a "
            "dotted name, or put it into a YAML file and name that file in a parameter 'config'."
        )
    parts = value if isinstance(value, list) else [value]
    if value in ("", []) or not all(isinstance(p, str | int | float) for p in parts):
        raise InputError(f"{what}: {value!r} is not a text, a number, true, false or a list.")


def _check_values(what: str, settings: Mapping[str, Any]) -> None:
    values = settings["values"]
    if not isinstance(values, list) or not values:
        raise InputError(f"{what}: values is {values!r}; expected a list with at least one entry.")
    for value in values:
        _check_value(what, "one of values", value)
    if "probabilities" not in settings:
        return
    chances = settings["probabilities"]
    if not isinstance(chances, list) or len(chances) != len(values):
        raise InputError(f"{what}: probabilities is {chances!r}; expected a number for each value.")
    if not all(_number(c) and c >= 0 for c in chances) or not math.isclose(sum(chances), 1):
        raise InputError(f"{what}: probabilities is {chances}; expected fractions that sum to 1.")


def _check_numbers(what: str, distribution: str, settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if not _number(value):
            hint = ""
            if isinstance(value, str) and "e" in value:
                hint = "; YAML reads a power of ten as a number only with a point, as in 1.0e-3"
            raise InputError(f"{what}: {key} is {value!r}; expected a number{hint}.")
    for key in {"q", "sigma", "a", "b"} & settings.keys():
        if settings[key] <= 0:
            raise InputError(f"{what}: {key} is {settings[key]}; expected a number above 0.")
    if "min" not in settings:
        return
    low, high = settings["min"], settings["max"]
    if low > high:
        raise InputError(f"{what}: min is {low} and max is {high}; expected min to be lower.")
    if distribution == "int_uniform" and not (type(low) is type(high) is int):
        raise InputError(f"{what}: min is {low} and max is {high}; int_uniform takes integers.")
    if distribution.endswith("_values") and low <= 0:
        raise InputError(f"{what}: min is {low}; {distribution} needs it above 0.")
    if distribution.endswith("log_uniform") and max(abs(low), abs(high)) > _HIGHEST_EXPONENT:
        raise InputError(
            f"{what}: min {low} and max {high} are exponents of e for {distribution}; "
            f"to give bounds of the value itself, use {distribution}_values."
        )


def _number(value: Any) -> bool:
    # Compared, since math.isfinite cannot take a whole number larger than any float.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _uniform(random: np.random.Generator, s: Mapping[str, Any]) -> float:
    return float(random.uniform(s["min"], s["max"]))


def _log_uniform_values(random: np.random.Generator, s: Mapping[str, Any]) -> float:
    drawn = math.exp(random.uniform(math.log(s["min"]), math.log(s["max"])))
    # The logarithm of a bound is rounded, so its power can lie a hair outside.
    return float(min(max(drawn, s["min"]), s["max"]))


_DRAW: dict[str, Callable[[np.random.Generator, Mapping[str, Any]], float]] = {
    "uniform": _uniform,
    "log_uniform": lambda random, s: math.exp(_uniform(random, s)),
    "inv_log_uniform": lambda random, s: math.exp(-_uniform(random, s)),
    "log_uniform_values": _log_uniform_values,
    # Uniform in log(1/x) between log(1/max) and log(1/min) is uniform in log(x).
    "inv_log_uniform_values": _log_uniform_values,
    "normal": lambda random, s: float(random.normal(s["mu"], s["sigma"])),
    "log_normal": lambda random, s: float(random.lognormal(s["mu"], s["sigma"])),
    "beta": lambda random, s: float(random.beta(s["a"], s["b"])),
}
