"""GaussianNoise: the bound, the noise, what it covers and refuses, and a budget that ends a run."""

import csv
import json
import math
from pathlib import Path

import pytest
import torch

from fedmer.__main__ import main
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.privacy import ClientContext, Privacy
from fedmer.contracts.selector import Selector
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_nova import FedNova
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy._changes import changes
from fedmer.plugins.privacy.clip_norm import ClipNorm
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.selectors.all import All
from fedmer.plugins.selectors.poisson import Poisson
from fedmer.plugins.selectors.top_volume import TopVolume
from fedmer.plugins.selectors.uniform import Uniform
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

pytest.importorskip("dp_accounting")
CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4))


def made(
    *privacy: Privacy,
    rule: Aggregator | None = None,
    selector: Selector | None = None,
    rounds: int | None = None,
) -> FederatedLoop:
    return federation(rule or FedAvg(), CORPUS, CLIENTS, selector, privacy=privacy, rounds=rounds)


def numbers(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([v.flatten() for v in weights.values() if v.is_floating_point()])


def moved(loop: FederatedLoop) -> torch.Tensor:
    start = numbers(weights_of(loop))
    loop.run_round(0)
    return numbers(weights_of(loop)) - start


def test_noise_on_the_mean_is_as_large_as_said() -> None:
    """Four clients alike: the multiplier times the bound, over four."""
    noisy, plain = moved(made(GaussianNoise(0.5, 2.0))), moved(made(GaussianNoise(0.5, 1e-9)))
    noise = (noisy - plain) / (2.0 * 0.5 / 4)
    assert len(noise) > 2000
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    assert abs(float(noise.mean())) < 0.1


def test_noise_on_each_client_is_as_large_as_said() -> None:
    noisy = moved(made(GaussianNoise(0.5, 2.0, where="client")))
    plain = moved(made(GaussianNoise(0.5, 1e-9, where="client")))
    noise = (noisy - plain) / (2.0 * 0.5 / math.sqrt(4))
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)


def test_without_noise_it_is_the_clipped_mean_of_clients_alike() -> None:
    sent = []

    class Looking(Privacy):
        def on_client(self, summary, update, context):  # type: ignore[no-untyped-def]
            sent.append(numbers(changes(update, context.received)))
            return summary, update

    loop = made(GaussianNoise(0.05, 1e-9), Looking())
    found = moved(loop)
    assert len(sent) == 4
    assert all(float(change.norm()) <= 0.05 * 1.001 for change in sent)
    torch.testing.assert_close(found, torch.stack(sent).mean(dim=0), atol=1e-6, rtol=1e-4)


def test_clients_say_no_numbers() -> None:
    report = made(GaussianNoise(1.0, 1.0)).run_round(0)
    assert {(s.examples, s.train_loss, s.steps) for s in report.summaries} == {(1, 0.0, 1)}
    assert set(report.weights.values()) == {0.25}
    assert math.isnan(report.train_loss)


def test_a_cohort_that_differs_in_size_is_divided_by_its_mean() -> None:
    """So that a sum is known up to its noise, and not who was there."""
    sizes = {}
    for seed in range(6):
        loop = federation(
            FedAvg(), CORPUS, CLIENTS, Poisson(0.5), privacy=[GaussianNoise(0.05, 1e-9)], seed=seed
        )
        start = numbers(weights_of(loop))
        report = loop.run_round(0)
        length = float((numbers(weights_of(loop)) - start).norm())
        sizes.setdefault(len(report.summaries), []).append(length)
        assert length <= 0.05 * len(report.summaries) / 2 * 1.001 + 1e-8
    assert len(sizes) > 1


class Nobody(Poisson):
    def select(self, round, sizes, seed):  # type: ignore[no-untyped-def]
        return [] if round == 1 else super().select(round, sizes, seed)


def test_a_round_without_clients_is_noise_alone_and_accounted() -> None:
    loop = made(GaussianNoise(0.5, 2.0), selector=Nobody(0.5))
    first = loop.run_round(0)
    start = numbers(weights_of(loop))
    report = loop.run_round(1)
    noise = numbers(weights_of(loop)) - start
    assert (report.summaries, report.bytes_up) == ([], 0)
    assert math.isnan(report.train_loss)
    assert float(noise.std()) == pytest.approx(2.0 * 0.5 / 2, rel=0.05)
    assert first.spent is not None
    assert report.spent is not None
    assert report.spent.epsilon > first.spent.epsilon
    assert loop.run_round(2).spent.epsilon > report.spent.epsilon  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", [FedAvg(), Distance(), FedProto()])
def test_without_noise_a_round_without_clients_changes_nothing(rule: Aggregator) -> None:
    loop = made(rule=rule, selector=Nobody(0.5))
    loop.run_round(0)
    before, tensors = weights_of(loop), dict(loop.state.tensors)
    report = loop.run_round(1)
    assert report.summaries == []
    assert report.spent is None
    assert same_bits(weights_of(loop), before)
    assert same_bits(loop.state.tensors, tensors)
    assert loop.run_round(2).summaries


COVERED = {"summary_norm": 1.0, "count_norm": 10.0}


@pytest.mark.parametrize(
    "rule", [FedAvg("classwise"), Distance(), FedProto()], ids=lambda rule: rule.name
)
def test_summaries_are_covered_on_the_client(rule: Aggregator) -> None:
    """Every tensor of every client differs from what it would be, and counts stay counts."""
    runs = [
        made(GaussianNoise(1.0, z, **COVERED), rule=rule).run_round(0).summaries
        for z in (1e-9, 1.0)
    ]
    tensors = len(runs[0][0].tensors)
    assert tensors
    for plain, noisy in zip(*runs, strict=True):
        assert plain.tensors.keys() == noisy.tensors.keys()
        for name, value in plain.tensors.items():
            bound = 1.0 if value.is_floating_point() else 10.0
            assert float(value.double().norm()) <= bound * 1.001 + 2
            assert not torch.equal(value, noisy.tensors[name])
            assert noisy.tensors[name].dtype == value.dtype
            if value.is_floating_point():
                noise = (noisy.tensors[name] - value) / math.sqrt(tensors)
                assert float(noise.std()) == pytest.approx(1.0, rel=0.35)
            else:
                assert (noisy.tensors[name] >= 0).all()


def test_two_kinds_of_messages_cost_twice_and_gain_nothing_from_the_draw() -> None:
    alone = made(GaussianNoise(1.0, 5.0), selector=Uniform(0.5)).run_round(0).spent
    everybody = made(GaussianNoise(1.0, 5.0 / math.sqrt(2))).run_round(0).spent
    both = (
        made(GaussianNoise(1.0, 5.0, **COVERED), rule=Distance(), selector=Uniform(0.5))
        .run_round(0)
        .spent
    )
    summaries = made(GaussianNoise(1.0, 5.0, **COVERED), rule=FedProto()).run_round(0).spent
    assert both.epsilon == pytest.approx(everybody.epsilon, rel=1e-6)
    assert summaries.epsilon == made(GaussianNoise(1.0, 5.0)).run_round(0).spent.epsilon
    assert alone is not None
    assert "the server" in alone.reach


def test_where_weights_follow_from_noise_the_largest_counts() -> None:
    """A head's row that one client holds gets all of that client's noise."""

    class Skewed(FedAvg):
        def weigh(self, summaries, state):  # type: ignore[no-untyped-def]
            return {s.client: 3.0 if s.client == 0 else 1.0 for s in summaries}

    runs = [
        moved(made(GaussianNoise(0.5, z, summary_norm=1.0), rule=Skewed())) for z in (2.0, 1e-9)
    ]
    noise = (runs[0] - runs[1]) / (2.0 * 0.5 * 0.5)
    assert float(noise.std()) == pytest.approx(1.0, rel=0.05)
    with pytest.raises(InputError, match=r"Skewed weighs clients by what they do not say"):
        made(GaussianNoise(0.5, 2.0), rule=Skewed()).run_round(0)


def test_counts_of_batches_stay_as_they_were_received() -> None:
    start = {"w": torch.zeros(3), "batches": torch.tensor(5)}
    context = ClientContext(0, Broadcast(0, start), tensors={"multiplier": torch.tensor(1.0)})
    after = {"w": torch.ones(3), "batches": torch.tensor(9)}
    _, sent = GaussianNoise(1.0, 1.0).on_client(Summary(0, 9), Update(0, after), context)
    assert sent is not None
    assert int(sent.weights["batches"]) == 5


def test_a_moving_bound_is_paid_from_the_same_noise() -> None:
    """The noise on changes grows to what leaves the count's its part."""
    fixed, moving = GaussianNoise(0.5, 0.1), GaussianNoise(0.5, 0.1, quantile=0.5, count_noise=0.06)
    runs = [moved(made(m)) - moved(made(GaussianNoise(0.5, 1e-9))) for m in (fixed, moving)]
    grown = (0.1**-2 - 0.12**-2) ** -0.5 / 0.1
    assert float(runs[1].std() / runs[0].std()) == pytest.approx(grown, rel=0.05)
    loop = made(moving)
    assert loop.run_round(0).spent == made(fixed).run_round(0).spent
    assert float(loop.protection.tensors[0]["norm"]) != 0.5
    with pytest.raises(InputError, match=r"count_noise is 0.06, too little for a multiplier of 1;"):
        made(GaussianNoise(0.5, 1.0, quantile=0.5, count_noise=0.06))


@pytest.mark.parametrize("selector", [All(), Uniform(0.5), Poisson(0.5)])
def test_a_target_is_kept_and_used_up(selector: Selector) -> None:
    loop = made(GaussianNoise(1.0, target_epsilon=3.0), selector=selector, rounds=4)
    epsilons = []
    for number in range(4):
        assert not loop.finished
        epsilons.append(loop.run_round(number).spent.epsilon)  # type: ignore[union-attr]
    assert epsilons == sorted(epsilons)
    assert 2.97 < epsilons[-1] <= 3.0
    assert loop.finished
    with pytest.raises(InputError, match=r"target_epsilon is 3, and one more round than the 4 so"):
        loop.run_round(4)


def test_a_resumed_run_goes_on_with_what_was_spent() -> None:
    """With the noise that it had, though more rounds are planned now; so it ends where it must."""
    noise = GaussianNoise(1.0, target_epsilon=3.0)
    first = made(noise, rounds=3)
    for number in range(2):
        first.run_round(number)
    second = made(noise, rounds=10)
    second.state.network.load_state_dict(weights_of(first))
    second.load_state_dict(first.state_dict())
    assert second.protection.spent == first.protection.spent
    first.run_round(2)
    second.run_round(2)
    assert same_bits(weights_of(first), weights_of(second))
    assert second.finished
    assert second.protection.spent == first.protection.spent


def test_rounds_without_noise_are_no_start_for_a_promise() -> None:
    for privacy in ([], [ClipNorm(1.0)]):
        plain = made(*privacy)
        plain.run_round(0)
        with pytest.raises(InputError, match="rounds without the noise that --privacy promises"):
            made(GaussianNoise(1.0, 1.0)).load_state_dict(plain.state_dict())


class Sees(FedAvg):
    sees_updates = True


@pytest.mark.parametrize(
    ("rule", "words", "selector", "said"),
    [
        (FedNova(), {}, All(), "FedNova has to know the steps of each client, which no noise"),
        (SCAFFOLD(), {}, All(), "SCAFFOLD has to know the sizes of each client"),
        (Analytic(), {}, All(), "Analytic has to know the sizes"),
        (FedAvg("classwise"), {}, All(), "FedAvg send their class counts, .* --privacy.count_norm"),
        (Distance(), {"count_norm": 1.0}, All(), "their prototypes, .* --privacy.summary_norm"),
        (Distance(), {"summary_norm": 1.0}, All(), "prototype counts, .* --privacy.count_norm"),
        (FedProto(), {}, All(), "protects weights, and clients of FedProto send none"),
        (Local(), {}, All(), "clients of Local send none"),
        (Sees(), {}, All(), "joins updates one by one, .* --privacy.where client"),
        (FedProx(), {}, TopVolume(), "who takes part would tell what clients hold; use --selector"),
        (FedAvg(), {"delta": 0.3}, All(), "would let one of 4 clients be published; .* than 0.25"),
    ],
)
def test_what_nobody_covers_is_refused(
    rule: Aggregator, words: dict[str, float], selector: Selector, said: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){said}"):
        made(GaussianNoise(1.0, 1.0, **words), rule=rule, selector=selector)


def test_what_a_rule_sends_without_saying_so_is_refused_too() -> None:
    class Silent(FedAvg):
        def summarize(self, context, batches):  # type: ignore[no-untyped-def]
            return {"secret": torch.ones(3)}

    with pytest.raises(InputError, match="Clients send 'secret', which no noise covers; give --p"):
        made(GaussianNoise(1.0, 1.0), rule=Silent()).run_round(0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({}, "give privacy.target_epsilon, or privacy.multiplier"),
        ({"target_epsilon": 0}, "privacy.target_epsilon is 0; expected a finite number above 0"),
        ({"multiplier": 0}, "privacy.multiplier is 0; expected"),
        ({"multiplier": 1, "delta": 1}, "privacy.delta is 1; expected a number above 0 and below"),
        ({"multiplier": 1, "delta": 0}, "privacy.delta is 0; expected"),
        ({"multiplier": 1, "count_norm": 0}, "privacy.count_norm is 0; expected"),
        ({"multiplier": 1, "where": "client", "quantile": 0.5}, "privacy.quantile needs a server"),
    ],
)
def test_what_cannot_be_is_a_sentence(words: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GaussianNoise(1.0, **words)


def test_a_target_needs_to_know_the_rounds() -> None:
    with pytest.raises(InputError, match=r"nobody knows how many there are; use --trainer.max_ep"):
        made(GaussianNoise(1.0, target_epsilon=1.0))


def test_a_budget_that_one_round_would_pass_is_a_sentence() -> None:
    loop = made(GaussianNoise(1.0, multiplier=0.1, target_epsilon=1.0))
    with pytest.raises(InputError, match=r"target_epsilon is 1, and one more round than the 0 so"):
        loop.run_round(0)


class TestTyped:
    """Through the command line: the record, the table, the card, and a resume."""

    DATA = ("--partitioner.clients", "4", "--network.hidden", "8", "--network.heads", "2")
    OPEN = ("--data.standardise", "local", "--data.holdout", "0", "--loss.calibration", "none")
    NOISE = ("--privacy", "GaussianNoise", "--privacy.target_epsilon", "9")

    def fit(self, *words: str) -> int:
        rule = ("--aggregator", "FedAvg", "--selector", "Poisson")
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
        assert "Differential privacy: epsilon 9 at delta 1e-05, for each client as a whole" in said
        assert "round 2/2 epsilon 9" in said
        rows = list(csv.DictReader((tmp_path / "runs/x/metrics.csv").open()))
        epsilons = [float(row["epsilon"]) for row in rows]
        assert 0 < epsilons[0] < epsilons[1] <= 9
        assert [row["train_loss"] for row in rows] == ["", ""]
        promised = json.loads((tmp_path / "runs/x/result.json").read_text())["privacy"]
        assert promised["epsilon"] == epsilons[-1]
        card = (tmp_path / "runs/x/model/README.md").read_text()
        assert "| differential privacy | epsilon 9 at delta 1e-05, for each client" in card
        # More rounds than the noise was made for are not begun.
        run = tmp_path / "runs/x"
        again = ("--config", f"{run}/config.yaml", "--ckpt_path", f"{run}/checkpoints/last.ckpt")
        main(["fit", *again, "--trainer.max_epochs", "5"])
        assert len(list(csv.DictReader((run / "metrics.csv").open()))) == 2
        assert main(["report", str(run), "--out", "page"]) == 0
        assert (tmp_path / "page/privacy.csv").read_text().splitlines()[1].startswith("FedAvg,")
        assert "9" in (tmp_path / "page/privacy.md").read_text()

    def test_what_crosses_besides_is_a_sentence(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert self.fit("--trainer.max_epochs", "2") == 2
        error = " ".join(capsys.readouterr().err.split())
        assert "would cross besides; use --data.standardise local --loss.calibration none" in error
        assert "--data.holdout 0." in error
        assert "Traceback" not in error
