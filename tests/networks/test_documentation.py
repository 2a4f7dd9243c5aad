"""What docs/networks.md says of the networks is so, and its example keeps the contract."""

import dataclasses
import importlib
import re
from pathlib import Path

import pytest
import torch

from fedmer.contracts.network import Network
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.registry import plugins
from tests.networks import test_contract as contract

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
IEMOCAP = CorpusShape({"text": 1024, "audio": 1582, "visual": 342}, classes=6, speakers=2)
PATHS = {p.name: p.path for p in plugins("networks") if p.package == "fedmer"}


def rows() -> dict[str, list[str]]:
    """Name -> the other cells of the page's first table."""
    table = re.split(r"\n\n", PAGE[PAGE.index("| network | reads |") :])[0]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
    return {name.strip("`"): rest for name, *rest in cells[2:]}


def test_the_table_has_every_network_once() -> None:
    assert sorted(rows()) == sorted(PATHS)


@pytest.mark.parametrize("name", PATHS)
def test_parameters_are_counted_right(name: str) -> None:
    module, _, kind = PATHS[name].rpartition(".")
    with torch.device("meta"):
        network = getattr(importlib.import_module(module), kind)(IEMOCAP)
    assert rows()[name][-1] == f"{sum(p.numel() for p in network.parameters()):,}"


@pytest.mark.parametrize("name", PATHS)
def test_what_a_network_reads_is_told_right(name: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = contract.build(PATHS[name], contract.shape_of(modalities), hidden=16)
    batch = contract.ragged(modalities, [5])
    later_to_first = tells(network, batch, source=4, target=0)
    first_to_later = tells(network, batch, source=0, target=4)
    reads = {(False, False): "utterance", (False, True): "past", (True, True): "dialogue"}
    assert rows()[name][0] == reads[later_to_first, first_to_later]


def tells(network: Network, batch: Batch, source: int, target: int) -> bool:
    """Whether one utterance's features move another's prediction."""
    features = {name: rows.clone() for name, rows in batch.features.items()}
    for changed in features.values():
        changed[0, source] += 3
    before = contract.read(network, batch)["logits"][0, target]
    after = contract.read(network, dataclasses.replace(batch, features=features))["logits"]
    return bool((after[0, target] - before).abs().max() > 1e-6)


def test_the_example_keeps_the_contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (tmp_path / "turn_and_mood.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    path = "turn_and_mood.TurnAndMood"
    for check in (
        contract.test_a_dialogue_is_read_alike_alone_and_in_any_batch,
        contract.test_labels_are_not_looked_at,
        contract.test_rows_of_a_missing_modality_are_not_looked_at,
        contract.test_rows_that_are_there_are_looked_at,
        contract.test_what_is_missing_leaves_output_and_gradients_finite,
        contract.test_unequal_lengths_give_every_parameter_a_finite_gradient,
        contract.test_padding_moves_no_gradient,
        contract.test_the_logits_are_an_affine_function_of_the_fused_embedding,
        contract.test_one_batch_is_learnt_by_heart,
        contract.test_hyperparameters_out_of_range_are_refused_by_name,
        contract.test_weights_and_dropout_are_functions_of_the_seed,
    ):
        check(path)
