"""What bash completes behind ``fedmer``, asked of bash itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

from fedmer.__main__ import SUBCOMMANDS, main
from fedmer.plugins import registry

BASH = shutil.which("bash")
ASK = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
_fedmer; printf '%s\n' "${COMPREPLY[@]}"; complete -p fedmer >&2
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "fedmer.bash"
    with pytest.MonkeyPatch.context() as patch, path.open("w") as out:
        patch.setattr("sys.stdout", out)
        assert main(["completion", "bash"]) == 0
    return path


def offered(script: Path, *words: str) -> set[str]:
    """What bash offers for the last of the words behind ``fedmer``."""
    if BASH is None:
        pytest.skip("there is no bash")
    done = subprocess.run(
        [BASH, "--norc", "-c", ASK, "bash", str(script), "fedmer", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == "complete -o bashdefault -o default -F _fedmer fedmer"
    return set(done.stdout.split())


def names(kind: str) -> set[str]:
    return {plugin.name for plugin in registry.plugins(kind)}


def test_subcommands(script: Path) -> None:
    assert offered(script, "") == set(SUBCOMMANDS)
    assert offered(script, "pre") == {"predict"}
    assert offered(script, "data", "") >= {"describe", "convert", "split", "synth"}
    assert offered(script, "plugins", "new", "agg") == {"aggregator"}


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_names_of_plugins(script: Path, command: str) -> None:
    for kind in ("aggregators", "networks", "partitioners", "selectors", "executors"):
        assert offered(script, command, f"--{registry.singular(kind)}", "") == names(kind)
    assert offered(script, command, "--aggregator", "=", "FedP") == {
        *("FedPer", "FedProc", "FedProto", "FedProx"),
    }
    assert "Adam" in offered(script, command, "--optimizer", "A")


def test_options_and_those_of_what_was_chosen(script: Path) -> None:
    assert "--trainer.max_epochs" in offered(script, "fit", "--trainer.m")
    assert "--aggregator.mu" not in offered(script, "fit", "--agg")
    chosen = ("fit", "--aggregator", "FedProx", "--name", "x")
    assert "--aggregator.mu" in offered(script, *chosen, "--aggregator.")
    assert "--aggregator.mu" in offered(script, "fit", "--aggregator", "=", "FedProx", "--agg")
    assert offered(script, "predict", "runs/x", "--cal") == {"--calibrate"}
    assert offered(script, "data", "describe", "--partitioner") >= {"--partitioner"}


def test_values(script: Path) -> None:
    assert offered(script, "fit", "--loss.teacher", "") == {"fused", "global"}
    assert "trainer" in offered(script, "fit", "--help", "t")
    assert offered(script, "report", "--round", "") == {"selected", "last"}
    assert offered(script, "extract", "a.csv", "b.npz", "--text", "") == {
        *("HuggingFaceText", "MiniLM", "Words"),
    }
    # Then bash offers files.
    assert offered(script, "fit", "--data.path", "") == set()


def test_every_command_is_completed(script: Path) -> None:
    for command in SUBCOMMANDS:
        assert "--help" in offered(script, command, "--h"), command


def test_zsh_reads_it_by_its_own_way_to_bashs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "autoload -U +X bashcompinit && bashcompinit"
    assert main(["completion", "fish"]) == 2
    assert "unknown subcommand 'fish'" in capsys.readouterr().err
