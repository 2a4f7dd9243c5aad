"""The learning rate over rounds: torch's own, the same wherever and whenever a client trains."""

import copy
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim import SGD, Adam, lr_scheduler

from fedmer.__main__ import main
from fedmer.client import EmotionClient, LRSchedulerCallable
from fedmer.contracts.executor import Executor
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.parts import CLIENT_PARTS, build_trainer
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.record.rows import read_rows
from fedmer.schedules import Schedule, Warmup
from fedmer.steps import LocalTraining
from tests.federations import clients_of, small_corpus

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, VirtualSpeaker(8))
HALVED = partial(lr_scheduler.ExponentialLR, gamma=0.5)
SCHEDULERS: dict[str, Any] = {
    "StepLR": partial(lr_scheduler.StepLR, step_size=3),
    "MultiStepLR": partial(lr_scheduler.MultiStepLR, milestones=[2, 5]),
    "ConstantLR": lr_scheduler.ConstantLR,
    "LinearLR": lr_scheduler.LinearLR,
    "ExponentialLR": HALVED,
    "PolynomialLR": partial(lr_scheduler.PolynomialLR, total_iters=6, power=2.0),
    "CosineAnnealingLR": partial(lr_scheduler.CosineAnnealingLR, T_max=10),
    "CosineAnnealingWarmRestarts": partial(lr_scheduler.CosineAnnealingWarmRestarts, T_0=4),
    "CyclicLR": partial(lr_scheduler.CyclicLR, base_lr=0.1, max_lr=0.4, step_size_up=3),
    "OneCycleLR": partial(lr_scheduler.OneCycleLR, max_lr=0.4, total_steps=30),
    "LambdaLR": partial(lr_scheduler.LambdaLR, lr_lambda=lambda round: 1 / (1 + round)),
    "MultiplicativeLR": partial(lr_scheduler.MultiplicativeLR, lr_lambda=lambda round: 0.9),
    "Warmup": partial(Warmup, rounds=3, then=HALVED),
}
STEERED = ("lr", "momentum", "betas")


def test_every_scheduler_of_torch_that_goes_by_rounds_is_tried() -> None:
    apart = {"LRScheduler", "ReduceLROnPlateau", "SequentialLR", "ChainedScheduler"}
    assert set(lr_scheduler.__all__) - apart == SCHEDULERS.keys() - {"Warmup"}


def settings_of(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    return [{k: v for k, v in g.items() if k in STEERED} for g in optimizer.param_groups]


@given(
    make=st.sampled_from([partial(SGD, lr=0.2, momentum=0.9), partial(Adam, lr=0.2)]),
    name=st.sampled_from(sorted(SCHEDULERS)),
    asked=st.lists(st.integers(0, 12), min_size=1, max_size=5),
)
@pytest.mark.filterwarnings("ignore:Detected call of")
def test_a_round_is_what_torch_gives_after_as_many_steps_whoever_asks_when(
    make: Any, name: str, asked: list[int]
) -> None:
    parameters = [nn.Parameter(torch.zeros(3, 2))]
    schedule = Schedule(make, SCHEDULERS[name], parameters)
    for round in asked:
        theirs = make([nn.Parameter(torch.zeros(3, 2))])
        stepped = SCHEDULERS[name](theirs)
        for _ in range(round):
            stepped.step()
        ours = make(parameters)
        schedule.apply(ours, round)
        assert settings_of(ours) == settings_of(theirs)
        assert schedule.rate(round) == theirs.param_groups[0]["lr"]


def test_a_warm_up_climbs_to_the_whole_rate_and_then_follows_the_other() -> None:
    warm = partial(Warmup, rounds=4, start=0.2, then=HALVED)
    schedule = Schedule(partial(SGD, lr=1.0), warm, [nn.Parameter(torch.zeros(1))])
    rates = [schedule.rate(round) for round in range(7)]
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 0.5, 0.25])
    stays = Schedule(partial(SGD, lr=1.0), partial(Warmup, rounds=1), [nn.Parameter(torch.ones(1))])
    assert [stays.rate(round) for round in (0, 1, 5)] == pytest.approx([0.1, 1.0, 1.0])


def loop_of(executor: Executor, scheduler: LRSchedulerCallable | None, keep: bool) -> FederatedLoop:
    torch.manual_seed(0)
    network = EarlyFusion(CORPUS.shape, hidden=8, dropout=0.0)
    client = EmotionClient(
        copy.deepcopy(network),
        SelfDistillation(),
        partial(SGD, lr=0.1, momentum=0.9),
        lr_scheduler=scheduler,
    )
    training = LocalTraining(optimizer_state="keep" if keep else "reset")
    rule = FedAvg()
    trainer = LocalTrainer(client, CLIENTS, rule, training)
    return FederatedLoop(network, rule, All(), executor, trainer, seed=0)


def weights_after(executor: Executor, scheduler: Any, keep: bool = False) -> list[torch.Tensor]:
    """The global weights before the first round and after each of three, as vectors."""
    loop = loop_of(executor, scheduler, keep)
    network = loop.state.network

    def now() -> torch.Tensor:
        return torch.cat([value.flatten() for value in network.state_dict().values()]).clone()

    found = [now()]
    for round in range(3):
        loop.run_round(round)
        found.append(now())
    executor.close()
    return found


def test_workers_train_at_the_rate_of_the_round() -> None:
    inline = weights_after(Inline(), HALVED, keep=True)
    assert all(map(torch.equal, inline, weights_after(Workers(workers=2), HALVED, keep=True)))
    plain = weights_after(Inline(), None, keep=True)
    assert torch.equal(inline[1], plain[1])  # the first round has the whole rate
    assert not torch.equal(inline[2], plain[2])


def test_stacked_clients_train_at_the_rate_of_the_round() -> None:
    inline, stacked = weights_after(Inline(), HALVED), weights_after(Stacked(), HALVED)
    torch.testing.assert_close(stacked[-1], inline[-1], rtol=0, atol=1e-5)


@pytest.mark.parametrize("executor", [Inline(), Stacked()])
def test_a_round_without_a_rate_changes_nothing(executor: Executor) -> None:
    once = partial(lr_scheduler.StepLR, step_size=1, gamma=0.0)
    first, second, third, _ = weights_after(executor, once)
    assert not torch.equal(first, second)
    torch.testing.assert_close(second, third, rtol=0, atol=1e-7)  # a mean of equals


def test_a_node_trains_at_the_rate_of_the_round() -> None:
    """Settings cross to a node as text."""
    schedule = {
        "class_path": "fedmer.schedules.Warmup",
        "init_args": {
            "rounds": 2,
            "then": {
                "class_path": "torch.optim.lr_scheduler.ExponentialLR",
                "init_args": {"gamma": 0.5},
            },
        },
    }
    settings = {key: copy.deepcopy(DEFAULTS[key]) for key in CLIENT_PARTS}
    settings |= {"seed": 0, "precision": "32-true"}
    told = json.loads(json.dumps({**settings, "lr_scheduler": schedule}))
    node = build_trainer(told, CORPUS.shape, dict(enumerate(CLIENTS)))
    rates = [node.schedule.rate(round) for round in range(4)]
    assert rates == pytest.approx([3e-4, 1.65e-3, 3e-3, 1.5e-3])
    steady = build_trainer(settings, CORPUS.shape, dict(enumerate(CLIENTS)))
    bits = []
    for trainer in (node, steady):
        _, update = trainer.fit(0, Broadcast(2, trainer.weights.clone()))
        assert update is not None
        bits.append({name: value.clone() for name, value in update.weights.items()})
    assert all(torch.equal(bits[0][name], bits[1][name]) for name in bits[0])


SMALL = ("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8")
COSINE = ("--lr_scheduler", "CosineAnnealingLR", "--lr_scheduler.T_max", "3")


def test_a_resumed_run_has_the_rates_of_an_unbroken_one(here: Path, corpus_file: Path) -> None:
    def fit(name: str, rounds: int, *more: str) -> None:
        path = ("--data.path", str(corpus_file), "--name", name)
        keep = ("--local.optimizer_state", "keep")
        words = (*path, *SMALL, *COSINE, *keep, "--trainer.max_epochs", str(rounds), *more)
        assert main(["fit", *words]) == 0

    def weights(name: str) -> dict[str, torch.Tensor]:
        path = here / "runs" / name / "checkpoints" / "last.ckpt"
        found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["state_dict"]
        return found

    fit("whole", 3)
    fit("broken", 2)
    fit("broken", 3, "--ckpt_path", "runs/broken/checkpoints/last.ckpt")
    one, other = weights("whole"), weights("broken")
    assert all(torch.equal(one[name], other[name]) for name in one)
    rates = [float(row["lr"]) for row in read_rows(here / "runs" / "broken" / "metrics.csv")]
    assert rates == pytest.approx([3e-3, 2.25e-3, 0.75e-3])
    assert main(["fit", "--config", "runs/whole/config.yaml", "--name", "again"]) == 0
    again = weights("again")
    assert all(torch.equal(one[name], again[name]) for name in one)


@pytest.mark.parametrize(
    ("scheduler", "rounds", "said"),
    [
        (lr_scheduler.ReduceLROnPlateau, 1, "ReduceLROnPlateau waits for a score"),
        (partial(Warmup, rounds=0), 1, "lr_scheduler.rounds is 0; expected at least 1"),
        (partial(Warmup, rounds=2, start=0), 1, "lr_scheduler.start is 0; expected a number in"),
        (partial(lr_scheduler.OneCycleLR, max_lr=1.0, total_steps=4), 9, "OneCycleLR cannot go on"),
        (
            partial(lr_scheduler.ExponentialLR, gamma=-1.0),
            2,
            "gives round 2 the learning rate -1",
        ),
        (partial(lr_scheduler.StepLR, step_size=0), 3, "StepLR cannot go on to round 2"),
        (partial(lr_scheduler.LinearLR, start_factor=-1), 1, "cannot be used: Starting multipl"),
    ],
)
def test_a_schedule_that_cannot_be_is_a_sentence(scheduler: Any, rounds: int, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Schedule(partial(SGD, lr=1.0), scheduler, [nn.Parameter(torch.zeros(1))]).check(rounds)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--lr_scheduler", "ReduceLROnPlateau"], "waits for a score"),
        (["--lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau"], "waits for a score"),
        (["--lr_scheduler", "SequentialLR"], "is made of schedulers, which cannot be said here"),
    ],
)
def test_the_command_line_refuses_what_it_cannot_make(
    words: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *words]) == 2
    assert said in capsys.readouterr().err
    assert list(here.iterdir()) == []
