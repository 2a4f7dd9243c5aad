"""Stacked: what Inline computes, up to rounding, and what it refuses."""

from functools import partial

import pytest
import torch
from torch import Tensor

from fedmer.client import EmotionClient, OptimizerCallable
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.network import Network
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins import registry
from fedmer.plugins.aggregators.fed_adam import FedAdam
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.executors.auto import Auto
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.networks.late_fusion import LateFusion
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.steps import LocalTraining
from tests.federations import clients_of, federation, small_corpus

TRAINING = LocalTraining(epochs=2, batch_size=2, gradient_clip_val=0.5)
CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, VirtualSpeaker(9))
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9)
SMALL = {"hidden": 8, "heads": 2, "dropout": 0.0, "missing_rate": 0.0}


def run(
    executor: Executor,
    kind: type[Network],
    rule: Aggregator,
    rounds: int = 2,
    loss: SelfDistillation | None = None,
    training: LocalTraining = TRAINING,
    optimizer: OptimizerCallable = SGD,
    **more: object,
) -> dict[str, Tensor]:
    """Global weights and personal ones after some rounds."""

    def network() -> Network:
        torch.manual_seed(0)
        wanted = {**SMALL, **more}
        known = kind.__init__.__code__.co_varnames
        return kind(CORPUS.shape, **{k: v for k, v in wanted.items() if k in known})

    client = EmotionClient(network(), loss or SelfDistillation(class_weights="local"), optimizer)
    trainer = LocalTrainer(client, CLIENTS, rule, training)
    loop = FederatedLoop(network(), rule, All(), executor, trainer, seed=0)
    for number in range(rounds):
        loop.run_round(number)
    executor.close()
    found = {name: value.clone() for name, value in loop.state.network.state_dict().items()}
    for i, memory in trainer.memory.items():
        found |= {f"{i} {name}": value for name, value in memory.weights.items()}
    return found


@pytest.mark.parametrize("plugin", registry.plugins("networks"), ids=lambda plugin: plugin.name)
def test_every_network_learns_what_inline_does_or_says_that_it_cannot(
    plugin: registry.Plugin,
) -> None:
    registry.load("networks")
    kind = {k.__name__: k for k in _all(Network)}[plugin.name]
    if not kind.stackable:
        with pytest.raises(InputError, match=f"{plugin.name} has steps that torch"):
            run(Stacked(), kind, FedAvg())
        return
    expected = run(Inline(), kind, FedAvg())
    found = run(Stacked(clients=3), kind, FedAvg())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def _all(kind: type[Network]) -> list[type[Network]]:
    return [k for part in kind.__subclasses__() for k in (part, *_all(part))]


@pytest.mark.parametrize("rule", [FedAdam, Local])
def test_rules_that_leave_the_loss_alone(rule: type[Aggregator]) -> None:
    adam = partial(torch.optim.Adam, lr=1e-3, eps=1e-2)
    expected = run(Inline(), LateFusion, rule(), optimizer=adam, loss=SelfDistillation())
    found = run(Stacked(), LateFusion, rule(), optimizer=adam, loss=SelfDistillation())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)


def test_a_calibrated_loss_and_heads_class_by_class() -> None:
    loss = SelfDistillation(calibration="prior")
    one, other = FedAvg(heads="classwise"), FedAvg(heads="classwise")
    expected = run(Inline(), LateFusion, one, loss=loss)
    found = run(Stacked(clients=3), LateFusion, other, loss=loss)
    plain = run(Stacked(clients=3), LateFusion, FedAvg(), loss=SelfDistillation())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
    assert not any(torch.allclose(plain[n], found[n], atol=1e-3) for n in plain if "head" in n)


def test_dropout_is_drawn_for_every_client_and_the_same_again() -> None:
    one, other = (run(Stacked(), LateFusion, Local(), rounds=1, dropout=0.5) for _ in range(2))
    assert all(torch.equal(one[name], value) for name, value in other.items())
    still = run(Stacked(), LateFusion, Local(), rounds=1)
    assert not all(torch.equal(one[name], value) for name, value in still.items())


@pytest.mark.parametrize(
    ("kind", "rule", "more", "sentence"),
    [
        (EarlyFusion, FedProx(), {}, "FedProx changes what a client minimises"),
        (SDT, FedAvg(), {}, "SDT has steps that torch"),
        (
            EarlyFusion, FedAvg(), {"training": LocalTraining(optimizer_state="keep")},
            r"local\.optimizer_state is 'keep'",
        ),
        (EarlyFusion, FedAvg(), {"optimizer": torch.optim.Adafactor}, "Adafactor may mix"),
    ],
)  # fmt: skip
def test_what_cannot_be_stacked_is_refused(
    kind: type[Network], rule: Aggregator, more: dict[str, LocalTraining], sentence: str
) -> None:
    with pytest.raises(InputError, match=f"Stacked cannot be used: .*{sentence}.* Use Inline"):
        run(Stacked(), kind, rule, **more)  # type: ignore[arg-type]


def test_auto_goes_on_with_what_it_chose() -> None:
    """Stacked has other bits than Inline, so that another choice would make another run."""
    started = federation(FedAvg(), executor=Auto())
    started.executor.chosen = started.executor.candidates[-1]  # type: ignore[attr-defined]
    resumed = federation(FedAvg(), executor=Auto())
    resumed.load_state_dict(started.state_dict())
    chosen = resumed.executor.chosen  # type: ignore[attr-defined]
    assert type(chosen) is type(started.executor.candidates[-1])  # type: ignore[attr-defined]
    assert chosen in resumed.executor.candidates  # type: ignore[attr-defined]


def test_auto_measures_and_says_what_it_chose(capsys: pytest.CaptureFixture[str]) -> None:
    executor = Auto()
    found = run(executor, LateFusion, FedAvg())
    assert executor.chosen is not None
    said = capsys.readouterr().err
    assert f"executor: {type(executor.chosen).__name__} from now on" in said
    assert {"Inline", "Stacked"} <= {type(c).__name__ for c in executor.candidates}
    for name, value in run(Inline(), LateFusion, FedAvg()).items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4, msg=name)
