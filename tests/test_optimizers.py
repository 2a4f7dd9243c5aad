"""An optimizer that cannot be is told before anything is written or replaced."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn, optim

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.schedules import Schedule

PARAMETERS = [nn.Parameter(torch.ones(3, 2)), nn.Parameter(torch.ones(3))]
SMALL = ("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (optim.LBFGS, "--optimizer LBFGS computes the loss several times a step"),
        (optim.SparseAdam, "--optimizer SparseAdam cannot make a step: .* dense gradients"),
        (optim.Muon, "--optimizer cannot be used: Muon only supports 2D parameters"),
        (partial(optim.Adam, lr=-0.1), "--optimizer cannot be used: Invalid learning rate: -0.1"),
        (partial(optim.Adam, betas=(1.5, 0.9)), "Invalid beta parameter at index 0: 1.5"),
        (partial(optim.SGD, nesterov=True), "Nesterov momentum requires a momentum"),
        (partial(optim.Adam, differentiable=True), "--optimizer Adam cannot make a step"),
        (partial(optim.Adam, fused=True, foreach=True), "cannot be `True` together"),
        (partial(optim.Adam, no_such_option=1), "--optimizer cannot be used: .*no_such_option"),
    ],
)
def test_an_optimizer_that_cannot_be_is_a_sentence(make: Any, said: str) -> None:
    with pytest.raises(InputError, match=f"{said}.*\\.$"):
        Schedule(make, None, PARAMETERS)


def of_torch() -> Iterator[type[optim.Optimizer]]:
    for name in optim.__all__:
        kind = getattr(optim, name)
        if isinstance(kind, type) and kind is not optim.Optimizer:
            yield kind


@pytest.mark.parametrize("kind", of_torch(), ids=lambda kind: kind.__name__)
def test_every_optimizer_of_torch_is_taken_or_refused(kind: Any) -> None:
    refused = kind.__name__ in ("LBFGS", "SparseAdam", "Muon")
    try:
        rate = Schedule(partial(kind, lr=0.25), None, PARAMETERS).rate(3)
    except InputError:
        assert refused
    else:
        assert not refused
        assert rate == 0.25
    assert all(parameter.grad is None and (parameter == 1).all() for parameter in PARAMETERS)


def test_the_old_run_is_still_there_when_the_new_one_cannot_be(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("fit", "--data.path", str(corpus_file), *SMALL, "--name", "run")
    assert main([*words, "--trainer.max_epochs", "1"]) == 0
    files = {path: path.read_bytes() for path in here.rglob("*") if path.is_file()}
    for wrong in (("--optimizer", "LBFGS"), ("--optimizer.lr", "-0.1")):
        capsys.readouterr()
        assert main([*words, "--overwrite", *wrong]) == 2
        assert "Traceback" not in capsys.readouterr().err
        assert {path: path.read_bytes() for path in here.rglob("*") if path.is_file()} == files
