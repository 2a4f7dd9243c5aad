"""What a run shows while it goes and after its last round."""

import dataclasses
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.data.corpus import ConversationCorpus
from fedmer.datamodule import FederatedDataModule
from fedmer.plugins.partitioners.session import Session
from fedmer.record.holdouts import FEWEST
from fedmer.record.rows import read_rows
from fedmer.record.tables import _clients_line
from tests.federations import small_corpus


def test_a_line_shows_this_rounds_score_and_the_end_says_what_it_does(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(
        [
            *("fit", "--data.path", str(corpus_file), "--name", "run", "--partitioner", "Central"),
            *("--network", "EarlyFusion", "--network.hidden", "8", "--aggregator", "FedAvg"),
            *("--trainer.max_epochs", "5", "--trainer.check_val_every_n_epoch", "2"),
            *("--local.batch_size", "64", "--data.holdout", "0.2"),
        ]
    )
    assert code == 0
    told = capsys.readouterr().out
    shown = re.findall(r"^round (\d)/5 .* val wF1 (\S+) ", told, re.MULTILINE)
    assert [number for number, _ in shown] == ["1", "2", "3", "4", "5"]
    for (_, score), row in zip(shown, read_rows(here / "runs/run/metrics.csv"), strict=True):
        recorded = row["val_weighted_f1"]
        assert score == (f"{100 * float(recorded):.1f}" if recorded else "-")
    assert [score == "-" for _, score in shown] == [True, False, True, False, True]
    works = re.findall(r"^after the last round: (.*)$", told, re.MULTILINE)
    assert ["holdout" in works[0], "probe" in works[1], "plots" in works[2]] == [True] * 3


def line(turns: Sequence[int]) -> str:
    found = {f"c{i}": {"weighted_f1": i / 10, "examples": n} for i, n in enumerate(turns)}
    return _clients_line({"holdouts": found})


def test_a_worst_holdout_says_its_turns_and_small_ones_are_left_out() -> None:
    few, many = FEWEST - 1, FEWEST
    assert "worst 0.0 (c0, 300 utterances), spread 5.0 (sd)" in line([300, many])
    assert "leave" not in line([300, many])
    mixed = line([few, 23, many, few])
    assert "4 clients, wF1: mean 15.0, worst 10.0 (c1, 23 utterances), spread 5.0 (sd)" in mixed
    assert mixed.endswith(f"leave out 2 holdouts of fewer than {FEWEST} utterances")
    assert line([few]).endswith("too few for a worst and a spread")


def relabelled(corpus: ConversationCorpus, keep: Sequence[int]) -> ConversationCorpus:
    """Training utterances have the kept labels only; the others have the first of them."""
    conversations = list(corpus.conversations)
    for i in corpus.part("train"):
        labels = conversations[i].labels
        conversations[i] = dataclasses.replace(
            conversations[i], labels=np.where(np.isin(labels, keep), labels, keep[0])
        )
    return dataclasses.replace(corpus, conversations=tuple(conversations))


@pytest.mark.parametrize(
    ("keep", "sentence"),
    [
        ([2], "every labelled utterance to learn from is '{2}'"),
        ([0, 1, 3, 4, 5], "no client has an utterance of {2} to learn from"),
        ([0, 1, 2, 3, 4, 5], None),
    ],
)
def test_classes_that_nobody_can_learn_are_told_before_training(
    keep: list[int], sentence: str | None
) -> None:
    corpus = small_corpus()
    data = FederatedDataModule(Session())
    data._corpus = relabelled(corpus, keep)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
    told = [str(one.message) for one in caught if "to learn" in str(one.message)]
    assert len(told) == (sentence is not None)
    if sentence is not None:
        assert sentence.replace("{2}", corpus.label_names[2]) in told[0]
