"""What can be typed wrong about heads in closed form, class by class and calibrated: a sentence."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fedmer.__main__ import main
from fedmer.client import EmotionClient
from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.losses.class_terms import logit_offsets
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.steps import LocalTraining
from tests.federations import clients_of, network_for, small_corpus


class Nameless(Network):
    """A network of somebody else, whose last layer is not called head."""

    def __init__(self, shape: CorpusShape) -> None:
        super().__init__(shape)
        self.last = nn.Linear(sum(shape.features.values()), shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        raise AssertionError("it was trained before it was refused")


NAMELESS = f"{__name__}.Nameless"
WINDOW = ["--aggregator", "Analytic", "--network", "Window"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            [*WINDOW, "--aggregator.ridge", "0"],
            "With a ridge of 0 the 108 features are linearly dependent, so that no weights are the "
            "best ones; leave aggregator.ridge out to have it chosen, or give a larger one, such "
            "as 1.",
        ),
        (
            [
                *WINDOW,
                "--aggregator.most_features",
                "999999",
                "--network.random_features",
                "200000",
            ],
            "lower aggregator.most_features, above which features are sketched, or use a narrower "
            "network.",
        ),
        (
            [*WINDOW, "--aggregator.without", "[99]"],
            "aggregator.without names client 99; expected ids from 0 to 3.",
        ),
        (
            ["--network", NAMELESS],
            "Nameless names no parameter with a row a class (class_parameters), so that its head "
            "cannot be averaged class by class; use --aggregator.heads joint.",
        ),
        (
            ["--network", NAMELESS, "--aggregator", "FedAvg", "--finish", "analytic"],
            "Nameless has no linear layer with a bias from its 'fused' embeddings to the emotions, "
            "so that there is no head in closed form; use another network, such as Window.",
        ),
        (
            ["--aggregator", "FedProto", "--finish", "analytic"],
            "FedProto keeps a personal network on every client and no global one; --start and "
            "--finish analytic need a rule that exchanges all of it.",
        ),
        (
            ["--finish", "analytic", "--trainer.max_epochs", "-1"],
            "--finish analytic is the last round, and --trainer.max_epochs leaves open which that "
            "is; give a number.",
        ),
        (["--finish", "ridge"], "finish is 'ridge'; expected null or one of ['analytic']."),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_computed(
    words: list[str],
    said: str,
    corpus_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    common = ["--data.path", str(corpus_file), "--partitioner.clients", "4"]
    assert main(["fit", *common, *words, "--runs", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert said in " ".join(error.split())
    assert "Traceback" not in error
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"calibration": "prior"}, "calibration prior"),
        ({"class_weights": "global"}, "class_weights"),
    ],
)
def test_a_calibration_without_counts_says_what_it_needs(
    options: dict[str, str], named: str
) -> None:
    """As where nobody may tell how often he has each emotion."""
    corpus = small_corpus()
    withheld = torch.zeros(corpus.shape.classes, dtype=torch.int64)

    def start(loss: SelfDistillation) -> LocalTrainer:
        client = EmotionClient(network_for(corpus, 0), loss)
        data = clients_of(corpus, Dialogue(4))
        return LocalTrainer(client, data, FedAvg(), LocalTraining(), class_counts=withheld)

    wanted = rf"--loss\.{named}.* needs how often each emotion occurs at all clients together"
    with pytest.raises(InputError, match=wanted):
        start(SelfDistillation(**options))  # type: ignore[arg-type]
    start(SelfDistillation(calibration="balanced", class_weights="local"))


@pytest.mark.parametrize("noised", [[3, -40, 0], [0, 0, 0], [10**6, 1, 1]])
def test_noised_counts_give_finite_offsets(noised: list[int]) -> None:
    """Where noise leaves less than a client's own count, that holds."""
    here = torch.tensor([5, 7, 0])
    offsets = logit_offsets("prior", 1.0, here, torch.tensor(noised))
    assert isinstance(offsets, Tensor)
    assert offsets.isfinite().all()
