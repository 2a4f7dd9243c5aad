"""The doctor: a line for everything, what to do where something is missing, and an exit code."""

from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.doctor import checks
from fedmer.plugins import registry
from fedmer.plugins.registry import Plugin


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What is behind each name, with its mark."""
    out, error = capsys.readouterr()
    assert error == ""
    rows = [line for line in out.splitlines() if line[:8].strip() in ("ok", "missing", "WRONG")]
    return {line[8:38].strip(): f"{line[:8].strip()} {line[38:]}" for line in rows}


def without(monkeypatch: pytest.MonkeyPatch, *missing: str) -> None:
    known = checks._version
    monkeypatch.setattr(checks, "_version", lambda name: None if name in missing else known(name))


def test_a_machine_that_passes_the_tests_is_well(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor"]) == 0
    found = said(capsys)
    for name in ("fedmer", "torch", "device", "runs", "temporary folder", "self-test"):
        assert found[name].startswith("ok "), found[name]
    assert "2 rounds" in found["self-test"]
    assert {f"extractor {p.name}" for p in registry.plugins("extractors")} <= set(found)
    assert {"Flower", "W&B"} <= set(found)
    assert not list(here.iterdir())


def test_what_is_missing_besides_is_no_illness(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "flwr", "wandb", "wordllama", "resemblyzer")
    assert main(["doctor", "--quick"]) == 0
    found = said(capsys)
    assert found["Flower"] == "missing flwr not installed; pip install 'fedmer[flower]'"
    assert found["W&B"].endswith("pip install wandb")
    assert found["extractor Words"].endswith("; pip install 'fedmer[extract]'")
    assert "--no-deps resemblyzer" in found["extractor Voice"]
    assert "self-test" not in found


def test_a_missing_core_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    without(monkeypatch, "torchmetrics")
    assert main(["doctor"]) == 1
    found = said(capsys)
    assert found["torchmetrics"] == "WRONG torchmetrics not installed; pip install torchmetrics"
    assert "self-test" not in found


def test_a_folder_that_cannot_be_written_is(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").touch()
    assert main(["doctor", "--quick", "--runs", "file/runs"]) == 1
    assert "choose another place with --runs" in said(capsys)["runs"]


def test_little_room_is(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(checks, "_ROOM_GB", 1e9)
    assert main(["doctor", "--quick"]) == 1
    assert "GB free; make room there" in said(capsys)["runs"]


def test_a_run_that_fails_is_told_and_not_a_crash(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> str:
        raise RuntimeError("no luck")

    monkeypatch.setattr("fedmer.doctor.self_test.self_test", fail)
    assert main(["doctor"]) == 1
    assert said(capsys)["self-test"].startswith("WRONG RuntimeError: no luck; report this")


def test_a_strangers_broken_extractor_harms_nobody(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Plugin("Broken", "no_such_module.Broken", "fedmer-broken", "")
    monkeypatch.setattr(registry, "plugins", lambda kind: [broken])
    assert main(["doctor", "--quick"]) == 0
    line = said(capsys)["extractor Broken"]
    assert line.startswith("missing fedmer-broken cannot be imported: ModuleNotFoundError")
