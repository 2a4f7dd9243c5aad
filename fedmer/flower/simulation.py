"""Every client a virtual node of Flower's simulation engine, on this machine or a Ray cluster."""

import copy
import functools
import json
import logging
import os
import pickle
import sys
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

from fedmer.errors import InputError
from fedmer.flower.deploy.processes import Kept
from fedmer.flower.node import client_side, masking
from fedmer.flower.records import put_failure
from fedmer.flower.server.relay import Relay, online, serve
from fedmer.local import LocalTrainer, fabric_for

_START = 180.0
"""Seconds that Ray may take to come up."""


class Simulation:
    """A Flower simulation in a process of its own, and the way to its nodes.

    Args:
        trainer: The client side; sent to Ray's workers once.
        cpus: Of each client at work.
        gpus: Of each client at work.

    Raises:
        InputError: Ray does not start.
    """

    def __init__(self, trainer: LocalTrainer, cpus: int, gpus: float) -> None:
        import ray.cloudpickle

        self.clients = len(trainer.data)
        self.trainer = trainer
        self.relay = Relay()
        folder = Path(self.relay.address).parent
        client_side = (
            # Workers may have other devices than this process, or none but the CPU.
            copy.deepcopy(trainer.client).cpu(),
            trainer.data,
            trainer.aggregator,
            trainer.training,
            trainer.privacy,
            trainer.conditions,
            ("auto" if gpus else "cpu", str(trainer.fabric.strategy.precision.precision)),
        )
        payload = folder / "clients"
        payload.write_bytes(ray.cloudpickle.dumps(client_side))  # type: ignore[no-untyped-call]
        options = {
            "address": self.relay.address,
            "payload": str(payload),
            "nodes": self.clients,
            "cpus": cpus,
            "gpus": gpus,
        }
        words = [sys.executable, "-c", _PROGRAM, json.dumps(options)]
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
        self._process = Kept(words, {**os.environ, **quiet}, folder / "log")
        try:
            self.relay.wait(_START, self._failure)
            self._nodes = self._all_nodes()
        except BaseException:
            self.close()
            raise

    def nodes(self) -> dict[int, int]:
        """Client -> the id of its node."""
        return dict(enumerate(self._nodes))

    def complete(self, client: int, content: RecordDict) -> None:
        """Add what a client remembers: its node forgets it when the run ends, and we resume."""
        remembered = client_side.to_bytes(self.trainer.recall(client))
        content["memory"] = ConfigRecord({"bytes": remembered})

    def keep(self, client: int, answer: RecordDict) -> None:
        """Take over what a client remembers."""
        memory = client_side.from_bytes(bytes(answer.config_records.pop("memory")["bytes"]))  # type: ignore[arg-type]
        self.trainer.remember(client, memory)

    def note(
        self,
        down: Mapping[int, int],
        up: Mapping[int, int],
        round: int = 0,
        finished: Collection[int] = (),
    ) -> None:
        """Virtual nodes have no operator."""

    def close(self) -> None:
        """End the simulation, and all processes of Ray that it started."""
        self.relay.close()
        self._process.stop()

    def _all_nodes(self) -> list[int]:
        """Ids of the virtual nodes, in the order of clients."""
        deadline = time.monotonic() + _START
        # Flower starts its ServerApp beside the registration of its nodes, and not after it.
        while len(nodes := self.relay.call(online)) < self.clients:
            if time.monotonic() > deadline:
                raise InputError(
                    f"Flower's simulation has {len(nodes)} of {self.clients} virtual nodes after "
                    f"{_START:.0f} s; see that the machine has memory left, and try again."
                )
            time.sleep(0.05)
        return sorted(nodes)

    def _failure(self) -> str | None:
        code = self._process.exit_code
        if code is None:
            return None
        return f"the simulation ended with code {code}:\n{self._process.last_lines()}"


_PROGRAM = "import sys; from fedmer.flower.simulation import main; main(sys.argv[1])"


def main(options: str) -> None:
    """The process of the simulation: serves the relay until it hangs up."""
    chosen = json.loads(options)
    import ray
    from flwr.simulation import run_simulation

    ray.init(include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    payload = ray.put(Path(chosen["payload"]).read_bytes())
    server = ServerApp()

    @server.main()
    def relay(grid: Grid, context: Context) -> None:
        serve(grid, chosen["address"])

    resources = {"num_cpus": chosen["cpus"], "num_gpus": chosen["gpus"]}
    run_simulation(
        server_app=server,
        client_app=client_app(payload),
        num_supernodes=chosen["nodes"],
        backend_config={"client_resources": resources},
    )


def client_app(payload: Any) -> ClientApp:
    """The ClientApp of every virtual node; ``payload`` is a Ray reference to the client side."""
    app = ClientApp()

    @app.train("fit")
    def fit(message: Message, context: Context) -> Message:
        content = message.content
        memory = client_side.from_bytes(bytes(content.config_records["memory"]["bytes"]))  # type: ignore[arg-type]
        try:
            answer, memory = client_side.fit(resident(payload), content, context.state, memory)
        except InputError as error:
            answer = RecordDict()
            put_failure(answer, str(error))
        answer["memory"] = ConfigRecord({"bytes": client_side.to_bytes(memory)})
        return Message(answer, reply_to=message)

    @app.train()
    def mask(message: Message, context: Context) -> Message:
        return masking.mask(message, context)

    return app


@functools.cache
def resident(payload: Any) -> LocalTrainer:
    """A worker's copy of the client side, made once."""
    import ray
    import torch

    torch.set_num_threads(1)
    client, data, aggregator, training, privacy, conditions, device = pickle.loads(ray.get(payload))
    return LocalTrainer(
        client,
        data,
        aggregator,
        training,
        fabric_for(*device),
        privacy=privacy,
        conditions=conditions,
    )
