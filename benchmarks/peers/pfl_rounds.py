"""FedAvg by Apple's pfl, over the clients of ``bench_round.py``.

Run by that script in the environment that ``setup.sh`` makes. One process, one thread, the network
resident and every client's batch made once, as pfl does it; its metrics on clients are off after
the first round.
"""

import functools
import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.data.sampling import get_user_sampler
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from benchmarks.machine import peak
from benchmarks.peers.local_epoch import answer, data_of, resident, row_of_the_table
from fedmer.client import EmotionClient
from fedmer.data.batch import Batch, collate
from fedmer.data.client_data import ClientData


class Conversations(Dataset):  # type: ignore[misc]
    """A client's dialogues as one batch, which counts as many data points as turns are labelled."""

    def __init__(self, data: ClientData) -> None:
        super().__init__({"batch": collate(data.train)}, user_id=data.name)
        self._examples = data.examples

    def __len__(self) -> int:
        return self._examples

    def iter(self, batch_size: int | None) -> Iterator[dict[str, Batch]]:
        yield self.raw_data


class Learner(torch.nn.Module):
    """What pfl asks of a network: a loss and metrics."""

    def __init__(self, client: EmotionClient) -> None:
        super().__init__()
        self.network = client.network
        self._client = [client.train()]

    def loss(self, batch: Batch) -> torch.Tensor:
        return self._client[0].training_step(batch, 0)

    def metrics(self, batch: Batch) -> dict[str, Any]:
        return {"loss": Weighted.from_unweighted(float(self.loss(batch).detach()))}


class Resident(PyTorchModel):  # type: ignore[misc]
    """pfl's, but for batches that are ready."""

    @staticmethod
    def _prepare_batch(batch: dict[str, Any]) -> dict[str, Any]:
        return batch


class Stopwatch(TrainingProcessCallback):  # type: ignore[misc, type-arg]
    def __init__(self) -> None:
        self.marks: list[float] = []

    def on_train_begin(self, *, model: Any) -> Metrics:
        self.marks.append(time.perf_counter())
        return Metrics()

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        self.marks.append(time.perf_counter())
        return False, Metrics()


def main() -> None:
    options = row_of_the_table()
    client, data = resident(options.workload), data_of(options.cohort)
    learner = Learner(client)
    made = [Conversations(own) for own in data]
    users = FederatedDataset(
        made.__getitem__, get_user_sampler("minimize_reuse", list(range(options.cohort.clients)))
    )
    model = Resident(
        learner,
        local_optimizer_create=functools.partial(torch.optim.Adam, weight_decay=1e-5, fused=True),
        central_optimizer=torch.optim.SGD(learner.parameters(), lr=1.0),
    )
    stopwatch = Stopwatch()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=options.rounds,
            evaluation_frequency=10**9,
            train_cohort_size=options.cohort.clients,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(users, users, [WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=3e-4, local_batch_size=None
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[stopwatch],
    )
    marks = stopwatch.marks
    seconds = [end - start for start, end in pairwise(marks)]
    print(json.dumps(answer(seconds, client.network.state_dict(), options.weights, peak())))


if __name__ == "__main__":
    main()
