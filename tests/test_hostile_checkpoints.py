"""A checkpoint from anybody is gone on from, or a sentence names the file and the entry."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmer.__main__ import main
from fedmer.checkpoint_entries import check_checkpoint
from fedmer.errors import InputError
from tests.fuzz import Sound


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return Sound(tmp_path_factory.mktemp("checkpoints"))


def entry(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set an entry; ``...`` removes it."""

    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        for key in path[:-1]:
            inner = inner[key]
        if value is ...:
            del inner[path[-1]]
        else:
            inner[path[-1]] = value

    return change


def larger(content: dict[str, Any]) -> None:
    content["fedmer"]["tensors"]["x"] = torch.zeros(1).expand(10**9)


LAST = ("callbacks", "RunRecord", "evaluated", "last")
WRONG = {
    "no fedmer": (entry("fedmer", value=...), "is not a checkpoint of fedmer"),
    "fedmer": (entry("fedmer", value=3), "an entry 'fedmer' that is int, not dict"),
    "rule": (entry("fedmer", "aggregator", value=...), "lacks the entry 'fedmer.aggregator'"),
    "remote": (entry("fedmer", "remote", value=1), "an entry 'fedmer.remote' that is neither true"),
    "average": (
        entry("fedmer", "average", value={"rounds": 2.0, "total": 1.0, "weights": {"a": 1}}),
        "an entry 'fedmer.average' that is no mean of networks",
    ),
    "sizes": (entry("fedmer", "sizes", value=[-1]), "an entry 'fedmer.sizes' that is of another"),
    "tensors": (entry("fedmer", "tensors", value={"a": "b"}), "an entry 'fedmer.tensors'"),
    "large": (larger, "an entry 'fedmer.tensors.x' that is no plain tensor, or larger"),
    "weights": (entry("state_dict", value={"a": "b"}), "an entry 'state_dict' that is of another"),
    "version": (entry("pytorch-lightning_version", value=...), "lacks the entry 'pytorch-lightn"),
    "epoch": (entry("epoch", value="1"), "an entry 'epoch'"),
    "loops": (entry("loops", "fit_loop", value={"x": 1}), "'loops.fit_loop.epoch_progress'"),
    "callbacks": (entry("callbacks", value={"a": 1}), "an entry 'callbacks'"),
    "scores": (entry(*LAST, value={"round": 1, "scores": {"test": {}}}), f"'{'.'.join(LAST)}'"),
    "labels": (entry("FederatedDataModule", "labels", value=[1]), "'FederatedDataModule.labels'"),
    "people": (
        entry("FederatedDataModule", "speakers", value=10**9),
        "an entry 'FederatedDataModule.speakers'",
    ),
    "mean": (
        entry("FederatedDataModule", "statistics", "text", value={"mean": 1, "deviation": 2}),
        "an entry 'FederatedDataModule.statistics'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_entry_is_named(sound: Sound, tmp_path: Path, name: str) -> None:
    change, said = WRONG[name]
    content = torch.load(sound.checkpoint, weights_only=True)
    change(content)
    path = tmp_path / "changed.ckpt"
    torch.save(content, path)
    with pytest.raises(InputError) as caught:
        check_checkpoint(path)
    assert "changed.ckpt" in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        entry("optimizer_states", value=["x"]),
        entry("fedmer", "executor", "memory", value=3),
        entry("callbacks", "RunRecord", value={"evaluated": 3}),
    ],
)
def test_what_only_shows_while_it_is_restored_is_a_sentence_too(
    sound: Sound,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[dict[str, Any]], None],
) -> None:
    content = torch.load(sound.checkpoint, weights_only=True)
    change(content)
    path = tmp_path / "changed.ckpt"
    torch.save(content, path)
    config = str(sound.checkpoint.parents[1] / "config.yaml")
    more = ["--runs", str(tmp_path), "--name", "x", "--trainer.max_epochs", "3"]
    assert main(["fit", "--config", config, "--ckpt_path", str(path), *more]) == 2
    error = capsys.readouterr().err
    assert "changed.ckpt cannot be restored (" in error
    assert not (tmp_path / "x" / "result.json").exists()


def test_a_checkpoint_is_not_unpacked(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "packed.ckpt"
    with (
        zipfile.ZipFile(sound.checkpoint) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(InputError, match=r"packed\.ckpt cannot be read as a checkpoint"):
        check_checkpoint(path)


def test_other_files_of_torch_and_of_nobody_are_refused(sound: Sound, tmp_path: Path) -> None:
    path = tmp_path / "other.ckpt"
    for content in (b"", b"PK\x03\x04", b"\x80\x02Nr\x00\xc2\xeb\x0b.", bytes(range(256))):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"other\.ckpt cannot be read as a checkpoint"):
            check_checkpoint(path)
    torch.save({"a": 1}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(InputError, match="cannot be read as a checkpoint"):
        check_checkpoint(path)
    torch.save({"a": 1}, path)
    with pytest.raises(InputError, match="is not a checkpoint of fedmer"):
        check_checkpoint(path)
