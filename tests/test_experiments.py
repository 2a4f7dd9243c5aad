"""The files in experiments/ say things that the command line knows."""

from pathlib import Path

import pytest

from fedmer.cli import run

FILES = sorted((Path(__file__).parent.parent / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_an_experiment_is_understood(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(["fit", "--config", str(file), "--print_config"])
    assert end.value.code == 0
    assert "class_path: fedmer.plugins.networks.sdt.SDT" in capsys.readouterr().out


def test_there_are_experiments() -> None:
    assert {"iemocap_paper", "iemocap_speakers", "iemocap_loso", "meld"} <= {f.stem for f in FILES}
