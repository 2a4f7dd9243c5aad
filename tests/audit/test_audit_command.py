"""``fedmer audit``: what it prints, keeps and refuses."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fedmer.__main__ import main
from fedmer.audit.attacks import ATTACKS
from fedmer.commands.audit import NAMES
from fedmer.errors import InputError
from fedmer.report.attacks import Audit, Figure, Finding, read_audit
from tests.audit.subjects import Fit


@pytest.fixture
def run(plain: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(plain, tmp_path / "run"))


def test_a_run_is_attacked_and_keeps_what_was_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", str(run), "--shadows", "2"]) == 0
    said = capsys.readouterr()
    assert re.search(r"\| FedAvg \| membership \| utterances: AUC \| 1 \| \**0\.", said.out)
    assert "warning" not in said.err
    kept = json.loads((run / "audit.json").read_text())
    assert kept["round"] == 1
    assert tuple(kept["findings"]) == NAMES == tuple(ATTACKS)
    before = (run / "audit.json").read_text()
    assert main(["audit", str(run), "--shadows", "2"]) == 0
    again = json.loads((run / "audit.json").read_text())
    assert {**again, "seconds": 0} == {**json.loads(before), "seconds": 0}


def test_runs_that_differ_in_their_seed_are_one_row(
    fit: Fit, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    idle = ("--optimizer.lr", "1e-7", "--trainer.max_epochs", "1")
    other = fit("other", "--aggregator", "FedAvg", "--seed_everything", "1", *idle)
    both = [str(shutil.copytree(one, tmp_path / one.name)) for one in (plain, other)]
    assert main(["audit", *both, "--attacks", "membership"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"\| FedAvg \| membership \| utterances: AUC \| 2 \| \**0\.", said)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--shadows", "3"], "--shadows is 3; expected an even number from 2."),
        (["--rounds", "0"], "--rounds is 0; expected at least 1."),
        (["--attacks", "member"], "unknown --attacks 'member'; did you mean 'membership'?"),
        (["--groups", "no.csv"], "no.csv cannot be read"),
    ],
)
def test_bad_options_are_sentences(
    run: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    assert main(["audit", str(run), *more]) == 2
    assert said in capsys.readouterr().err
    assert not (run / "audit.json").exists()


def test_bad_runs_are_sentences(
    run: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        assert main(["audit", str(run), "--attacks", "membership"]) == 2
        assert not (run / "audit.json").exists()
        return capsys.readouterr().err

    settings = yaml.safe_load((run / "config.yaml").read_text())
    moved = {**settings, "data": {**settings["data"], "path": "moved.npz"}}
    (run / "config.yaml").write_text(yaml.safe_dump(moved))
    assert "moved.npz, on which" in refused()
    with np.load(corpus_file, allow_pickle=False) as file:
        columns = dict(file)
    columns["text"] = columns["text"] + 1
    np.savez(run / "changed.npz", **columns)
    changed = {**settings, "data": {**settings["data"], "path": str(run / "changed.npz")}}
    (run / "config.yaml").write_text(yaml.safe_dump(changed))
    assert "was trained on another corpus than what is now in its place" in refused()
    (run / "config.yaml").unlink()
    assert "config.yaml" in refused()
    shutil.rmtree(run / "checkpoints")
    assert "has no checkpoint" in refused()
    (run / "result.json").unlink()
    assert "There is no finished run in" in refused()
    shutil.rmtree(run)
    assert f"{run} does not exist; expected the folder of a run" in refused()


def test_the_report_shows_what_attacks_found(run: Path, tmp_path: Path) -> None:
    def reported() -> tuple[str, set[str]]:
        assert main(["report", str(run), "--out", str(tmp_path / "report")]) == 0
        page = (tmp_path / "report" / "index.html").read_text()
        return page, {path.name for path in (tmp_path / "report").glob("attacks.*")}

    page, files = reported()
    assert "No run was attacked; fedmer audit does." in page
    assert not files
    assert main(["audit", str(run), "--attacks", "membership", "group"]) == 0
    page, files = reported()
    assert "utterances: AUC" in page
    assert "No groups of speakers were given" in page
    assert files == {"attacks.csv", "attacks.md"}
    (run / "audit.json").unlink()
    assert not reported()[1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found.pop("findings"),
        lambda found: found["findings"].update(membership=3),
        lambda found: found["findings"]["membership"]["figures"][0].update(value="x"),
        lambda found: found["findings"]["membership"]["figures"][0].update(low=True),
        lambda found: found["findings"]["membership"]["figures"][0].update(more=1),
        lambda found: found.update(round=None),
    ],
)
def test_a_damaged_audit_is_one_sentence(
    damage: Callable[[dict[str, Any]], object], tmp_path: Path
) -> None:
    figure = Figure("AUC", 0.6, 0.5, 0.4, 0.7)
    audit = Audit(3, 1.5, {}, {"membership": Finding([figure]), "group": Finding([], "No.")})
    assert read_audit(tmp_path) is None
    (tmp_path / "audit.json").write_text(json.dumps(audit.as_dict()))
    assert read_audit(tmp_path) == audit
    content = audit.as_dict()
    damage(content)
    (tmp_path / "audit.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="is not what 'fedmer audit' wrote"):
        read_audit(tmp_path)
