"""What is not finite goes no further: not into a mean, a memory or a checkpoint."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from fedmer.__main__ import main
from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator, ClientRound
from fedmer.contracts.client import ClientMemory
from fedmer.contracts.executor import Executor
from fedmer.contracts.selector import Selector
from fedmer.errors import InputError, NotFiniteError
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_avg_m import FedAvgM
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.auto import Auto
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.record.rows import read_rows
from fedmer.steps import LocalTraining
from fedmer.weights import not_finite, tensors_in
from tests.federations import clients_of, same_bits, small_corpus, weights_of

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, VirtualSpeaker(8))
BAD = 2
"""The client that goes wrong in every round but the first."""
HUGE = {"lr": 3e38, "weight_decay": 100.0}
"""With which one step makes infinite weights, and a finite loss before it."""


class Without(Selector):
    """Everybody, or from the second round on everybody but one."""

    def __init__(self, client: int | None = None) -> None:
        self.client = client

    def select(self, round: int, sizes: Sequence[int], seed: int) -> list[int]:
        return [i for i in range(len(sizes)) if round == 0 or i != self.client]


class Attaching(FedAvg):
    """A rule whose client half sends too much."""

    def attach(self, context: ClientRound, batches: Any) -> Weights:
        return {"more/": torch.tensor([torch.nan if spoilt(context) else 1.0])}

    def step(self, state: Any, summaries: Any, weights: Any, mean: Any) -> None:
        super().step(state, summaries, weights, {n: v for n, v in mean.items() if n != "more/"})


class Summing(FedAvg):
    """A rule whose summary can overflow."""

    def summarize(self, context: ClientRound, batches: Any) -> dict[str, Tensor]:
        return {"sum": torch.tensor(torch.inf if spoilt(context) else 1.0)}


class Counting(FedAvg):
    """A rule that changes what a client remembers in place."""

    def summarize(self, context: ClientRound, batches: Any) -> dict[str, Tensor]:
        kept = context.memory.setdefault("count", torch.zeros(1))
        kept += torch.nan if spoilt(context) else 1.0
        return {}


def spoilt(context: ClientRound) -> bool:
    return getattr(context, "spoilt", False)


def poison(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let one client's training go wrong, in this process and those that it forks."""
    original = LocalTrainer.report

    def report(self: LocalTrainer, client: int, context: ClientRound, loss: float, *more: Any):  # type: ignore[no-untyped-def]
        if client == BAD and context.received.round > 0:
            context.spoilt = True  # type: ignore[attr-defined]
            if kind == "loss":
                loss = float("nan")
            if kind == "weights":
                self.weights.vectors[torch.float32][5] = -torch.inf
        return original(self, client, context, loss, *more)

    monkeypatch.setattr(LocalTrainer, "report", report)


def loop_over(
    executor: Executor, rule: Aggregator, left_out: int | None = None, **rates: float
) -> FederatedLoop:
    def network() -> EarlyFusion:
        torch.manual_seed(0)
        return EarlyFusion(CORPUS.shape, hidden=8, dropout=0.0)

    optimizer = partial(torch.optim.SGD, **{"lr": 0.1, **rates})
    client = EmotionClient(network(), SelfDistillation(), optimizer)
    trainer = LocalTrainer(client, CLIENTS, rule, LocalTraining(batch_size=32))
    selector: Any = Without(left_out)
    return FederatedLoop(network(), rule, selector, executor, trainer, seed=0)


def everything(loop: FederatedLoop) -> dict[str, Tensor]:
    kept = {i: memory for i, memory in loop.trainer.memory.items() if i != BAD}
    return {**weights_of(loop), **loop.state.tensors, **tensors_in(kept, "memory")}


@pytest.mark.parametrize(
    ("make", "kind", "rule"),
    [
        *((Inline, kind, FedAvg) for kind in ("loss", "weights")),
        *((Inline, "weights", SCAFFOLD), (Inline, "weights", FedProto)),
        *((Inline, "attached", Attaching), (Inline, "summary", Summing)),
        *((Inline, "memory", Counting), (partial(Workers, 2), "memory", Counting)),
        *((partial(Workers, 2), "weights", FedAvg), (partial(Stacked, 4), "weights", FedAvg)),
        *((partial(Stacked, 4), "memory", Counting), (Auto, "weights", FedAvg)),
    ],
)
def test_a_round_goes_on_without_a_client_whose_result_is_not_finite(
    make: Any, kind: str, rule: type[Aggregator], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = loop_over(Inline(), rule(), left_out=BAD)
    for number in range(3):
        expected.run_round(number)
    before = loop_over(Inline(), rule())
    before.run_round(0)
    poison(kind, monkeypatch)
    loop = loop_over(make(), rule())
    reports = [loop.run_round(number) for number in range(3)]
    loop.executor.close()
    assert [set(report.failures) for report in reports] == [set(), {BAD}, {BAD}]
    assert reports[1].failures[BAD].startswith(f"{CLIENTS[BAD].name} was left out: its {kind} ")
    assert all(BAD not in report.weights for report in reports[1:])
    found, wanted = everything(loop), everything(expected)
    assert found.keys() == wanted.keys()
    # A stack rounds otherwise; Auto may have chosen it.
    exact = getattr(make, "func", make) in (Inline, Workers)
    for name, value in wanted.items():
        near = 0.0 if exact else 1e-4
        torch.testing.assert_close(found[name], value, atol=near, rtol=near, msg=name)
    kept, good = (tensors_in({**one.trainer.recall(BAD).state_dict()}) for one in (loop, before))
    assert kept.keys() == good.keys()
    for name, value in good.items():
        torch.testing.assert_close(kept[name], value, atol=1e-4, rtol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("rule", "rates", "sentence"),
    [
        (FedAvg(), HUGE, r"Round 1: no client has a part in the result \([^;]+ was left out: its "
         r"weights hold NaN or infinity, first in '[\w.]+'; .*; and 5 more\)"),
        (FedAvgM(lr=3e38), {"lr": 100.0}, "Round 1: the server's result holds NaN or inf"),
    ],
)  # fmt: skip
def test_a_round_without_a_finite_result_ends_the_run(
    rule: Aggregator, rates: dict[str, float], sentence: str
) -> None:
    loop = loop_over(Inline(), rule, **rates)
    with pytest.raises(InputError, match=sentence):
        loop.run_round(0)


def test_a_servers_rate_beyond_single_precision_is_refused() -> None:
    with pytest.raises(InputError, match=r"aggregator.lr is 1e\+39; expected less than 3.4e38"):
        loop_over(Inline(), FedAvgM(lr=1e39))


def test_a_mean_that_overflows_never_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = loop_over(Inline(), FedAvg())
    before = weights_of(loop)
    original = LocalTrainer.report

    def report(self: LocalTrainer, client: int, *more: Any):  # type: ignore[no-untyped-def]
        self.weights.vectors[torch.float32][5] = 3e38 if client % 2 else -3e38
        return original(self, client, *more)

    monkeypatch.setattr(LocalTrainer, "report", report)
    with pytest.raises(InputError, match="Round 1: the mean of the clients' weights holds NaN"):
        loop.run_round(0)
    assert same_bits(weights_of(loop), before)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_one_bad_number_is_found(value: float, kind: torch.dtype) -> None:
    good = {
        "none": torch.empty(0),
        "count": torch.tensor(2),
        "large": torch.tensor([1e300], dtype=torch.float64),
    }
    assert not not_finite(good)
    assert not_finite({**good, "w": torch.ones(7, 3, dtype=kind)}) == ""
    bad = torch.ones(7, 3, dtype=kind)
    bad[4, 1] = value
    assert not_finite({**good, "w": bad}) == "w"


def fit(corpus: Path, *more: str) -> int:
    return main(
        [
            *("fit", "--data.path", str(corpus), "--name", "run", "--partitioner", "Session"),
            *("--network", "EarlyFusion", "--network.hidden", "8", "--aggregator", "FedAvg"),
            *("--optimizer", "SGD", "--local.batch_size", "64", *more),
        ]
    )


def test_a_run_leaves_out_one_client_and_ends_when_it_has_none(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison("weights", patch)
        assert fit(corpus_file, "--trainer.max_epochs", "2", "--executor", "Workers") == 0
    (row,) = read_rows(here / "runs/run/failures.csv")
    assert (row["round"], row["client"]) == ("2", str(BAD))
    assert "was left out: its weights hold NaN or infinity" in row["why"]
    assert f"round 2: {row['why']}" in capsys.readouterr().out
    clients = read_rows(here / "runs/run/clients.csv")
    assert str(BAD) not in {row["client"] for row in clients if row["round"] == "2"}

    last = here / "runs/run/checkpoints/last.ckpt"
    before = last.read_bytes()
    again = ["--ckpt_path", str(last), "--trainer.max_epochs", "3"]
    again += [word for name, value in HUGE.items() for word in (f"--optimizer.{name}", str(value))]
    assert fit(corpus_file, *again) == 2
    told = capsys.readouterr().err
    assert "Round 3: no client has a part in the result (" in told
    assert "Stopped in round 3. Go on with" in told
    assert "Traceback" not in told
    assert last.read_bytes() == before
    assert [row["round"] for row in read_rows(here / "runs/run/metrics.csv")] == ["1", "2"]

    saved = torch.load(last, weights_only=True)
    name = next(iter(saved["state_dict"]))
    saved["state_dict"][name].flatten()[0] = torch.inf
    torch.save(saved, here / "bad.ckpt")
    chosen = ["--config", "runs/run/config.yaml", "--ckpt_path", "bad.ckpt"]
    assert main(["test", *chosen]) == 2
    told = capsys.readouterr().err
    assert f"bad.ckpt holds NaN or infinity, first in 'state_dict.{name}'" in told


def test_a_node_keeps_nothing_for_a_masked_sum_and_sends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("flwr")
    from flwr.app import RecordDict

    from fedmer.flower.node.client_side import fit
    from fedmer.flower.wire import header, put_broadcast

    loop = loop_over(Inline(), FedAvg())
    content, state = RecordDict({"round": header(1, BAD, keep=True)}), RecordDict()
    put_broadcast(content, Broadcast(1, weights_of(loop)))
    fit(loop.trainer, content, state, ClientMemory())
    assert state
    state = RecordDict()
    poison("weights", monkeypatch)
    with pytest.raises(NotFiniteError, match="its weights hold NaN or infinity"):
        fit(loop.trainer, content, state, ClientMemory())
    assert not state
