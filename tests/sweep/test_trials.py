"""Trials: the whole grid, draws in range that never change, and names that hold."""

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmer.seeds import generator
from fedmer.sweep.file import SweepFile
from fedmer.sweep.parameters import SETTINGS, Parameter, parameter
from fedmer.sweep.trials import folder_name, trials

TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=150)
VALUES = st.one_of(TEXTS, st.integers(-99, 99), st.booleans(), st.floats(-9, 9))


def sweep(method: str = "grid", cap: int | None = None, **parameters: Any) -> SweepFile:
    found = tuple(parameter(name.replace("__", "."), said) for name, said in parameters.items())
    return SweepFile(Path("s.yaml"), "s", None, method, found, ("${args}",), "", cap)


@given(st.lists(st.lists(VALUES, min_size=1, max_size=3, unique_by=str), min_size=1, max_size=3))
def test_a_grid_is_the_product_in_the_order_of_the_file(lists: list[list[Any]]) -> None:
    made = trials(sweep(**{f"p{i}": {"values": values} for i, values in enumerate(lists)}))
    assert [tuple(t.values.values()) for t in made] == list(itertools.product(*lists))


@given(
    st.sampled_from(["grid", "random"]),
    st.lists(st.lists(VALUES, min_size=1, max_size=3), min_size=1, max_size=3),
)
def test_names_are_unique_safe_and_always_the_same(method: str, lists: list[list[Any]]) -> None:
    file = sweep(method, 9, **{f"a.p{i}": {"values": values} for i, values in enumerate(lists)})
    names = [trial.name for trial in trials(file)]
    assert names == [trial.name for trial in trials(file)]
    assert len({name.lower() for name in names}) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9_=+][A-Za-z0-9_.=+-]*", name)
        assert len(name) <= 120


def test_names_say_what_varies() -> None:
    file = sweep(
        config={"values": ["sweeps/no_scores.yaml", "full.yml"]},
        aggregator={"values": ["FedAvg", "fedmer.plugins.aggregators.fed_prox.FedProx"]},
        aggregator__mu={"values": [0.1, 0.00001]},
        seed_everything={"value": 3},
        local__epochs={"values": [1, 2]},
    )
    names = [trial.name for trial in trials(file)]
    assert names[0] == "no_scores-FedAvg-mu=0.1-epochs=1"
    assert names[-1] == "full-FedProx-mu=1e-05-epochs=2"
    same_end = sweep(a__mu={"values": [1, 2]}, b__mu={"values": [1, 2]})
    assert trials(same_end)[0].name == "a.mu=1-b.mu=1"
    assert [t.name for t in trials(sweep(mu={"value": 1}))] == ["trial"]


def test_folders_of_something_else_are_nobodys_name() -> None:
    assert trials(sweep(x={"values": ["wandb", "other"]}))[0].name.startswith("wandb-")
    assert folder_name("../..") not in ("..", ".", "")


def made(name: str, low: float, width: float, step: float) -> Parameter:
    """A parameter of any distribution that has a range."""
    low, high = (
        (abs(low) + 0.01, abs(low) + 0.01 + width) if "values" in name else (low, low + width)
    )
    said: dict[str, Any] = {"distribution": name, "min": low, "max": high}
    if name == "int_uniform":
        said |= {"min": math.floor(low), "max": math.ceil(high)}
    if name.startswith("q_"):
        said["q"] = step
    return parameter("p", said)


RANGES = {
    "int_uniform": lambda low, high: (low, high),
    "uniform": lambda low, high: (low, high),
    "log_uniform": lambda low, high: (math.exp(low), math.exp(high)),
    "log_uniform_values": lambda low, high: (low, high),
    "inv_log_uniform": lambda low, high: (math.exp(-high), math.exp(-low)),
    "inv_log_uniform_values": lambda low, high: (low, high),
}


@given(
    st.sampled_from([name for name, settings in SETTINGS.items() if "min" in settings]),
    st.floats(-5, 5),
    st.floats(0, 3),
    st.sampled_from([1, 2, 0.5]),
    st.integers(0, 2**32),
)
def test_draws_are_in_range(name: str, low: float, width: float, step: float, seed: int) -> None:
    drawn = made(name, low, width, step)
    value = drawn.draw(generator(seed))
    bounds = RANGES[name.removeprefix("q_")](drawn.settings["min"], drawn.settings["max"])
    slack = step / 2 if name.startswith("q_") else 1e-9 * abs(bounds[1])
    assert bounds[0] - slack <= value <= bounds[1] + slack
    if name.startswith("q_"):
        assert value / step == round(value / step)
        assert isinstance(value, type(step))
    if name == "int_uniform":
        assert isinstance(value, int)


@pytest.mark.parametrize(
    ("said", "mean", "spread"),
    [
        ({"distribution": "normal", "mu": 2.0, "sigma": 3.0}, 2.0, 3.0),
        ({"distribution": "log_normal", "sigma": 0.5}, math.exp(0.125), 0.604),
        ({"distribution": "beta", "a": 2.0, "b": 3.0}, 0.4, 0.2),
        ({"distribution": "inv_log_uniform", "min": 0.0, "max": 1.0}, 1 - math.exp(-1), 0.181),
        ({"distribution": "uniform", "min": 0.0, "max": 12**0.5}, 12**0.5 / 2, 1.0),
        ({"values": [0, 1], "probabilities": [0.25, 0.75]}, 0.75, 0.433),
        ({"min": 0, "max": 2}, 1.0, 0.816),
    ],
)
def test_draws_follow_their_distribution(said: dict[str, Any], mean: float, spread: float) -> None:
    random = generator(0)
    drawn = [parameter("p", said).draw(random) for _ in range(4000)]
    middle = sum(drawn) / len(drawn)
    assert middle == pytest.approx(mean, abs=4 * spread / 4000**0.5)
    assert math.sqrt(sum((x - middle) ** 2 for x in drawn) / 4000) == pytest.approx(spread, rel=0.1)


def test_a_higher_cap_adds_trials_and_a_new_parameter_changes_no_other() -> None:
    space = {"x": {"min": 0.0, "max": 1.0}, "y": {"values": [1, 2, 3]}}
    few, many = trials(sweep("random", 4, **space)), trials(sweep("random", 9, **space))
    assert len(many) == 9
    assert many[:4] == few
    wider = trials(sweep("random", 4, **space, z={"min": 0.0, "max": 1.0}))
    assert [t.values["x"] for t in wider] == [t.values["x"] for t in few]


def test_the_sweeps_name_is_the_seed() -> None:
    file = sweep("random", 5, x={"min": 0.0, "max": 1.0})
    other = SweepFile(**{**vars(file), "name": "other"})
    assert trials(file) != trials(other)


def test_a_random_sweep_of_a_small_space_meets_each_point_once() -> None:
    values = [t.values["x"] for t in trials(sweep("random", 20, x={"values": [1, 2, 3]}))]
    assert sorted(values) == [1, 2, 3]


def test_a_cap_shortens_a_grid() -> None:
    whole = trials(sweep(x={"values": [1, 2, 3]}))
    assert [t.values for t in trials(sweep(cap=2, x={"values": [1, 2, 3]}))] == [
        t.values for t in whole[:2]
    ]
