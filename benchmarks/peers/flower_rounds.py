"""FedAvg by Flower's simulation engine, over the clients of ``bench_round.py``.

Run by that script in the environment that ``setup.sh`` makes. The ClientApp does the same local
epoch; Flower's own engine starts an actor a core, serialises, sends and adds up. Each actor keeps
its network and the data between messages, which is kinder than making them anew each time.
"""

import json
import os
import time
from itertools import pairwise
from typing import Any

os.environ |= {"FLWR_TELEMETRY_ENABLED": "0", "RAY_USAGE_STATS_ENABLED": "0"}

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.machine import peak
from benchmarks.peers.local_epoch import (
    answer,
    data_of,
    local_epoch,
    resident,
    row_of_the_table,
)
from benchmarks.workloads import Cohort
from fedmer.weights import load_weights


def client_app(workload: str, cohort: Cohort) -> ClientApp:
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def train(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        client, data = resident(workload), data_of(cohort)[number]
        load_weights(client.network, message.content["arrays"].to_torch_state_dict())
        round = int(message.content["config"]["server-round"]) - 1
        loss = local_epoch(client, data, number, round)
        content = RecordDict(
            {
                "arrays": ArrayRecord(client.network.state_dict()),
                "metrics": MetricRecord(
                    {"loss": loss, "memory": peak(), "num-examples": data.examples}
                ),
            }
        )
        return Message(content=content, reply_to=message)

    return app


def server_app(workload: str, cohort: Cohort, rounds: int, found: dict[str, Any]) -> ServerApp:
    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator]
    def main(grid: Grid, context: Context) -> None:
        marks: list[float] = []

        def mark(server_round: int, arrays: ArrayRecord) -> None:
            # Called before the first round and after each.
            marks.append(time.perf_counter())

        strategy = FedAvg(
            fraction_train=1.0,
            fraction_evaluate=0.0,
            min_train_nodes=cohort.clients,
            min_available_nodes=cohort.clients,
        )
        result = strategy.start(
            grid,
            ArrayRecord(resident(workload).network.state_dict()),
            num_rounds=rounds,
            train_config=ConfigRecord(),
            evaluate_fn=mark,
        )
        found["seconds"] = [end - start for start, end in pairwise(marks)]
        found["weights"] = result.arrays.to_torch_state_dict()
        found["memory"] = max(float(m["memory"]) for m in result.train_metrics_clientapp.values())

    return app


def main() -> None:
    options = row_of_the_table()
    found: dict[str, Any] = {}
    run_simulation(
        server_app=server_app(options.workload, options.cohort, options.rounds, found),
        client_app=client_app(options.workload, options.cohort),
        num_supernodes=options.cohort.clients,
        backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}},
    )
    print(json.dumps(answer(path=options.weights, **found)))


if __name__ == "__main__":
    main()
