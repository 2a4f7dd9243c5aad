"""Mechanisms: both halves on every executor, in their order, with a memory, and refused in time."""

from pathlib import Path

import pytest
import torch
import yaml

from fedmer.__main__ import main
from fedmer.client import EmotionClient
from fedmer.contracts import Privacy
from fedmer.contracts.executor import Executor
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.privacy import ClientContext, ServerContext
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Summary, Update, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.executors.auto import Auto
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy.secure_sum import SecureSum
from fedmer.plugins.selectors.all import All
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.seeds import derive
from fedmer.steps import LocalTraining
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4))


class Nothing(Privacy):
    """Neither half does anything."""


class Times(Privacy):
    """Scales what training changed on the client, and shifts the mean on the server."""

    def __init__(self, factor: float = 1.0, shift: float = 0.0) -> None:
        self.factor = factor
        self.shift = shift

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        start = context.received.weights
        assert start is not None
        assert update is not None
        scaled = {n: start[n] + self.factor * (v - start[n]) for n, v in update.weights.items()}
        return summary, Update(update.client, scaled)

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        assert mean is not None
        return {name: self.factor * (value + self.shift) for name, value in mean.items()}


class Feedback(Privacy):
    """Rounds updates, and adds what it rounded away to the client's next one; counts rounds."""

    grid = 0.01

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        assert update is not None
        random = torch.Generator().manual_seed(context.seed)
        sent = {}
        for name, value in update.weights.items():
            whole = value + context.memory.get(name, torch.zeros_like(value))
            dither = torch.rand(value.shape, generator=random)
            sent[name] = ((whole / self.grid) + dither).floor() * self.grid
            context.memory[name] = whole - sent[name]
        rounds = context.tensors.get("rounds", torch.tensor(0))
        tensors = {**summary.tensors, "feedback.rounds": rounds}
        told = Summary(summary.client, summary.examples, summary.train_loss, summary.steps, tensors)
        return told, Update(update.client, sent)

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        before = context.tensors.get("rounds", torch.tensor(0))
        assert all(torch.equal(s.tensors["feedback.rounds"], before) for s in context.summaries)
        context.tensors["rounds"] = before + 1
        return mean


class Looking(Privacy):
    """Keeps what both halves are told."""

    def __init__(self) -> None:
        self.clients: list[ClientContext] = []
        self.servers: list[ServerContext] = []

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        self.clients.append(context)
        return summary, update

    def on_server(self, mean: Weights | None, context: ServerContext) -> Weights | None:
        self.servers.append(context)
        return mean


def trained(executor: Executor, privacy: list[Privacy], rounds: int = 3):
    """Weights after some rounds of half of the clients, and all that mechanisms keep."""
    half = Uniform(0.5)
    loop = federation(FedAvg(), CORPUS, CLIENTS, half, executor=executor, privacy=privacy)
    try:
        for number in range(rounds):
            loop.run_round(number)
    finally:
        executor.close()
    kept = {
        f"{client} {place} {name}": value
        for client, memory in loop.trainer.memory.items()
        for place, named in enumerate(memory.privacy)
        for name, value in named.items()
    }
    for place, tensors in enumerate(loop.protection.tensors):
        kept |= {f"{place} {name}": value for name, value in tensors.items()}
    return weights_of(loop), kept


def test_what_does_nothing_changes_no_bit() -> None:
    plain, nothing = trained(Inline(), []), trained(Inline(), [Nothing()])
    assert same_bits(plain[0], nothing[0])
    assert nothing[1] == {}


def test_both_halves_are_called_on_what_crosses() -> None:
    plain, _ = trained(Inline(), [], rounds=1)
    start = weights_of(federation(FedAvg(), CORPUS, CLIENTS))
    halved, _ = trained(Inline(), [Times(0.5)], rounds=1)
    for name, value in plain.items():
        expected = 0.5 * (start[name] + 0.5 * (value - start[name]))
        torch.testing.assert_close(halved[name], expected, atol=1e-6, rtol=1e-5)


def test_several_run_in_the_order_of_their_list() -> None:
    one, _ = trained(Inline(), [Times(2.0), Times(1.0, shift=1.0)], rounds=1)
    other, _ = trained(Inline(), [Times(1.0, shift=1.0), Times(2.0)], rounds=1)
    for name in one:
        torch.testing.assert_close(one[name] + 1.0, other[name], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("executor", [Workers(workers=2), Auto()])
def test_it_is_the_same_wherever_clients_are_trained(executor: Executor) -> None:
    expected = trained(Inline(), [Feedback()])
    found = trained(executor, [Feedback()])
    assert same_bits(expected[0], found[0])
    assert same_bits(expected[1], found[1])
    assert int(found[1]["0 rounds"]) == 3


def test_stacked_clients_are_protected_too() -> None:
    looking = Looking()
    network, resident = EarlyFusion(CORPUS.shape, hidden=8), EarlyFusion(CORPUS.shape, hidden=8)
    client = EmotionClient(resident, SelfDistillation())
    trainer = LocalTrainer(client, CLIENTS, FedAvg(), LocalTraining(), privacy=[looking])
    FederatedLoop(network, FedAvg(), All(), Stacked(), trainer, seed=0).run_round(0)
    assert sorted(context.client for context in looking.clients) == [0, 1, 2, 3]


def test_a_run_that_goes_on_is_the_run_that_never_stopped() -> None:
    expected = trained(Inline(), [Nothing(), Feedback()])
    half = Uniform(0.5)
    first = federation(FedAvg(), CORPUS, CLIENTS, half, privacy=[Nothing(), Feedback()])
    for number in range(2):
        first.run_round(number)
    state, weights = first.state_dict(), weights_of(first)
    second = federation(FedAvg(), CORPUS, CLIENTS, half, privacy=[Nothing(), Feedback()])
    second.state.network.load_state_dict(weights)
    second.load_state_dict(state)
    second.run_round(2)
    assert same_bits(weights_of(second), expected[0])
    assert torch.equal(second.protection.tensors[1]["rounds"], expected[1]["1 rounds"])
    third = federation(FedAvg(), CORPUS, CLIENTS, half, privacy=[Feedback()])
    with pytest.raises(InputError, match="is of 2 privacy mechanisms, and this run has 1"):
        third.load_state_dict(state)


def test_the_halves_are_told_what_they_need() -> None:
    looking, twin = Looking(), Looking()
    loop = federation(FedAvg(), CORPUS, CLIENTS, Uniform(0.5), privacy=[looking, twin])
    loop.run_round(0)
    report = loop.run_round(1)
    assert [c.client for c in looking.clients[2:]] == [s.client for s in report.summaries]
    assert {c.cohort for c in looking.clients} == {2}
    assert {c.received.round for c in looking.clients[2:]} == {1}
    seeds = [c.seed for c in (*looking.clients, *twin.clients)]
    seeds += [c.seed for c in (*looking.servers, *twin.servers)]
    assert len(set(seeds)) == len(seeds) == 12
    client = looking.clients[0].client
    assert looking.clients[0].seed == derive(loop.trainer.client.seed, "privacy", 0, 0, client)
    server = looking.servers[1]
    assert (server.clients, server.cohort, server.rounds) == (4, 2, None)
    assert server.weights == report.weights
    assert list(server.summaries) == list(report.summaries)


class Second(Privacy):
    masked_sum = MaskedSum(0.6, 1.0)


class Sees(FedAvg):
    sees_updates = True


class Carrying(Inline):
    carries_masked_sums = True


@pytest.mark.parametrize(
    ("rule", "executor", "privacy", "said"),
    [
        (FedAvg(), Inline(), [SecureSum()], "SecureSum hides .* Inline trains .* Flower"),
        (FedAvg(), Auto(), [Nothing(), Second()], "Second hides .* and Auto trains"),
        (Sees(), Carrying(), [SecureSum()], "SecureSum hides .* and Sees has to see every one"),
        (FedProto(), Inline(), [Nothing()], "Nothing protects weights, and clients of FedProto"),
        (Local(), Inline(), [Nothing()], "and clients of Local send none; use a rule"),
        (FedAvg(), Carrying(), [SecureSum(), Second()], "SecureSum and Second, which both ask"),
    ],
)
def test_what_does_not_go_together_is_a_sentence(
    rule: FedAvg, executor: Executor, privacy: list[Privacy], said: str
) -> None:
    with pytest.raises(InputError, match=f"--privacy.*{said}"):
        federation(rule, CORPUS, CLIENTS, executor=executor, privacy=privacy)


def test_a_mechanism_for_summaries_goes_with_a_rule_that_sends_them_alone() -> None:
    looking = Looking()
    looking.needs_updates = False
    loop = federation(FedProto(), CORPUS, CLIENTS, privacy=[looking])
    loop.run_round(0)
    assert len(looking.clients) == 4
    assert len(looking.servers) == 1


def test_other_shapes_than_the_network_are_told() -> None:
    class Shorter(Privacy):
        def on_client(
            self, summary: Summary, update: Update | None, context: ClientContext
        ) -> tuple[Summary, Update | None]:
            assert update is not None
            return summary, Update(update.client, dict(list(update.weights.items())[1:]))

    loop = federation(FedAvg(), CORPUS, CLIENTS, privacy=[Shorter()])
    with pytest.raises(ValueError, match="1 names differ"):
        loop.run_round(0)


class TestTyped:
    """Through the command line, with a class of the working folder and one of fedmer."""

    PLUGIN = """
from fedmer.contracts import Privacy
from fedmer.errors import InputError
from fedmer.messages import Update


class Shift(Privacy):
    def __init__(self, by: float = 0.0):
        if by < 0:
            raise InputError(f"privacy.by is {by}; expected 0 or more.")
        self.by = by

    def on_client(self, summary, update, context):
        shifted = {name: value + self.by for name, value in update.weights.items()}
        return summary, Update(update.client, shifted)
"""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "shifting.py").write_text(self.PLUGIN)
        return tmp_path

    def fit(self, *words: str) -> int:
        small = ("--partitioner.clients", "2", "--network.hidden", "8", "--network.heads", "2")
        return main(["fit", *small, "--trainer.max_epochs", "1", "--aggregator", "FedAvg", *words])

    def difference(self, folder: Path, one: str, other: str) -> set[float]:
        """What every weight of one run has more than that of another."""
        one, other = (
            torch.load(folder / "runs" / name / "checkpoints" / "last.ckpt", weights_only=True)
            for name in (one, other)
        )
        return {
            round(float(d), 3)
            for name, value in one["state_dict"].items()
            if name.startswith("network.") and value.is_floating_point()
            for d in (other["state_dict"][name] - value).flatten()
        }

    def test_one_and_a_list(self, folder: Path) -> None:
        assert self.fit("--name", "plain") == 0
        one = ("--privacy", "shifting.Shift", "--privacy.by", "0.5")
        assert self.fit("--name", "one", *one) == 0
        assert self.difference(folder, "plain", "one") == {0.5}
        shift = {"class_path": "shifting.Shift", "init_args": {"by": 0.25}}
        (folder / "list.yaml").write_text(yaml.safe_dump({"privacy": [shift, shift, shift]}))
        assert self.fit("--config", "list.yaml", "--name", "list", "--trust") == 0
        assert self.difference(folder, "plain", "list") == {0.75}
        saved = yaml.safe_load((folder / "runs" / "list" / "config.yaml").read_text())
        assert [entry["init_args"]["by"] for entry in saved["privacy"]] == [0.25] * 3

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            (("--privacy", "shifting.Shift", "--privacy.by", "-1"), "privacy.by is -1.0"),
            (("--privacy", "SecureSum"), "SecureSum hides a client's update from everybody else"),
            (("--privacy", "[SecureSum, SecureSum]"), "SecureSum hides a client's update"),
            (
                ("--privacy", "[SecureSum, {class_path: SecureSum, init_args: {clip: 0}}]"),
                "clip is 0",
            ),
            (("--privacy", "SecureSums"), "unknown privacy 'SecureSums'; did you mean"),
        ],
    )
    def test_what_cannot_be_is_a_sentence(
        self, folder: Path, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        try:
            code: object = self.fit("--name", "x", *words)
        except SystemExit as end:
            code = end.code
        assert code == 2
        error = capsys.readouterr().err
        assert said in error
        assert "Traceback" not in error
        assert not (folder / "runs" / "x").exists()
