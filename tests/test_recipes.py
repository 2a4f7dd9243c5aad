"""The files in experiments/ say things that the command line knows, and are found everywhere."""

import runpy
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from fedmer import cli, recipes
from fedmer.__main__ import main

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_is_found_by_name_in_any_folder_and_understood(
    name: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["fit", f"--config={name}", "--print_config"])
    assert end.value.code == 0
    assert "class_path: fedmer.plugins.networks.sdt.SDT" in capsys.readouterr().out


def test_there_are_recipes() -> None:
    assert {"iemocap_paper", "iemocap_speakers", "iemocap_loso", "meld"} <= set(recipes.names())


def test_a_file_is_meant_before_a_recipe(here: Path) -> None:
    (here / "meld").write_text("seed_everything: 7\n")
    assert recipes.as_files(["--config", "meld"]) == ["--config", "meld"]


def test_a_mistyped_recipe_is_told(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", "iemocap_speaker"]) == 2
    assert "unknown recipe 'iemocap_speaker'; did you mean 'iemoc" in capsys.readouterr().err


def test_a_wheel_brings_the_recipes(tmp_path: Path) -> None:
    builder = WheelBuilder(str(ROOT))
    wheel = next(builder.build(directory=str(tmp_path), versions=["standard"]))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    unpacked = runpy.run_path(str(tmp_path / "fedmer" / "recipes.py"))
    assert unpacked["names"]() == recipes.names()
    found = unpacked["find"]("iemocap_speakers")
    assert found.is_relative_to(tmp_path)
    assert found.read_text() == (ROOT / "experiments/iemocap_speakers.yaml").read_text()
