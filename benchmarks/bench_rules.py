"""What a round of every aggregation rule costs beside FedAvg's: bytes, and processor time.

    python benchmarks/bench_rules.py --save

Ten clients of 48 dialogues of about ten turns, two modalities of 768 features, SDT 128 wide, one
local epoch of batches of 16, one thread, all clients in one process. Every rule trains the same
clients with its defaults, in turns with FedAvg; processor time is that of the process, so that what
others do on the machine counts little. Bytes are those of one client in the last round, when rules
send all that they have.
"""

import time
from collections.abc import Callable
from importlib import import_module

import torch

from benchmarks.machine import interleave, machine, options_parser, ratio, refuse_if_busy, save
from benchmarks.workloads import clients as make_clients
from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.data.corpus import CorpusShape
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop, RoundReport
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins import registry
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.selectors.all import All
from fedmer.steps import LocalTraining

BASE = "FedAvg"


class Rounds:
    """The rounds of one rule.

    Args:
        rule: The rule.
        clients: How many.
        hidden: Width of the network.
        width: Features of each modality.
    """

    def __init__(self, rule: type[Aggregator], clients: int, hidden: int, width: int) -> None:
        shape = CorpusShape({"text": width, "audio": width}, classes=6, speakers=2)
        data = make_clients(clients, dialogues=48, turns=10, shape=shape)
        torch.manual_seed(0)
        network, working = (SDT(shape, hidden=hidden, heads=8) for _ in range(2))
        made = rule()
        client = EmotionClient(working, SelfDistillation())
        trainer = LocalTrainer(client, data, made, LocalTraining())
        self.loop = FederatedLoop(network, made, All(), Inline(), trainer, seed=0, rounds=1000)
        self.clients = clients
        self.next = 0
        self.sent: RoundReport | None = None

    def run(self) -> float:
        """Seconds of processor time of the next round."""
        if self.loop.aggregator.finished(self.loop.state):
            self.loop.state.tensors.clear()
        began = time.process_time()
        self.sent = self.loop.run_round(self.next)
        self.next += 1
        return time.process_time() - began


def rules() -> dict[str, type[Aggregator]]:
    """fedmer's own, by name, FedAvg first."""
    found = {}
    for plugin in registry.plugins("aggregators"):
        if plugin.package == "fedmer":
            module, _, name = plugin.path.rpartition(".")
            found[name] = getattr(import_module(module), name)
    return {BASE: found.pop(BASE), **found}


def main() -> None:
    parser = options_parser(__doc__, "rules.md")
    parser.add_argument("--clients", type=int, default=10)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    refuse_if_busy(options.busy)
    torch.set_num_threads(1)
    sizes = (options.clients, options.hidden, options.width)
    made = {name: Rounds(rule, *sizes) for name, rule in rules().items()}
    ways: dict[str, Callable[[], float]] = {name: rounds.run for name, rounds in made.items()}
    seconds = interleave(ways, options.repeats)
    lines = [
        "| rule | down, a client | up, a client | processor time, of FedAvg's |",
        "|---|--:|--:|--:|",
    ]
    for name, rounds in made.items():
        assert rounds.sent is not None
        down, up = (
            f"{count / rounds.clients / 1e6:.3f} MB"
            for count in (rounds.sent.bytes_down, rounds.sent.bytes_up)
        )
        lines.append(f"| {name} | {down} | {up} | {ratio(seconds[name], seconds[BASE])} |")
    base = sorted(seconds[BASE])[len(seconds[BASE]) // 2]
    lines += ["", f"A round of {BASE} takes {base:.2f} s of processor time. {machine()}"]
    text = "\n".join(lines)
    print(text)
    if options.save:
        save("rules.md", "What a round of every rule costs", text)


if __name__ == "__main__":
    main()
