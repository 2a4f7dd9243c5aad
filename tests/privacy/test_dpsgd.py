"""DPSGD: what is accounted, what a run says of it, and what is refused."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.privacy import ClientContext, LocalSteps, Plan, Privacy
from fedmer.contracts.selector import Sampling, Selector
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_nova import FedNova
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.aggregators.median import Median
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.auto import Auto
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy.clip_norm import ClipNorm
from fedmer.plugins.privacy.compression import Compression
from fedmer.plugins.privacy.dpsgd import DPSGD, TOLD
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.selectors.all import All
from fedmer.plugins.selectors.top_volume import TopVolume
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.seeds import derive
from fedmer.steps import LocalTraining
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of
from tests.privacy.test_accounting import exact, renyi

pytest.importorskip("dp_accounting")
CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4), standardise="none")
PLAIN = SelfDistillation(calibration="none")
DELTA = 1e-5


def made(
    *privacy: Privacy,
    rule: Aggregator | None = None,
    selector: Selector | None = None,
    executor: Executor | None = None,
    rounds: int | None = None,
    loss: SelfDistillation = PLAIN,
    training: LocalTraining | None = None,
) -> FederatedLoop:
    return federation(
        rule or FedAvg(),
        CORPUS,
        CLIENTS,
        selector,
        training or LocalTraining(epochs=2, batch_size=2),
        loss=loss,
        executor=executor,
        privacy=privacy,
        rounds=rounds,
    )


def told(mechanism: DPSGD, steps: LocalSteps, rounds: int, planned: int | None = None) -> float:
    """What a client says that it has spent after some rounds of such steps."""
    context = ClientContext(0, Broadcast(0, {"w": torch.zeros(1)}), rounds=planned)
    sent = Summary(0, 9)
    for _ in range(rounds):
        mechanism.on_steps(steps, context)
        summary = Summary(0, 9, 1.0, steps.count)
        sent, _ = mechanism.on_client(summary, Update(0, {"w": torch.ones(1)}), context)
    return float(sent.tensors[TOLD][0])


@settings(max_examples=20, deadline=None)
@given(multiplier=st.floats(2, 50), count=st.integers(1, 20), rounds=st.integers(1, 5))
def test_all_dialogues_in_every_step_are_one_gaussian(
    multiplier: float, count: int, rounds: int
) -> None:
    """Never below what holds exactly, and as near as Renyi divergences come."""
    found = told(DPSGD(multiplier=multiplier), LocalSteps(7, 7, count), rounds)
    assert found >= exact(multiplier / math.sqrt(count * rounds), DELTA) - 1e-6
    least = renyi(multiplier, count * rounds, DELTA)
    assert least - 1e-3 <= found <= 1.05 * least + 0.02


@pytest.mark.parametrize(("dialogues", "batch", "count"), [(40, 4, 10), (17, 16, 4)])
def test_drawn_dialogues_are_the_event_of_dp_accounting(
    dialogues: int, batch: int, count: int
) -> None:
    import dp_accounting
    from dp_accounting.rdp import RdpAccountant

    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(batch / dialogues, dp_accounting.GaussianDpEvent(1.3)),
        3 * count,
    )
    expected = RdpAccountant().compose(event).get_epsilon(DELTA)
    found = told(DPSGD(multiplier=1.3), LocalSteps(dialogues, batch, count), 3)
    assert found == pytest.approx(expected, rel=1e-6)


def test_opacus_says_the_same() -> None:
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
    other = accountants.RDPAccountant()
    for _ in range(30):
        other.step(noise_multiplier=1.3, sample_rate=0.1)
    found = told(DPSGD(multiplier=1.3), LocalSteps(40, 4, 10), 3)
    assert found == pytest.approx(other.get_epsilon(DELTA), rel=0.02)


@pytest.mark.parametrize("steps", [LocalSteps(5, 5, 2), LocalSteps(40, 4, 10)])
def test_each_client_takes_the_noise_that_spends_its_target(steps: LocalSteps) -> None:
    mechanism = DPSGD(target_epsilon=4.0)
    assert 3.9 < told(mechanism, steps, 6, planned=6) <= 4.0
    with pytest.raises(
        InputError, match=r"target_epsilon is 4, and \d+ more steps would pass it f"
    ):
        told(mechanism, steps, 7, planned=6)


def test_epsilon_is_that_of_the_client_that_spent_most() -> None:
    """It takes part in more rounds, so that the others come after it."""
    loop = made(DPSGD(multiplier=2.0), selector=Uniform(0.5))
    rounds: dict[int, int] = {}
    epsilons = []
    for number in range(4):
        report = loop.run_round(number)
        for summary in report.summaries:
            rounds[summary.client] = rounds.get(summary.client, 0) + 1
        assert report.spent is not None
        epsilons.append(report.spent.epsilon)
    assert {len(client.train) for client in CLIENTS} == {4}
    each = LocalSteps(4, 2, 2 * 2)
    assert epsilons[-1] == told(DPSGD(multiplier=2.0), each, max(rounds.values()))
    assert epsilons == sorted(epsilons)


def test_clients_say_no_numbers_but_what_they_spent() -> None:
    report = made(DPSGD(multiplier=1.0)).run_round(0)
    assert {(s.examples, s.train_loss, s.steps) for s in report.summaries} == {(1, 0.0, 1)}
    assert all(set(s.tensors) == {TOLD} for s in report.summaries)
    assert set(report.weights.values()) == {0.25}
    assert math.isnan(report.train_loss)
    assert report.spent is not None
    assert "for each dialogue of each client, towards everybody" in str(report.spent)


@pytest.mark.parametrize("rule", [FedAvg, FedProx, Median])
def test_workers_give_the_bits_of_inline(rule: type[Aggregator]) -> None:
    found = []
    for executor in (Inline(), Workers(2)):
        loop = made(DPSGD(target_epsilon=8.0), rule=rule(), executor=executor, rounds=3)
        try:
            spent = [loop.run_round(number).spent for number in range(2)]
        finally:
            executor.close()
        found.append((weights_of(loop), spent))
    assert same_bits(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


def test_a_run_ends_before_it_passes_its_budget() -> None:
    loop = made(DPSGD(target_epsilon=3.0), rounds=3)
    for number in range(3):
        assert not loop.finished
        spent = loop.run_round(number).spent
    assert spent is not None
    assert 2.9 < spent.epsilon <= 3.0
    assert loop.finished
    with pytest.raises(InputError, match=r"target_epsilon is 3, and one more round would pass it"):
        loop.run_round(3)


def test_a_resumed_run_goes_on_with_what_was_spent() -> None:
    """With the noise that it had, though more rounds are planned now; so it ends where it must."""
    noise = DPSGD(target_epsilon=3.0)
    first = made(noise, rounds=3)
    for number in range(2):
        first.run_round(number)
    second = made(noise, rounds=10)
    second.state.network.load_state_dict(weights_of(first))
    second.load_state_dict(first.state_dict())
    second.trainer.load_state_dict(first.trainer.state_dict())
    assert second.protection.spent == first.protection.spent
    first.run_round(2)
    second.run_round(2)
    assert same_bits(weights_of(first), weights_of(second))
    assert second.finished
    assert second.protection.spent == first.protection.spent


def test_rounds_without_noise_are_no_start_for_a_promise() -> None:
    plain = made(ClipNorm(1.0))
    plain.run_round(0)
    with pytest.raises(InputError, match="rounds without the noise that --privacy promises"):
        made(DPSGD(multiplier=1.0)).load_state_dict(plain.state_dict())


def test_compression_may_follow() -> None:
    report = made(DPSGD(multiplier=1.0), Compression("int8")).run_round(0)
    assert report.spent is not None
    assert report.spent.epsilon > 0
    assert report.bytes_up < made(DPSGD(multiplier=1.0)).run_round(0).bytes_up


@pytest.mark.parametrize(
    ("rule", "selector", "said"),
    [
        (FedNova(), All(), "FedNova has to know the steps of each client, which no noise"),
        (SCAFFOLD(), All(), "SCAFFOLD has to know the sizes of each client"),
        (FedAvg("classwise"), All(), "FedAvg has to know the class counts of each client"),
        (Distance(), All(), "Distance changes what a client minimises; use a rule such as FedAvg"),
        (FedProto(), All(), "protects weights, and clients of FedProto send none|FedProto"),
        (Local(), All(), "clients of Local send none"),
        (FedAvg(), TopVolume(), "who takes part would tell what clients hold; use --selector"),
    ],
)
def test_what_nobody_covers_is_refused(rule: Aggregator, selector: Selector, said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(DPSGD(multiplier=1.0), rule=rule, selector=selector)


def test_what_a_rule_sends_without_saying_so_is_refused_too() -> None:
    class Silent(FedAvg):
        def summarize(self, context, batches):  # type: ignore[no-untyped-def]
            return {"secret": torch.ones(3)}

    class Attaches(FedAvg):
        def attach(self, context, batches):  # type: ignore[no-untyped-def]
            return {"hidden": torch.ones(3)}

    for rule, name in ((Silent(), "secret"), (Attaches(), "hidden")):
        with pytest.raises(InputError, match=f"clients send '{name}', which no noise covers; use"):
            made(DPSGD(multiplier=1.0), rule=rule).run_round(0)


class Minimises(FedAvg):
    def client_loss(self, supervised, output, batch, context):  # type: ignore[no-untyped-def]
        return supervised * len(batch.context)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"rule": Minimises()}, "by itself, but Minimises changes what a client minimises; use"),
        ({"loss": SelfDistillation()}, "by their counts in all dialogues; use --loss.calibration"),
        (
            {"loss": SelfDistillation(calibration="none", class_weights="local")},
            "by their counts in all dialogues",
        ),
        ({"executor": Stacked()}, "Stacked cannot be used: DPSGD takes each dialogue's gradient"),
    ],
)
def test_what_mixes_dialogues_is_refused(words: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        made(DPSGD(multiplier=1.0), **words)  # type: ignore[arg-type]


def test_auto_does_without_stacks() -> None:
    def network(corpus, seed):  # type: ignore[no-untyped-def]
        torch.manual_seed(derive(seed, "weights"))
        return EarlyFusion(corpus.shape, hidden=8)

    executor = Auto()
    federation(
        FedAvg(), CORPUS, CLIENTS, executor=executor, loss=PLAIN, network_of=network,
        privacy=[DPSGD(multiplier=1.0)],
    )  # fmt: skip
    assert "Stacked" not in {type(one).__name__ for one in executor.candidates}
    executor.close()


def test_statistics_of_all_dialogues_are_refused() -> None:
    drawn = Sampling("all", 4, 4)
    for mode in ("local", "federated"):
        with pytest.raises(
            InputError, match=r"changes how the others are learnt from; use --data.s"
        ):
            DPSGD(multiplier=1.0).check(Plan(FedAvg(), 4, True, drawn, standardise=mode))
    besides = {"the scores of clients' holdouts": "--data.holdout 0"}
    with pytest.raises(InputError, match=r"would cross besides; use --data.holdout 0"):
        DPSGD(multiplier=1.0).check(Plan(FedAvg(), 4, True, drawn, besides=besides))


def test_two_promises_are_refused() -> None:
    with pytest.raises(InputError, match="names DPSGD and GaussianNoise, which both promise diff"):
        made(DPSGD(multiplier=1.0), GaussianNoise(1.0, 1.0))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "give one of privacy.target_epsilon and privacy.multiplier"),
        ({"multiplier": 1, "target_epsilon": 1}, "give one of privacy.target_epsilon"),
        ({"target_epsilon": 0}, "privacy.target_epsilon is 0; expected a finite number above 0"),
        ({"multiplier": 0}, "privacy.multiplier is 0; expected"),
        ({"multiplier": 1, "norm": 0}, "privacy.norm is 0; expected"),
        ({"multiplier": 1, "delta": 1}, "privacy.delta is 1; expected a number above 0 and below"),
        ({"multiplier": 1, "delta": 0}, "privacy.delta is 0; expected"),
    ],
)
def test_what_cannot_be_is_a_sentence(words: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        DPSGD(**words)


def test_a_delta_that_publishes_a_dialogue_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"delta is 0.3, which would let one of 4 dialogues be pub"
    ):
        made(DPSGD(multiplier=1.0, delta=0.3)).run_round(0)


def test_a_target_needs_to_know_the_rounds() -> None:
    with pytest.raises(InputError, match=r"nobody knows how many there are; use --trainer.max_ep"):
        made(DPSGD(target_epsilon=1.0))


class TestTyped:
    """Through the command line: the record, the table, the card, and a resume."""

    DATA = ("--partitioner", "Dialogue", "--partitioner.clients", "4", "--network.hidden", "8")
    OPEN = ("--data.standardise", "none", "--data.holdout", "0", "--loss.calibration", "none")
    NOISE = ("--privacy", "DPSGD", "--privacy.target_epsilon", "9")

    def fit(self, *words: str) -> int:
        rule = ("--aggregator", "FedAvg", "--network.heads", "2", "--local.batch_size", "4")
        try:
            return main(["fit", "--name", "x", *self.DATA, *rule, *self.NOISE, *words])
        except SystemExit as end:
            return int(end.code or 0)

    def test_epsilon_is_told_everywhere_and_ends_the_run(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.fit(*self.OPEN, "--trainer.max_epochs", "2") == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "at delta 1e-05, for each dialogue of each client, towards everybody" in said
        rows = list(csv.DictReader((tmp_path / "runs/x/metrics.csv").open()))
        epsilons = [float(row["epsilon"]) for row in rows]
        assert 0 < epsilons[0] < epsilons[1] <= 9
        assert epsilons[1] > 8.8
        assert [row["train_loss"] for row in rows] == ["", ""]
        promised = json.loads((tmp_path / "runs/x/result.json").read_text())["privacy"]
        assert promised["epsilon"] == epsilons[-1]
        card = (tmp_path / "runs/x/model/README.md").read_text()
        assert "at delta 1e-05, for each dialogue of each client" in card
        # More rounds than the noise was made for are not begun.
        run = tmp_path / "runs/x"
        again = ("--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt")
        main(["fit", *again, "--trainer.max_epochs", "5"])
        assert len(list(csv.DictReader((run / "metrics.csv").open()))) == 2
        assert main(["report", str(run), "--out", "page"]) == 0
        assert "for each dialogue" in (tmp_path / "page/privacy.md").read_text()

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ((), "use --loss.calibration none --loss.class_weights none."),
            (("--loss.calibration", "none"), "use --data.standardise none."),
        ],
    )
    def test_what_mixes_dialogues_is_a_sentence(
        self,
        given: tuple[str, ...],
        said: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.fit("--trainer.max_epochs", "2", *given) == 2
        error = " ".join(capsys.readouterr().err.split())
        assert said in error
        assert "Traceback" not in error
