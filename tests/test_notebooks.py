"""The notebooks run from the first cell to the last, each in a fresh interpreter."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documented import ROOT

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def code(path: Path) -> list[str]:
    """The sources of the cells that are run, in their order."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def test_there_is_a_tour_and_an_ablation_without_stored_outputs() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["ablation", "tour"]
    for path in NOTEBOOKS:
        content = json.loads(path.read_text(encoding="utf-8"))
        assert content["nbformat"] == 4
        for cell in content["cells"]:
            assert not cell.get("outputs")
        for source in code(path):
            compile(source, str(path), "exec")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_cell_runs(path: Path, tmp_path: Path) -> None:
    script = tmp_path / "cells.py"
    script.write_text("\n\n".join(code(path)), encoding="utf-8")
    environment = {**os.environ, "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-W", "error::DeprecationWarning:__main__", str(script)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "weighted F1" in done.stdout or "MB up" in done.stdout
    assert list((tmp_path / "runs").glob("*/result.json"))
