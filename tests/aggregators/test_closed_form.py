"""Rounds in closed form, first and last, with other rules between them."""

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from fedmer.__main__ import main
from fedmer.cohort_updates import CohortUpdates
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.network import Network
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.network_average import ServerOptions
from fedmer.plugins.aggregators._closed_form import ClosedForm
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from tests.federations import clients_of, federation, same_bits, weights_of

CORPUS = synthetic_corpus(seed=0, dialogues=10, features={"text": 6, "audio": 4})


def network_of(corpus: ConversationCorpus, seed: int) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EarlyFusion(corpus.shape, hidden=8, heads=2, dropout=0.0)


def start(
    rule: Aggregator, executor: Executor | None = None, server: ServerOptions | None = None
) -> FederatedLoop:
    clients = clients_of(CORPUS, Dialogue(4))
    loop = federation(
        rule, CORPUS, clients, executor=executor, network_of=network_of, server=server
    )
    loop.state.rounds = 3
    return loop


@pytest.mark.parametrize("make", [FedAvg, Distance, SCAFFOLD])
def test_the_last_round_refits_the_head_of_the_network_that_training_left(
    make: Callable[[], Aggregator],
) -> None:
    plain, both = start(make()), start(ClosedForm(make(), finish=True))
    for number in range(2):
        plain.run_round(number)
        both.run_round(number)
    assert same_bits(weights_of(plain), weights_of(both))
    last = both.run_round(2)
    assert all(summary.steps == 0 for summary in last.summaries)
    alone = start(Analytic())
    alone.state.network.load_state_dict(plain.state.network.state_dict())
    alone.run_round(0)
    assert same_bits(weights_of(alone), weights_of(both))
    changed = [n for n, v in weights_of(plain).items() if not torch.equal(v, weights_of(both)[n])]
    assert changed == ["head.weight", "head.bias"]


@pytest.mark.parametrize("make", [FedAvg, Distance, SCAFFOLD])
def test_the_first_round_is_in_closed_form_and_training_goes_on_from_it(
    make: Callable[[], Aggregator],
) -> None:
    both, alone = start(ClosedForm(make(), start=True)), start(Analytic())
    both.run_round(0)
    alone.run_round(0)
    assert same_bits(weights_of(both), weights_of(alone))
    plain = start(make())
    plain.state.network.load_state_dict(alone.state.network.state_dict())
    for number in (1, 2):
        both.run_round(number)
        plain.run_round(number)
    assert same_bits(weights_of(both), weights_of(plain))


def test_executors_agree_and_a_stack_does_what_it_can() -> None:
    found = []
    for executor in (Inline(), Workers(2), Stacked(4)):
        loop = start(ClosedForm(FedAvg(), start=True, finish=True), executor)
        try:
            for number in range(3):
                loop.run_round(number)
        finally:
            executor.close()
        found.append(weights_of(loop))
    assert same_bits(found[0], found[1])
    for name, value in found[0].items():
        torch.testing.assert_close(found[2][name], value, atol=1e-3, rtol=1e-3)


def test_a_head_in_closed_form_is_what_a_restored_run_predicts_by() -> None:
    """Distance predicts by prototypes where it is told to, and by the head after that round."""
    loop = start(ClosedForm(Distance(exchange="prototypes+parameters"), finish=True))
    for number in range(3):
        loop.run_round(number)
    saved, fresh = copy.deepcopy(loop.state_dict()), start(loop.aggregator)
    fresh.load_state_dict(saved)
    assert fresh.knowledge().tensors.keys() == loop.knowledge().tensors.keys()
    assert list(loop.knowledge().tensors) == ["closed form"]


def test_a_mean_of_networks_begins_anew_where_the_head_does() -> None:
    loop = start(ClosedForm(FedAvg(), finish=True), server=ServerOptions(average=4))
    for number in range(3):
        loop.run_round(number)
        mean, last = loop.evaluated.state_dict(), loop.state.network.state_dict()
        same = all(torch.equal(mean[name], last[name]) for name in last)
        assert same == (number != 1)


class Seeing(FedAvg):
    sees_updates = True

    def combine(
        self, updates: CohortUpdates, weights: object, state: object
    ) -> dict[str, torch.Tensor]:
        return updates.combine(lambda block: block.median(dim=0).values)


def test_what_has_no_closed_form_is_refused_in_a_sentence() -> None:
    network = network_of(CORPUS, 0)
    with pytest.raises(InputError, match=r"sums|adds up what clients send, and Seeing has to see"):
        ClosedForm(Seeing(), finish=True)
    with pytest.raises(InputError, match=r"FedProto keeps a personal network.*no global one"):
        ClosedForm(FedProto(), finish=True).check_run(["head.weight"], 3)
    with pytest.raises(InputError, match=r"max_epochs leaves open which that is"):
        ClosedForm(FedAvg(), finish=True).check_run([], None)
    network.head = nn.Identity()
    with pytest.raises(InputError, match=r"EarlyFusion has no linear layer"):
        ClosedForm(FedAvg(), start=True).check(network)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    words = ["--network", "EarlyFusion", "--network.hidden", "8", "--aggregator", "FedAvg"]
    words += ["--partitioner.clients", "4", "--trainer.max_epochs", "2", "--finish", "analytic"]
    assert main(["fit", *words, "--runs", str(runs), "--name", "run"]) == 0
    return runs / "run"


def test_the_record_has_the_scores_before_and_after(finished: Path) -> None:
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert len(rows) == 2
    before, after = (float(row["val_weighted_f1"]) for row in rows)
    assert before != after
    assert float(rows[1]["train_loss"]) == 0


def test_the_refitted_network_is_what_test_scores(
    finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = json.loads((finished / "result.json").read_text())
    config, checkpoint = finished / "config.yaml", finished / "checkpoints" / "last.ckpt"
    capsys.readouterr()
    assert main(["test", "--config", str(config), "--ckpt_path", str(checkpoint)]) == 0
    shown = capsys.readouterr().out
    assert f"{100 * result['last']['scores']['test']['weighted_f1']:.1f}" in shown
    assert result["last"]["round"] == 2


def test_the_command_line_refuses_a_rule_without_a_global_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--aggregator", "FedProto", "--finish", "analytic", "--runs", str(tmp_path)]
    assert main(["fit", *words]) == 2
    assert "FedProto keeps a personal network on every client" in capsys.readouterr().err
