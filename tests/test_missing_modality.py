"""Missing modalities: what goes, what stays, and what they never touch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.conditions import ClientConditions
from fedmer.contracts import Condition, Partitioner
from fedmer.data.batch import Excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.missing import modalities_in, staying
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.conditions.few_examples import FewExamples
from fedmer.plugins.conditions.missing_at_test import MissingAtTest
from fedmer.plugins.conditions.missing_modality import MissingModality
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.speaker import Speaker
from tests.federations import federation

NAMES = ["text", "audio", "visual"]
CORPUS = synthetic_corpus(seed=0, dialogues=40, features={"text": 6, "audio": 4, "visual": 3})


def data_of(
    *conditions: Condition,
    seed: int = 0,
    partitioner: Partitioner | None = None,
    standardise: str = "federated",
) -> FederatedDataModule:
    data = FederatedDataModule(
        partitioner or Dialogue(6),
        conditions=list(conditions),
        holdout=0.2,
        seed=seed,
        standardise=standardise,  # type: ignore[arg-type]
    )
    data._corpus = CORPUS
    data.setup("fit")
    return data


def masks(parts: Sequence[Excerpt]) -> torch.Tensor:
    """``(N, M)``."""
    rows = [torch.stack([part.present[name] for name in NAMES], dim=1) for part in parts]
    return torch.cat(rows)


def same(one: Sequence[Excerpt], other: Sequence[Excerpt]) -> bool:
    """Are features, and what is present, the same bits?"""
    return all(
        torch.equal(a.features[name], b.features[name])
        and torch.equal(a.present[name], b.present[name])
        for a, b in zip(one, other, strict=True)
        for name in NAMES
    )


PLAIN = data_of()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**31))
def test_one_stays_and_a_higher_rate_takes_more(
    count: int, one: float, other: float, seed: int
) -> None:
    low, high = sorted((one, other))
    random = torch.Generator().manual_seed(seed)
    present = torch.rand(50, count, generator=random) < 0.7
    drawn = torch.rand(50, count, generator=random)
    few, many = staying(present, drawn, high), staying(present, drawn, low)
    assert torch.equal(few.any(dim=1), present.any(dim=1))
    assert (few <= many).all()
    assert (many <= present).all()
    assert torch.equal(staying(present, drawn, 0.0), present)
    assert (staying(present, drawn, 1.0).sum(dim=1) <= 1).all()


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("by", ["utterance", "dialogue", "client"])
def test_the_share_that_is_missing_is_the_rate(rate: float, by: str) -> None:
    found = []
    for seed in range(60 if by == "client" else 8):
        condition = MissingModality(severity=rate, by=by)  # type: ignore[arg-type]
        conditions = ClientConditions(condition, clients=6, classes=6, seed=seed)
        found += [masks(conditions.data(i, data).train) for i, data in enumerate(PLAIN.clients)]
    share = 1 - float(torch.cat(found).float().mean())
    assert abs(share - (rate - rate**3 / 3)) < (0.01 if by == "utterance" else 0.03)
    rows = torch.cat(found)
    assert rows.any(dim=1).all()


def test_masks_are_of_what_they_are_drawn_for() -> None:
    by_utterance, by_dialogue, by_client = (
        data_of(MissingModality(by=by)).clients  # type: ignore[arg-type]
        for by in ("utterance", "dialogue", "client")
    )
    for client in by_dialogue:
        assert all(len(masks([part]).unique(dim=0)) == 1 for part in client.train)
    assert any(len(masks(client.train).unique(dim=0)) > 1 for client in by_dialogue)
    assert all(len(masks(client.train).unique(dim=0)) == 1 for client in by_client)
    assert len(torch.cat([masks(client.train) for client in by_client]).unique(dim=0)) > 1
    assert all(len(masks([part]).unique(dim=0)) > 1 for part in by_utterance[0].train[:3])
    for client in by_utterance:
        for part in client.train:
            for name in NAMES:
                assert (part.features[name][~part.present[name]] == 0).all()


def test_who_shares_a_dialogue_lacks_the_same_of_it() -> None:
    data = data_of(MissingModality(), partitioner=Speaker())
    seen: dict[tuple[str, int], list[bool]] = {}
    shared = 0
    for client in data.clients:
        for part in client.train:
            for turn, row in zip(part.turns.tolist(), masks([part]).tolist(), strict=True):
                shared += (part.dialogue, turn) in seen
                assert seen.setdefault((part.dialogue, turn), row) == row
    assert shared


def test_what_is_missing_reaches_nobody_whatever_it_holds() -> None:
    condition = MissingModality(severity=0.6)
    clean = data_of(condition)
    poisoned = []
    for before, after in zip(PLAIN.clients, clean.clients, strict=True):
        train = [
            replace(one, features={
                name: rows.masked_fill(~two.present[name][:, None], float("nan"))
                for name, rows in one.features.items()
            })
            for one, two in zip(before.train, after.train, strict=True)
        ]  # fmt: skip
        poisoned.append(ClientData(before.name, train))
    again = [clean.conditions.data(i, data) for i, data in enumerate(poisoned)]
    assert all(same(a.train, b.train) for a, b in zip(again, clean.clients, strict=True))


def test_masks_are_the_same_for_every_rule_network_and_executor() -> None:
    found = []
    for rule, network, executor in (
        (FedAvg(), None, None),
        (Distance(), lambda corpus, seed: EarlyFusion(corpus.shape, hidden=8), Workers(2)),
    ):
        data = data_of(MissingModality(), MissingAtTest())
        given = {} if network is None else {"network_of": network}
        loop = federation(rule, CORPUS, data.clients, executor=executor, **given)  # type: ignore[arg-type]
        loop.run_round(0)
        if executor is not None:
            executor.close()
        found.append((loop.trainer.data, data.excerpts("test")))
    (one, test), (other, again) = found
    assert all(same(one[client].train, other[client].train) for client in one)
    assert same(test, again)
    assert not same(one[0].train, data_of(MissingModality(), seed=1).clients[0].train)


def test_a_client_lacks_a_modality_altogether_where_it_validates_too() -> None:
    data = data_of(MissingModality(0.5, 1.0, by="client", modalities=["audio"]))
    among = MissingModality(0.5).chosen(6, 0)
    for number, (before, after) in enumerate(zip(PLAIN.clients, data.clients, strict=True)):
        if number not in among:
            assert same(before.train, after.train)
            assert same(before.holdout, after.holdout)
            continue
        assert modalities_in(after.train) == modalities_in(after.holdout) == ["text", "visual"]
        for part, now in zip(before.holdout, after.holdout, strict=True):
            assert torch.equal(part.features["text"], now.features["text"])
            assert torch.equal(part.labels, now.labels)
    assert same(PLAIN.excerpts("val"), data.excerpts("val"))
    assert same(PLAIN.excerpts("test"), data.excerpts("test"))
    alone = data_of(MissingModality(severity=1.0, by="client"))
    assert all(len(modalities_in(client.train)) == 1 for client in alone.clients)


class Hostile(Condition):
    """Wants other labels and fewer features at test."""

    def on_test(self, excerpts: Sequence[Excerpt], seed: int) -> Sequence[Excerpt]:
        return [
            replace(part, labels=part.labels * 0, labelled=~part.labelled, dialogue="other")
            for part in excerpts
        ]


def test_only_the_test_part_changes_at_test_and_no_label() -> None:
    data = data_of(MissingAtTest(0.6), Hostile(1.0))
    assert data.conditions.of(0) == ["Hostile"]
    assert same(PLAIN.excerpts("val"), data.excerpts("val"))
    for before, after in zip(PLAIN.clients, data.clients, strict=True):
        assert same(before.train, after.train)
        assert same(before.holdout, after.holdout)
    test, changed = PLAIN.excerpts("test"), data.excerpts("test")
    assert not same(test, changed)
    assert masks(changed).any(dim=1).all()
    for one, other in zip(test, changed, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.equal(one.labelled, other.labelled)
        assert one.dialogue == other.dialogue
    views = data_of(MissingAtTest(0.6), partitioner=Speaker()).excerpts("test")
    for part in views:
        (first, *_) = [view for view in views if view.dialogue == part.dialogue]
        assert torch.equal(masks([part]), masks([first]))
    assert len({view.dialogue for view in views}) < len(views)


def test_conditions_combine_in_their_order() -> None:
    data = data_of(FewExamples(1.0), MissingModality(1.0), MissingAtTest())
    assert data.conditions.at_test == ["MissingAtTest"]
    assert len(data.clients[0].train) < len(PLAIN.clients[0].train)
    assert not masks(data.clients[0].train).all()


def test_the_command_line_records_shows_and_tests(
    here: Path,
    corpus_file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    listed = "[{class_path: MissingModality, init_args: {by: client}}, MissingAtTest]"
    split = ["--partitioner", "Dialogue", "--partitioner.clients", "3"]
    words = ["fit", "--data.path", str(corpus_file), *split, "--network", "EarlyFusion"]
    words += ["--network.hidden", "8", "--aggregator", "FedAvg", "--trainer.max_epochs", "1"]
    assert main([*words, "--conditions", listed, "--name", "run"]) == 0
    result = json.loads((here / "runs/run/result.json").read_text())
    assert [(one["name"], len(one["clients"]), one["test"]) for one in result["conditions"]] == [
        ("MissingModality", 3, False),
        ("MissingAtTest", 0, True),
    ]
    assert main(["data", "describe", str(corpus_file), *split, "--conditions", listed]) == 0
    told = capsys.readouterr().out
    row = next(line for line in told.splitlines() if "test" in line and "MissingAtTest" in line)
    assert int(row.split("│")[-2]) > 0
    last = ["--ckpt_path", str(here / "runs/run/checkpoints/last.ckpt")]
    config = ["test", "--config", str(here / "runs/run/config.yaml"), *last]
    tables = []
    for more in (["--conditions", "null"], ["--conditions", "MissingAtTest"]):
        capsys.readouterr()
        assert main([*config, *more]) == 0
        tables.append(capsys.readouterr().out)
    assert tables[0] != tables[1]


def test_bad_options_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"MissingModality: severity is 1.1; expected .* \[0, 1\]"):
        MissingModality(severity=1.1)
    with pytest.raises(InputError, match="MissingModality: the corpus has no modality 'smell'"):
        _ = data_of(MissingModality(modalities=["smell"])).clients
    with pytest.raises(InputError, match="MissingAtTest: the corpus has no modality 'smell'"):
        data_of(MissingAtTest(modalities=["smell"])).excerpts("test")
