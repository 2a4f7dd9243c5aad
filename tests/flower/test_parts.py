"""The client side out of settings: the same as the server's own, and nobody else's code."""

import json
import subprocess
import sys
from collections.abc import Mapping
from copy import deepcopy
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.datamodule import FederatedDataModule
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.federated import FederatedModule
from fedmer.messages import Broadcast
from fedmer.parts import CLIENT_PARTS, build_trainer
from fedmer.plugins import registry
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.trust import check_classes
from tests.federations import same_bits, small_corpus

CORPUS = small_corpus()
NETWORKS: dict[str, dict[str, Any]] = {
    "SDT": {"hidden": 8, "heads": 2},
    "LateFusion": {"hidden": 8, "heads": 2},
    "MMGCN": {"hidden": 8},
    "ICON": {"hidden": 8},
}
RULES: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedProx": {"mu": 0.5},
    "FedProto": {},
    "Distance": {},
    "SCAFFOLD": {},
}


def part(kind: str, name: str, **options: Any) -> dict[str, Any]:
    (found,) = (plugin for plugin in registry.plugins(kind) if plugin.name == name)
    return {"class_path": found.path, "init_args": options}


def told(**changes: Any) -> dict[str, Any]:
    """Settings as a server sends them, through JSON."""
    good = {key: deepcopy(DEFAULTS[key]) for key in CLIENT_PARTS}
    good["network"] = part("networks", "SDT", **NETWORKS["SDT"])
    found: dict[str, Any] = json.loads(json.dumps(good | {"seed": 3, "precision": "32-true"}))
    return found | changes


@cache
def data_module() -> FederatedDataModule:
    data = FederatedDataModule(VirtualSpeaker(8), holdout=0.0, seed=3)
    data._corpus = CORPUS
    data.setup("fit")
    return data


def module_for(network: Any, aggregator: Any, optimizer: Any, data: Any, like: Any) -> Any:
    module = FederatedModule(
        network, aggregator, All(), Inline(), None, optimizer, like.client.loss, seed=3
    )
    module._trainer = SimpleNamespace(
        precision="32-true",
        datamodule=data,
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        max_epochs=1,
    )
    module.setup("fit")
    return module


@pytest.mark.parametrize(
    ("network", "rule"),
    [*((name, "FedAvg") for name in NETWORKS), *(("SDT", name) for name in RULES)],
)
def test_settings_make_the_trainer_that_the_server_has(network: str, rule: str) -> None:
    data = data_module()
    chosen = told(
        network=part("networks", network, **NETWORKS[network]),
        aggregator=part("aggregators", rule, **RULES[rule]),
        local={"epochs": 2, "batch_size": 3, "gradient_clip_val": 0.5},
    )
    trainer = build_trainer(chosen, CORPUS.shape, dict(enumerate(data.clients)))
    kind = type(trainer.client.network)
    module = module_for(
        lambda shape: kind(shape, **NETWORKS[network]),
        type(trainer.aggregator.rule)(**RULES[rule]),
        torch.optim.Adam,
        data,
        trainer,
    )
    assert kind.__name__ == network
    assert type(trainer.aggregator.rule).__name__ == rule
    assert same_bits(dict(trainer.weights), dict(module.loop.trainer.weights))
    assert trainer.client.seed == 3
    assert (trainer.training.epochs, trainer.training.batch_size) == (2, 3)
    assert trainer.training.gradient_clip_val == 0.5
    optimizer = trainer.client.configure_optimizers()
    assert isinstance(optimizer, torch.optim.Adam)
    assert optimizer.defaults["lr"] == 3e-3
    if rule == "FedProx":
        assert trainer.aggregator.rule.mu == 0.5  # type: ignore[attr-defined]


def test_a_client_trains_to_the_same_bits_wherever_it_was_built() -> None:
    clients = dict(enumerate(data_module().clients))
    one = build_trainer(told(), CORPUS.shape, clients)
    counts = [data.class_counts(CORPUS.shape.classes) for data in clients.values()]
    other = build_trainer(told(), CORPUS.shape, {2: clients[2]}, torch.stack(counts).sum(dim=0))
    received = Broadcast(0, dict(one.weights.clone()))
    summary, update = one.fit(2, received)
    again, update_again = other.fit(2, received)
    assert (summary.train_loss, summary.steps) == (again.train_loss, again.steps)
    assert update is not None
    assert update_again is not None
    assert same_bits(update.weights, update_again.weights)


@pytest.mark.parametrize(
    ("option", "term"),
    [({"class_weights": "global"}, "weights"), ({"calibration": "prior"}, "offsets")],
)
def test_class_counts_of_everybody_are_used(option: dict[str, str], term: str) -> None:
    clients = {0: data_module().clients[0]}
    chosen = told(loss={"temperature": 8.0, **option})
    counts = 1000 * torch.arange(1, CORPUS.shape.classes + 1)
    everybody = build_trainer(chosen, CORPUS.shape, clients, counts).class_terms[0].parts[term]
    alone = build_trainer(chosen, CORPUS.shape, clients).class_terms[0].parts[term]
    assert everybody[0] > everybody[-1]
    assert not torch.equal(everybody, alone)


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module ``trap_door`` that leaves a mark when it is imported or called."""
    mark = tmp_path / "mark"
    (tmp_path / "trap_door.py").write_text(
        f"import pathlib\npathlib.Path({str(mark)!r}).touch()\n"
        "class Thing:\n    def __init__(self, *a, **k): ...\ndef thing(*a, **k): ...\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("trap_door", None)
    return mark


SDT: dict[str, Any] = part("networks", "SDT", hidden=8, heads=2)
EVIL: dict[str, dict[str, Any]] = {
    "Popen": {"optimizer": {"class_path": "subprocess.Popen", "init_args": {"args": ["false"]}}},
    "system": {"optimizer": {"class_path": "os.system", "init_args": {"command": "false"}}},
    "network": {"network": {"class_path": "trap_door.Thing"}},
    "rule": {"aggregator": {"class_path": "trap_door.Thing"}},
    "nested": {"network": part("networks", "SDT", attention_score={"class_path": "os.system"})},
    "deep": {"network": part("networks", "SDT", x={"y": [{"z": {"class_path": "trap_door.T"}}]})},
    "in a list": {"aggregator": part("aggregators", "FedAvg", x=[{"class_path": "os.system"}])},
    "loss": {"loss": {"temperature": 1.0, "x": {"class_path": "trap_door.Thing"}}},
    "dict_kwargs": {"network": {**SDT, "dict_kwargs": {"x": {"class_path": "trap_door.Thing"}}}},
    "plain text": {"network": "trap_door.Thing"},
    "text of a rule": {"aggregator": "trap_door.Thing"},
    "text of an optimizer": {"optimizer": "trap_door.thing"},
    "text in an option": {
        "optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": "trap_door.thing"}}
    },
    "YAML": {"network": "class_path: trap_door.Thing\ninit_args: {}"},
    "JSON": {"aggregator": '{"class_path": "trap_door.Thing"}'},
    "JSON in an option": {
        "network": part("networks", "SDT", attention_score='{"class_path": "trap_door.Thing"}')
    },
    "what our modules import": {
        "optimizer": {
            "class_path": "fedmer.plugins.registry.importlib.import_module",
            "init_args": {"name": "trap_door"},
        }
    },
    "a class that our modules import": {
        "network": {"class_path": "fedmer.plugins.registry.Path", "init_args": {}}
    },
    "what torch imports": {"optimizer": {"class_path": "torch.optim.optimizer.functools.partial"}},
    "no text": {"network": {"class_path": ["trap_door.Thing"]}},
    "a module of none": {"network": {"class_path": "fedmer.plugins.trap_door.Thing"}},
    "a prefix": {"network": {"class_path": "fedmer.pluginsx.Thing"}},
    "a file": {"loss": "/etc/passwd"},
}


@pytest.mark.parametrize("changes", EVIL.values(), ids=EVIL.keys())
def test_what_is_no_installed_part_is_refused_and_not_imported(
    changes: Mapping[str, Any], trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object, **options: object) -> None:
        raise AssertionError("called")

    monkeypatch.setattr(subprocess, "Popen", never)
    monkeypatch.setattr("os.system", never)
    clients = {0: data_module().clients[0]}
    with pytest.raises(InputError, match=r"^the settings (name|say) "):
        build_trainer(told(**changes), CORPUS.shape, clients)
    assert "trap_door" not in sys.modules
    assert not trap.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"aggregator": part("aggregators", "FedProx", nu=1)}, "cannot be used here: .*nu"),
        ({"aggregator": part("aggregators", "FedProx", mu=-1)}, "mu is -1"),
        ({"network": part("networks", "SDT", hidden=9, heads=2)}, "hidden is 9 and heads is 2"),
        ({"network": part("networks", "SDT", hidden="wide")}, "cannot be used here: .*hidden"),
        ({"network": part("aggregators", "FedAvg")}, "cannot be used here"),
        ({"network": None}, "network is no group of settings"),
        ({"local": {"epochs": 0}}, r"local\.epochs is 0; expected at least 1"),
        ({"local": {"batch_size": "many"}}, r"cannot be used here: .*batch_size"),
        ({"precision": "nonsense"}, "cannot be used here: Precision 'nonsense' is invalid"),
        ({"seed": "one"}, "cannot be used here"),
        ({"optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lrr": 1}}}, "lrr"),
    ],
)
def test_a_wrong_option_is_a_sentence(changes: Mapping[str, Any], said: str) -> None:
    clients = {0: data_module().clients[0]}
    with pytest.raises(InputError, match=said) as refused:
        build_trainer(told(**changes), CORPUS.shape, clients)
    assert "\n" not in str(refused.value)


def test_a_missing_part_is_a_sentence() -> None:
    clients = {0: data_module().clients[0]}
    for key in (*CLIENT_PARTS, "seed", "precision"):
        less = told()
        del less[key]
        with pytest.raises(InputError, match=f"cannot be used here: '{key}'"):
            build_trainer(less, CORPUS.shape, clients)


def test_every_default_of_every_plugin_may_be_told() -> None:
    """What check_classes lets in is at least what a configuration of fedmer's own can hold."""
    for kind in ("networks", "aggregators"):
        registry.load(kind)
    for change in (
        part(
            "networks",
            "SDT",
            attention_score={
                "class_path": "fedmer.plugins.networks.attention_score.AttentionScore",
                "init_args": {},
            },
        ),
        {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "foreach": None}},
        {"class_path": "torch.optim.adamw.AdamW", "init_args": {"lr": "1e-05"}},
    ):
        check_classes({"x": change})


NOT_HERE = st.lists(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), min_size=2).map(".".join)


@given(NOT_HERE, st.lists(st.sampled_from(["key", "list"]), max_size=5))
@settings(max_examples=50)
def test_a_foreign_class_is_found_wherever_it_hides(path: str, way: list[str]) -> None:
    hidden: Any = {"class_path": path}
    for step in way:
        hidden = {"init_args": hidden} if step == "key" else [1, hidden]
    with pytest.raises(InputError, match="is not a part that is installed here"):
        check_classes({"network": hidden})
