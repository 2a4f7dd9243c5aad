"""Run folders as a finished run leaves them, made without training."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.partition import whole
from fedmer.metrics import confusion_of
from fedmer.record.votes import FILE, write_votes
from tests.federations import small_corpus

CORPUS = small_corpus()


def truth_of(corpus: ConversationCorpus = CORPUS) -> NDArray[np.int64]:
    """The labels of the test part, in the order of its dialogues."""
    labels = [corpus.conversations[i].labels for i in corpus.part("test")]
    return np.concatenate([own[own >= 0] for own in labels])


def predictions(right: float, seed: int = 0) -> NDArray[np.int64]:
    """The truth, with all but a share of it replaced by chance."""
    draw = np.random.default_rng(seed)
    truth = truth_of()
    chance = draw.integers(len(CORPUS.label_names), size=len(truth))
    return np.where(draw.random(len(truth)) < right, truth, chance)


def make_run(
    folder: Path,
    seed: int = 0,
    aggregator: str = "FedAvg",
    networks: Sequence[NDArray[np.int64]] = (),
    options: Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    votes: bool = True,
    selected: bool = True,
) -> Path:
    """Write the files that a report reads.

    Args:
        folder: Of the run.
        seed: Of the run.
        aggregator: Its name; also the split's, network's and so on are fixed.
        networks: What each network says of the test part; several make a personal rule.
        options: Hyperparameters of the rule.
        data: Replaces entries of the result's ``data``.
        votes: Are they kept?
        selected: Was a round selected by validation?
    """
    networks = networks or [predictions(0.5, seed)]
    classes, truth = len(CORPUS.label_names), truth_of()
    said = torch.from_numpy(np.concatenate(networks))
    scores = confusion_of(said, torch.from_numpy(np.tile(truth, len(networks))), classes)
    entry = {"round": 2, "scores": {"test": vars(scores)}}
    majority = confusion_of(
        torch.zeros_like(torch.from_numpy(truth)), torch.from_numpy(truth), classes
    )
    clients = max(len(networks), 2)
    result = {
        "run": folder.name,
        "command": "fedmer fit --name <b>x</b>",
        "seed": seed,
        "aggregator": aggregator,
        "personal": len(networks) > 1,
        "network": "SDT",
        "partitioner": "Speaker",
        "clients": clients,
        "data": {
            "name": "made",
            "fingerprint": "0123456789abcdef",
            "labels": list(CORPUS.label_names),
            **(data or {}),
        },
        "rounds": 2,
        "last": entry,
        "selected": entry if selected else None,
        "baselines": {"majority": vars(majority), "probe": vars(majority)},
        "holdouts": {f"client {i}": {**scores.totals, "examples": 19} for i in range(clients)},
        "bytes_down": 2000,
        "bytes_up": 1000,
        "seconds": 1.0,
    }
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result))
    config = {
        "seed_everything": seed,
        "trainer": {"max_epochs": 2, "accelerator": "auto"},
        "data": {"path": "made.npz"},
        "aggregator": {"class_path": f"x.{aggregator}", "init_args": dict(options or {})},
        "name": folder.name,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    head = "round,clients,train_loss,val_weighted_f1,test_weighted_f1,bytes_down,bytes_up,seconds\n"
    lines = [f"{r},{clients},0.5,0.4,{scores.weighted_f1},1000,500,0.5\n" for r in (1, 2)]
    (folder / "metrics.csv").write_text(head + "".join(lines))
    head = "round,client,name,examples,train_loss,weight\n"
    lines = [
        f"{r},{i},client {i},{9 + i},0.5,{1 / clients}\n" for r in (1, 2) for i in range(clients)
    ]
    (folder / "clients.csv").write_text(head + "".join(lines))
    if votes:
        counts = np.zeros((len(truth), classes), dtype=np.int32)
        for own in networks:
            counts[np.arange(len(truth)), own] += 1
        views = [whole(CORPUS.conversations[i], i) for i in CORPUS.part("test")]
        write_votes(folder / FILE, CORPUS, views, {"last": counts, "selected": counts})
    return folder
