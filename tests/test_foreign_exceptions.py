"""A mistake in somebody else's part is told with its place; fedmer's own is a traceback."""

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.foreign import ForeignError, foreign
from fedmer.plugins.aggregators.fed_avg import FedAvg

EIGHT = ("--partitioner.clients", "8")
SMALL = ("--network.hidden", "8", "--network.heads", "2")
PARTS = """
import torch
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.speaker import Speaker
from fedmer.plugins.selectors.all import All


class Split(Speaker):
    def split(self, corpus, dialogues, seed):
        return {}["nobody"]  # line 11


class Rule(FedAvg):
    def step(self, state, summaries, weights, mean):
        raise RuntimeError()  # line 16


class Half(FedAvg):
    def client_loss(self, supervised, output, batch, context):
        return supervised @ torch.ones(2, 3)  # line 21


class Made(All):
    def __init__(self):
        raise KeyError("never")  # line 26


class Net(EarlyFusion):
    def forward(self, batch):
        return None.logits  # line 31
"""
CASES = [
    ("--partitioner", "Split", "Split.split", 11, "KeyError: 'nobody'."),
    ("--aggregator", "Rule", "Rule.step", 16, "RuntimeError."),
    ("--aggregator", "Half", "Half.client_loss", 21, "RuntimeError: "),
    ("--selector", "Made", "Made.__init__", 26, "KeyError: 'never'."),
    ("--network", "Net", "Net.forward", 31, "AttributeError: "),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A module with a part of every kind that fails."""
    path = tmp_path_factory.mktemp("parts") / "failing_parts.py"
    path.write_text(PARTS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(path.parent))
        yield path
    sys.modules.pop("failing_parts", None)


def fit(corpus: Path, *more: str) -> int:
    return main(["fit", "--data.path", str(corpus), *more])


@pytest.mark.parametrize(("option", "name", "place", "line", "said"), CASES)
def test_a_mistake_in_somebodys_part_is_told_with_its_place(
    parts: Path,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
    option: str,
    name: str,
    place: str,
    line: int,
    said: str,
) -> None:
    own = () if option == "--network" else SMALL
    clients = () if option == "--partitioner" else EIGHT
    assert fit(corpus_file, *own, *clients, option, f"failing_parts.{name}") == 2
    error = capsys.readouterr().err
    assert f"{place} of {parts}, line {line}, which is not fedmer's, raised {said}" in error
    assert "--traceback shows" in error
    assert "Traceback" not in error


@pytest.mark.parametrize("more", [(), ("--executor", "Workers", "--executor.workers", "1")])
def test_traceback_shows_the_way(
    parts: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    words = (*SMALL, *EIGHT, "--aggregator", "failing_parts.Half", "--traceback")
    assert fit(corpus_file, *words, *more) == 2
    error = capsys.readouterr().err
    assert error.count("Traceback (most recent call last)") == 1
    assert "fedmer/local.py" in error
    assert "supervised @ torch.ones(2, 3)  # line 21" in error


def test_a_mistake_of_our_own_stays_a_traceback(
    here: Path, corpus_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Compiled as a file of fedmer, since a function of this file would not be.
    code = compile("def step(*arguments):\n    raise KeyError('ours')\n", ours(), "exec")
    made: dict[str, object] = {}
    exec(code, made)
    monkeypatch.setattr(FedAvg, "step", made["step"])
    with pytest.raises(KeyError, match="ours"):
        fit(corpus_file, *SMALL, *EIGHT, "--aggregator", "FedAvg")


def ours() -> str:
    import fedmer.plugins.aggregators.fed_avg as module

    return str(module.__file__)


def test_the_sentence_crosses_from_a_worker() -> None:
    error = ForeignError("whose", "way")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.trace) == ("whose", "way")


def test_what_a_library_raises_is_the_mistake_of_its_caller() -> None:
    import torch

    try:
        torch.stack([])
    except RuntimeError as error:
        found = foreign(error)
    assert found is not None
    assert str(found).startswith(
        f"test_what_a_library_raises_is_the_mistake_of_its_caller of {__file__}"
    )
