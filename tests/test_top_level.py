"""What can be imported from fedmer itself."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fedmer
from fedmer import contracts
from fedmer.__main__ import main
from fedmer.plugins.registry import KINDS, plugins


def test_every_plugin_and_contract_is_there() -> None:
    for kind in KINDS:
        for plugin in plugins(kind):
            assert getattr(fedmer, plugin.name).__name__ == plugin.name
    for name in contracts.__all__:
        assert getattr(fedmer, name) is getattr(contracts, name)
    assert fedmer.FederatedModule.__module__ == "fedmer.federated"
    with pytest.raises(AttributeError, match="module 'fedmer' has no attribute 'Nobody'"):
        fedmer.Nobody  # noqa: B018


def test_nothing_heavy_is_imported_before_it_is_asked_for() -> None:
    code = "import sys, fedmer; print(sorted({'torch', 'numpy', 'rich'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_configuration_names_the_file_of_a_part(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--print_config"]) == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["network"]["class_path"] == "fedmer.plugins.networks.sdt.SDT"
