"""What can be swapped: found by reading, true when imported."""

import importlib
import inspect
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer import contracts
from fedmer.errors import InputError
from fedmer.plugins import registry
from fedmer.plugins.registry import KINDS, Plugin, load, plugins, unknown

every_kind = pytest.mark.parametrize("kind", KINDS)
ALL = [pytest.param(kind, p, id=f"{kind}-{p.name}") for kind in KINDS for p in plugins(kind)]
NAMES = ["FedAvg", "Krum", "Scaffold", "Uniform"]


def base_of(kind: str) -> type:
    found: type = getattr(contracts, KINDS[kind])
    return found


@every_kind
def test_listed_is_exactly_what_importing_finds(kind: str) -> None:
    """Every public, concrete subclass of the contract, and no helper beside it."""
    folder = Path(registry.__file__).parent / kind
    found = {}
    for file in folder.glob("[!_]*.py"):
        module = importlib.import_module(f"fedmer.plugins.{kind}.{file.stem}")
        for name, value in vars(module).items():
            own = inspect.isclass(value) and value.__module__ == module.__name__
            if own and issubclass(value, base_of(kind)) and value is not base_of(kind):
                found[name] = f"{module.__name__}.{name}"
    found = {name: path for name, path in found.items() if not name.startswith("_")}
    assert {p.name: p.path for p in plugins(kind) if p.package == "fedmer"} == found
    assert found


@pytest.mark.parametrize(("kind", "plugin"), ALL)
def test_every_plugin_is_what_it_says(kind: str, plugin: Plugin) -> None:
    module, _, name = plugin.path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert issubclass(found, base_of(kind))
    assert not inspect.isabstract(found)
    assert plugin.name == name
    documented = inspect.getdoc(found)
    assert documented is not None
    assert plugin.line == documented.partition("\n")[0]
    assert 0 < len(plugin.line) < 100


def test_helpers_are_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only public classes of public files that descend from the contract, however far."""
    folder = tmp_path / "selectors"
    folder.mkdir()
    sources = {
        "one": "class One(Selector):\n    'First.'\nclass _No(Selector): pass\nclass Tool: pass",
        "two": "class Two(One):\n    'Second.\\n\\nMore.'\nclass Odd(Tool, dict): pass",
        "_private": "class Four(Selector): pass",
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    entry_points_of({}, monkeypatch)
    assert [(p.name, p.line) for p in plugins("selectors")] == [
        ("One", "First."),
        ("Two", "Second."),
    ]


@every_kind
def test_plugins_come_in_alphabetical_order(kind: str) -> None:
    names = [plugin.name for plugin in plugins(kind)]
    assert names == sorted(set(names))


def test_an_unknown_kind_is_refused_with_a_hint() -> None:
    with pytest.raises(InputError, match=r"unknown kind of plugin 'agregator'; did you mean 'agg"):
        plugins("agregator")
    with pytest.raises(InputError, match=r"unknown kind of plugin 'zzz'\. Known: aggregators, co"):
        plugins("zzz")


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(NAMES), st.data())
def test_one_slip_of_the_finger_is_understood(name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(name) - 1))
    letter = data.draw(st.sampled_from(["", "x", name[place] * 2, name[place].swapcase()]))
    typed = name[:place] + letter + name[place + 1 :]
    sentence = unknown("aggregator", typed, reversed(NAMES))
    assert sentence.startswith(f"unknown aggregator '{typed}'; did you mean '{name}'?")
    assert sentence.endswith("Known: FedAvg, Krum, Scaffold, Uniform")


def test_listing_imports_neither_torch_nor_the_plugins() -> None:
    script = (
        "import sys; from fedmer.plugins.registry import KINDS, plugins\n"
        "assert all(plugins(kind) for kind in KINDS)\n"
        "print([m for m in sys.modules if m.partition('.')[0] in ('torch', 'pytorch_lightning', "
        "'numpy') or m.startswith('fedmer.plugins.') and m != 'fedmer.plugins.registry'])"
    )
    root = Path(registry.__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def entry_points_of(
    points: dict[str, str], monkeypatch: pytest.MonkeyPatch, kind: str = "selectors"
) -> None:
    def given(group: str) -> list[EntryPoint]:
        return [
            EntryPoint(name, value, group)
            for name, value in points.items()
            if group == f"fedmer.{kind}"
        ]

    monkeypatch.setattr(registry, "entry_points", given)


def test_a_third_partys_class_joins_by_its_class_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs_1.py").write_text('class Mine:\n    """Chooses well.\n\n    More."""\n')
    monkeypatch.syspath_prepend(tmp_path)
    entry_points_of({"whatever": "theirs_1:Mine"}, monkeypatch)
    mine = next(plugin for plugin in plugins("selectors") if plugin.name == "Mine")
    assert mine == Plugin("Mine", "theirs_1.Mine", "an unnamed package", "Chooses well.")
    assert "theirs_1" not in sys.modules
    load("selectors")
    assert "theirs_1" in sys.modules
    assert "Mine" not in [plugin.name for plugin in plugins("networks")]


def test_a_third_partys_broken_module_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs_2.py").write_text("raise RuntimeError('no licence')\nclass Bad: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry_points_of({"a": "theirs_2:Bad", "b": "not_there_at_all.deeper:Gone"}, monkeypatch)
    with (
        pytest.warns(UserWarning, match="RuntimeError: no licence"),
        pytest.warns(UserWarning, match=r"importing not_there_at_all\.deeper failed"),
    ):
        load("selectors")
    lines = {plugin.name: plugin.line for plugin in plugins("selectors")}
    assert lines["Bad"] == ""
    assert lines["Gone"].startswith("(not importable")


def test_a_third_partys_class_does_not_take_a_built_ins_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry_points_of({"All": "theirs_3:All"}, monkeypatch)
    with pytest.warns(UserWarning, match=r"use its dotted path theirs_3\.All instead"):
        found = plugins("selectors")
    assert [p.package for p in found if p.name == "All"] == ["fedmer"]
