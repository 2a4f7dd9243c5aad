"""What a file may name: no class that is foreign is called, and its module is not imported."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedmer.__main__ import main
from fedmer.trust import FILE, may_name

BARE = {"class_path": "foreign_module.Thing"}


@pytest.fixture
def foreign(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that leaves a mark when it is imported; the mark."""
    code = (
        "from pathlib import Path\nPath('mark').touch()\n"
        "from fedmer.contracts import Aggregator\n"
        "from fedmer.plugins.aggregators.fed_avg import FedAvg\n"
        "class Thing(FedAvg):\n    'A rule.'\n"
        "def factor(step):\n    return 1.0\n"
    )
    (here / "foreign_module.py").write_text(code)
    monkeypatch.syspath_prepend(here)
    monkeypatch.setattr("os.system", lambda command: (here / "mark").touch())
    yield here / "mark"
    sys.modules.pop("foreign_module", None)


def answer(*arguments: str) -> int:
    return main(list(arguments))


SYSTEM = {"class_path": "os.system", "init_args": {"command": "touch mark"}}
LAMBDA = {
    "class_path": "torch.optim.lr_scheduler.LambdaLR",
    "init_args": {"lr_lambda": "foreign_module.factor"},
}
HOSTILE: dict[str, dict[str, Any]] = {
    "a function": {"optimizer": SYSTEM},
    "a class": {"aggregator": BARE},
    "a class without class_path": {"aggregator": "foreign_module.Thing"},
    "a dotted key": {"aggregator.class_path": "foreign_module.Thing"},
    "a callback": {"trainer": {"callbacks": [BARE]}},
    "a callback alone": {"trainer": {"callbacks": "foreign_module.Thing"}},
    "callbacks by name": {"trainer": {"callbacks": ["foreign_module.Thing"]}},
    "a profiler": {"trainer": {"profiler": BARE}},
    "a profiler alone": {"trainer": {"profiler": "foreign_module.Thing"}},
    "a logger in a list": {"trainer": {"logger": [{"class_path": "CSVLogger"}, BARE]}},
    "a plugin": {"trainer": {"plugins": ["foreign_module.Thing"]}},
    "within options": {"network": {"class_path": "SDT", "init_args": {"gates": BARE}}},
    "within keywords": {"optimizer": {"class_path": "torch.optim.SGD", "dict_kwargs": {"x": BARE}}},
    "a function by name": {"lr_scheduler": LAMBDA},
    "what torch imports": {"optimizer": {"class_path": "torch.optim.optimizer.os.system"}},
    "what fedmer imports": {"network": {"class_path": "fedmer.plugins.registry.Path"}},
    "the parser itself": {"optimizer": {"class_path": "jsonargparse.set_parsing_settings"}},
    "a prefix": {"network": {"class_path": "fedmer.pluginsx.Thing"}},
    "a list": {"network": {"class_path": ["foreign_module.Thing"]}},
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_file_names_no_foreign_class(
    foreign: Path, content: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.yaml").write_text(yaml.safe_dump(content))
    assert answer("fit", "--config", "x.yaml", "--trainer.fast_dev_run", "true") == 2
    said = capsys.readouterr().err
    assert said.startswith("fedmer: error: ")
    assert said.count("\n") == 1
    assert not foreign.exists()
    assert "foreign_module" not in sys.modules
    assert not Path("runs").exists()


@pytest.mark.parametrize("subcommand", ["validate", "test"])
def test_no_subcommand_takes_it(
    foreign: Path, subcommand: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.yaml").write_text(yaml.safe_dump({"optimizer": SYSTEM}))
    assert answer(subcommand, "--config", "x.yaml", "--ckpt_path", "last.ckpt") == 2
    said = capsys.readouterr().err
    assert "x.yaml: optimizer names os.system, which is no part of fedmer" in said
    assert "add --trust if you trust the file" in said
    assert not foreign.exists()


@pytest.mark.parametrize(
    "typed",
    [
        ["--aggregator", "part.yaml"],
        ["--config", "outer.yaml"],
        ["--trainer.callbacks", "callbacks.yaml"],
        ["--trainer", "trainer.yaml"],
        ["--aggregator", "part.yaml", "--print_config"],
        # What a person types for one option is not given to a file.
        ["--config", "trainer.yaml", "--name", "foreign_module.Thing"],
        ["--config", "trainer.yaml", "--data.path", "foreign_module.py"],
    ],
)
def test_nor_does_a_file_that_an_option_or_a_file_names(foreign: Path, typed: list[str]) -> None:
    Path("part.yaml").write_text(yaml.safe_dump(BARE))
    Path("outer.yaml").write_text("aggregator: part.yaml\n")
    Path("callbacks.yaml").write_text(yaml.safe_dump([BARE]))
    Path("trainer.yaml").write_text(yaml.safe_dump({"callbacks": [BARE]}))
    assert answer("fit", *typed, "--trainer.fast_dev_run", "true") == 2
    assert not foreign.exists()
    assert "foreign_module" not in sys.modules


def test_with_trust_it_does_and_what_is_typed_needs_none(
    foreign: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("x.yaml").write_text(yaml.safe_dump({"aggregator": BARE}))
    assert answer("fit", "--config", "x.yaml", "--trust", "--print_config") == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["aggregator"]["class_path"] == "foreign_module.Thing"
    assert foreign.exists()
    assert answer("fit", "--aggregator", "foreign_module.Thing", "--print_config") == 0
    assert answer("fit", "--config", "x.yaml", "--print_config") == 2, "trust does not outlast"


def test_a_file_cannot_trust_itself(foreign: Path) -> None:
    Path("x.yaml").write_text(yaml.safe_dump({"trust": True, "aggregator": BARE}))
    assert answer("fit", "--config", "x.yaml") == 2
    assert not foreign.exists()


def test_a_file_may_name_what_is_known(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known = {
        "optimizer": {"class_path": "torch.optim.adamw.AdamW", "init_args": {"lr": 0.1}},
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.StepLR",
            "init_args": {"step_size": 3},
        },
        "network": {"class_path": "fedmer.plugins.networks.sdt.SDT"},
        "trainer": {
            "callbacks": [
                {
                    "class_path": "pytorch_lightning.callbacks.EarlyStopping",
                    "init_args": {"monitor": "x"},
                }
            ],
            "logger": [
                {
                    "class_path": "pytorch_lightning.loggers.CSVLogger",
                    "init_args": {"save_dir": "logs"},
                }
            ],
            "profiler": {"class_path": "pytorch_lightning.profilers.SimpleProfiler"},
        },
    }
    Path("x.yaml").write_text(yaml.safe_dump(known))
    assert answer("fit", "--config", "x.yaml", "--print_config") == 0, capsys.readouterr().err
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["optimizer"]["init_args"]["lr"] == 0.1
    assert len(printed["trainer"]["callbacks"]) == 1


def test_nothing_is_imported_to_find_out() -> None:
    assert not may_name("fedmer.plugins.no_such_module.Thing", FILE)
    assert not may_name("torch.optim.os.system", FILE)
    assert not may_name("torch.optim", FILE)
    assert may_name("torch.optim.SGD", FILE)
