"""Flower's simulation: the same bits as Inline, sentences for what it cannot do, nothing left."""

import contextlib
import os
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("flwr")
pytest.importorskip("ray")

from fedmer.__main__ import main
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.privacy import Privacy
from fedmer.data.formats.native import write
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.ditto import Ditto
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_per import FedPer
from fedmer.plugins.aggregators.fed_proc import FedProc
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_rep import FedRep
from fedmer.plugins.aggregators.fed_tgp import FedTGP
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.flower import Flower
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy.dpsgd import DPSGD
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.privacy.secure_sum import SecureSum
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(2))


def processes_of_ray() -> set[int]:
    """Living processes of Ray's that this test started, by what their environment says."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes()
            mine = f"FEDMER_TEST={os.getpid()}\0".encode() in (entry / "environ").read_bytes()
            if mine and any(name in words for name in (b"raylet", b"gcs_server", b"ray::")):
                found.add(int(entry.name))
    return found


@pytest.fixture
def nothing_left(monkeypatch: pytest.MonkeyPatch):
    if not Path("/proc/self/environ").exists():
        pytest.skip("needs /proc")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("FEDMER_TEST", str(os.getpid()))
    yield
    deadline = time.monotonic() + 15
    while processes_of_ray() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not processes_of_ray()


def finished(executor: Executor, rule: Aggregator, rounds: int = 2, resumed: bool = False):
    """Global weights, what the rule keeps, and what clients keep, after some rounds."""
    loop = federation(rule, CORPUS, CLIENTS, executor=executor)
    try:
        for number in range(rounds):
            loop.run_round(number)
        if resumed:
            assert isinstance(executor, Flower)
            saved = {"weights": weights_of(loop), "state": loop.state_dict()}
            executor.close()
            loop = federation(type(rule)(), CORPUS, CLIENTS, executor=executor)
            loop.state.network.load_state_dict(saved["weights"])
            loop.load_state_dict(saved["state"])
        loop.run_round(rounds)
    finally:
        executor.close()
    kept = {
        f"{client} {kind} {name}": value
        for client, memory in loop.trainer.memory.items()
        for kind, named in memory.state_dict().items()
        for name, value in named.items()
    }
    return weights_of(loop) | dict(loop.state.tensors) | kept


@pytest.mark.slow
def test_the_simulation_trains_to_the_bits_of_inline(nothing_left: None) -> None:
    loop = federation(FedAvg(), CORPUS, CLIENTS, executor=Flower())
    other = federation(FedAvg(), CORPUS, CLIENTS)
    try:
        report = loop.run_round(0)
        assert processes_of_ray()
    finally:
        loop.executor.close()
    expected = other.run_round(0)
    assert same_bits(weights_of(loop), weights_of(other))
    assert report.failures == {}
    assert report.weights == expected.weights
    assert [(s.train_loss, s.steps) for s in report.summaries] == [
        (s.train_loss, s.steps) for s in expected.summaries
    ]
    # Flower's framing is on top of the numbers themselves.
    assert expected.bytes_up < report.bytes_up < 1.2 * expected.bytes_up + 20_000


class Open(Inline):
    """Takes part in a masked sum, and hides nothing."""

    carries_masked_sums = True


@pytest.mark.slow
@pytest.mark.parametrize("rule", [FedAvg, Distance, FedProto, FedProc, Analytic])
def test_masked_rounds_of_virtual_nodes_are_those_of_inline_up_to_its_grid(
    rule: type[Aggregator], nothing_left: None
) -> None:
    """They draw as Inline does: one person's virtual nodes have nobody to hide from.

    In the second round clients have prototypes to measure from.
    """
    executor, rounds = Flower(), 1 if rule is Analytic else 2
    secure = [SecureSum(clip=64.0 if rule is Analytic else 1.0)]
    loop, other = (
        federation(rule(), CORPUS, CLIENTS, executor=where, privacy=secure, rounds=rounds)
        for where in (executor, Open())
    )
    try:
        reports = [loop.run_round(number) for number in range(rounds)]
    finally:
        executor.close()
    expected_reports = [other.run_round(number) for number in range(rounds)]
    assert all(report.failures == {} for report in reports)
    for client, classes in expected_reports[0].class_weights.items():
        assert classes.sum() > 0
        torch.testing.assert_close(reports[0].class_weights[client], classes)
    found, expected = weights_of(loop), weights_of(other)
    # Two rounds train on what the grid rounded; a head in closed form is solved from it.
    close = 1e-3 if rule is Analytic else 1e-5
    assert max(float((found[name] - expected[name]).abs().max()) for name in found) < close
    for name in rule().sums:
        held, same = loop.state.tensors[name], other.state.tensors[name]
        assert held.any()
        torch.testing.assert_close(held, same, atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "noise", [DPSGD(multiplier=1.0), GaussianNoise(0.1, 1.0)], ids=["dialogues", "clients"]
)
def test_noise_is_that_of_inline_and_in_a_masked_sum_up_to_its_grid(
    noise: Privacy, nothing_left: None
) -> None:
    plain = SelfDistillation(calibration="none")
    found = []
    for executor, privacy in (
        (Inline(), [noise]),
        (Flower(), [noise]),
        (Flower(), [noise, SecureSum()]),
    ):
        loop = federation(FedAvg(), CORPUS, CLIENTS, executor=executor, privacy=privacy, loss=plain)
        try:
            reports = [loop.run_round(number) for number in range(2)]
        finally:
            executor.close()
        assert not any(report.failures for report in reports)
        found.append((weights_of(loop), [report.spent for report in reports]))
    (expected, spent), (simulated, again), (masked, same) = found
    assert same_bits(simulated, expected)
    assert spent == again == same
    torch.testing.assert_close(masked, expected, atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("rule", [FedAvg, Distance, SCAFFOLD, FedProto, FedRep, Ditto])
def test_two_rounds_and_a_resumed_third_are_those_of_inline(
    rule: type[Aggregator], nothing_left: None
) -> None:
    expected = finished(Inline(), rule())
    found = finished(Flower(), rule(), resumed=True)
    assert same_bits(found, expected)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"timeout": 0.0}, r"executor\.timeout is 0\.0; expected seconds above 0"),
        ({"timeout": float("inf")}, r"executor\.timeout is inf; expected seconds above 0"),
        ({"timeout": float("nan")}, r"executor\.timeout is nan; expected seconds above 0"),
        ({"min_nodes": -1}, r"executor\.min_nodes is -1; expected 0 or more"),
        ({"cpus": 0}, r"executor\.cpus is 0; expected 1 or more"),
        ({"gpus": -0.5}, r"executor\.gpus is -0\.5; expected 0 or more"),
        ({"gpus": float("nan")}, r"executor\.gpus is nan; expected 0 or more"),
        ({"spool_gb": -1.0}, r"executor\.spool_gb is -1\.0; expected 0 or more"),
    ],
)
def test_an_option_that_cannot_be_is_a_sentence(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Flower(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"threshold": 0.5}, r"privacy\.threshold is 0\.5; expected a number in \(0\.5, 1\]"),
        ({"threshold": 1.1}, r"privacy\.threshold is 1\.1"),
        ({"clip": 0.0}, r"privacy\.clip is 0\.0; expected a finite number above 0"),
        ({"clip": float("inf")}, r"privacy\.clip is inf"),
        ({"class_holders": 1}, r"privacy\.class_holders is 1; expected at least 2"),
        ({"class_share": 0.0}, r"privacy\.class_share is 0\.0; expected a number in \(0, 1\]"),
    ],
)
def test_a_protection_that_cannot_be_is_a_sentence(options: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        SecureSum(**options)


@pytest.mark.parametrize("executor", [Inline, Workers, Stacked])
def test_an_executor_of_one_process_hides_nothing(executor: type[Executor]) -> None:
    said = f"--privacy SecureSum hides .* and {executor.__name__} trains .* use --executor Flower"
    with pytest.raises(InputError, match=said):
        federation(FedAvg(), CORPUS, CLIENTS, executor=executor(), privacy=[SecureSum()])


@pytest.mark.parametrize("rule", [FedTGP, Local])
def test_a_rule_that_sends_no_weights_has_nothing_to_sum(rule: type[Aggregator]) -> None:
    said = f"clients of {rule.__name__} send none.*; use a rule that exchanges weights"
    with pytest.raises(InputError, match=said):
        federation(rule(), CORPUS, CLIENTS, executor=Flower(), privacy=[SecureSum()])


def test_a_federation_needs_the_command_line(tmp_path: Path) -> None:
    from fedmer.data.remote import Request

    with pytest.raises(InputError, match="which only 'fedmer fit' has; start the run with it"):
        Flower(federation=tmp_path).meet(Request("none", 0.1, 0))
    assert Flower().remote is None


def test_a_checkpoint_of_another_kind_of_run_is_scored_but_not_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(CORPUS, tmp_path / "corpus.npz")
    here = [
        *("--data.path", str(tmp_path / "corpus.npz"), "--partitioner.clients", "2"),
        *("--network.hidden", "8", "--network.heads", "2", "--runs", str(tmp_path)),
    ]
    assert main(["fit", *here, "--name", "run", "--trainer.max_epochs", "1"]) == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    saved = torch.load(path, weights_only=True)
    saved["fedmer"] |= {"remote": True, "executor": {}}
    torch.save(saved, path)
    assert main(["test", *here, "--ckpt_path", str(path)]) == 0
    capsys.readouterr()
    assert main(["fit", *here, "--ckpt_path", str(path), "--trainer.max_epochs", "2"]) == 2
    assert "clients were elsewhere than this run's" in capsys.readouterr().err


def test_without_flower_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed; pip install 'fedmer\[flower\]'"):
        Flower()


def test_a_rehearsal_tells_what_an_honest_client_sends() -> None:
    from fedmer.flower.server.rehearsal import Rehearsal
    from fedmer.messages import Broadcast
    from fedmer.weights import Layout

    for rule in (FedAvg(), Distance(), SCAFFOLD(), FedProto(), FedPer(), Ditto()):
        loop = federation(rule, CORPUS, CLIENTS)
        before = loop.trainer.weights.clone()
        received = rule.broadcast(loop.state)
        assert isinstance(received, Broadcast)
        summary_layout, update_layout = Rehearsal(loop.trainer).layouts(received)
        assert torch.equal(
            before.vectors[torch.float32], loop.trainer.weights.vectors[torch.float32]
        )
        summary, update = loop.trainer.fit(0, received)
        assert summary_layout == Layout.of(summary.tensors)
        assert update_layout == (None if update is None else Layout.of(update.weights))
