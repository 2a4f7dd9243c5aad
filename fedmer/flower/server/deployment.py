"""Real nodes: a run on the server that ``fedmer deploy server`` keeps up."""

import json
import subprocess
import time
import uuid
from collections.abc import Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from flwr.app import ConfigRecord, RecordDict
from torch import Tensor

import fedmer
from fedmer.data.remote import Description, RemoteClients, Request
from fedmer.data.standardise import Moments
from fedmer.data.standardise import statistics as combine
from fedmer.errors import InputError
from fedmer.flower.deploy.activity import note_messages
from fedmer.flower.deploy.certificates import check_server
from fedmer.flower.deploy.folder import CONNECTION, Federation
from fedmer.flower.deploy.handshake import answers
from fedmer.flower.deploy.processes import flower_environment, is_in_use
from fedmer.flower.extractors import put_extractors, take_extractors, unlike
from fedmer.flower.server.mail import Mail
from fedmer.flower.server.relay import Relay, online
from fedmer.flower.server.round import say, wait_for
from fedmer.flower.wire import (
    DESCRIBE,
    MOST_EXAMPLES,
    SCORE,
    RefusedError,
    header,
    put,
    put_broadcast,
    take,
)
from fedmer.messages import Broadcast
from fedmer.printable import printable

_START = 90.0
"""Seconds that Flower may take to start our ServerApp."""
_MUSTER = 20.0
"""Seconds that a run waits for all nodes before it begins with those that are there."""
_FEATURES = 10**6
"""Dimensions beyond any modality."""
_NAMES = 1000
"""Emotions and modalities beyond any corpus."""
_LONGEST = 200
"""Characters of their names."""


class Deployment:
    """A run over the nodes of a federation.

    Args:
        folder: That ``fedmer deploy init`` made.
        seconds: How long to wait for a node's answer.

    Raises:
        InputError: The server is not running, or does not start a run.
    """

    def __init__(self, folder: Path, seconds: float) -> None:
        self.federation = Federation.read(folder)
        self.seconds = seconds
        self.run = uuid.uuid4().hex
        """Under which nodes keep what they remember; a resumed run takes over that of its
        checkpoint."""
        self._attempt = uuid.uuid4().hex
        self._begin: int | None = None
        self.names = list(self.federation.nodes)
        see_server(self.federation)
        ids = self.federation.node_ids()
        self._ids = [ids[name] for name in self.names]
        self._head: dict[str, Any] = {"version": fedmer.__version__, "seconds": seconds}
        self._statistics: dict[str, Tensor] = {}
        self.relay = Relay()
        try:
            self._start()
        except BaseException:
            self.relay.close()
            raise

    def nodes(self) -> dict[int, int]:
        """Client -> node, of those that are connected."""
        connected = set(self.relay.call(online))
        return {client: node for client, node in enumerate(self._ids) if node in connected}

    def meet(self, request: Request, least: int) -> tuple[RemoteClients, dict[int, str]]:
        """Ask every node what it has.

        Args:
            request: What is wanted.
            least: How many have to answer, at least 1.

        Returns:
            The clients, and why some are not known.

        Raises:
            InputError: Fewer answered, or they hold different kinds of data.
        """
        self._head |= {
            "standardise": request.standardise,
            "holdout": request.holdout,
            "seed": request.seed,
        }
        # All of them for a while, since who is not met has no part in the statistics.
        everybody = dict(enumerate(self.names))
        nodes = wait_for(self, everybody, len(self.names), min(_MUSTER, self.seconds))
        if len(nodes) < least:
            nodes = wait_for(self, everybody, least, self.seconds)
        known: dict[int, Description] = {}
        failures = {c: "is not connected" for c in range(len(self.names)) if c not in nodes}
        messages = {c: (node, RecordDict({"run": self._run_record()})) for c, node in nodes.items()}
        say(f"asking {len(nodes)} nodes what they have, for up to {self.seconds:.0f} s")
        mail = Mail(self.relay, messages, DESCRIBE, "0", self.seconds)
        while mail.open:
            for client, answer in mail.receive().items():
                if answer.content is None:
                    failures[client] = answer.failure
                    continue
                try:
                    known[client] = _description(self.names[client], answer.content)
                except RefusedError as error:
                    failures[client] = f"was refused: {error}"
        self.note(mail.down, mail.up)
        sentences = {c: f"{self.names[c]} {why}" for c, why in sorted(failures.items())}
        if len(known) < least:
            raise InputError(
                f"{len(known)} of {len(self.names)} nodes can take part, and at least "
                f"{least} must ({'; '.join(sentences.values())})."
            )
        _check_alike(known)
        return RemoteClients(self.names, dict(sorted(known.items()))), sentences

    def prepare(self, settings: Mapping[str, Any], clients: RemoteClients, speakers: int) -> None:
        """Settle what every message of a round says besides the broadcast."""
        first = next(iter(clients.known.values()))
        self._holding = {client for client, known in clients.known.items() if known.held}
        self._head |= {
            "settings": json.dumps(settings),
            "network": str(settings["network"]["class_path"]).rpartition(".")[2],
            "labels": list(first.labels),
            "modalities": list(first.features),
            "widths": list(first.features.values()),
            "speakers": speakers,
            "extractors": put_extractors(clients.extractors, first.features),
        }
        self._statistics = {"class_counts": _total(clients)}
        for name, statistics in combine(c.moments for c in clients.known.values()).items():
            self._statistics[f"{name}.mean"] = torch.from_numpy(statistics.mean)
            self._statistics[f"{name}.deviation"] = torch.from_numpy(statistics.deviation)

    def state_dict(self) -> dict[str, Any]:
        """What a run that goes on has to have as it was, whoever is there then."""
        return {"run": self.run, "statistics": dict(self._statistics)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.run = str(state["run"])
        self._statistics = dict(state["statistics"])

    def complete(self, client: int, content: RecordDict) -> None:
        """Add the run's settings, and the statistics to standardise by."""
        if self._begin is None:
            head: Any = content["round"]
            self._begin = int(head["round"])
        content["run"] = self._run_record()
        put(content, "statistics", self._statistics)

    def keep(self, client: int, answer: RecordDict) -> None:
        """A node keeps what it remembers."""

    def note(
        self,
        down: Mapping[int, int],
        up: Mapping[int, int],
        round: int = 0,
        finished: Collection[int] = (),
    ) -> None:
        """Add it to what ``fedmer deploy status`` shows."""
        names = self.names
        note_messages(
            self.federation.activity,
            {names[client]: count for client, count in down.items()},
            {names[client]: count for client, count in up.items()},
            round,
            {names[client] for client in finished},
        )

    def score(self, received: Broadcast, round: int) -> dict[int, list[list[int]]]:
        """Each connected node's count of truth and guess on its own holdout, where it has one."""
        messages = {}
        for client, node in self.nodes().items() if self._holding else ():
            if client not in self._holding:
                continue
            content = RecordDict({"round": header(round, client)})
            put_broadcast(content, received)
            self.complete(client, content)
            messages[client] = (node, content)
        mail = Mail(self.relay, messages, SCORE, str(round), self.seconds)
        found: dict[int, list[list[int]]] = {}
        classes = len(self._head["labels"])
        while mail.open:
            for client, answer in mail.receive().items():
                counts = _counts(answer.content, classes)
                if counts:
                    found[client] = counts
        self.note(mail.down, mail.up)
        return dict(sorted(found.items()))

    def close(self) -> None:
        """Hang up; nodes stay connected to their server."""
        self.relay.close()

    def _run_record(self) -> ConfigRecord:
        begun = {"run": self.run, "attempt": self._attempt, "begin": self._begin or 0}
        return ConfigRecord(self._head | begun)

    def _start(self) -> None:
        federation = self.federation
        words = ["flwr", "run", str(federation.app), CONNECTION, "--format", "json"]
        words += ["--run-config", f'relay="{self.relay.address}"']
        environment = flower_environment(federation.home, "127.0.0.1")
        say(f"asking the server at {federation.loopback} for a run, for up to {_START:.0f} s")
        try:
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=_START, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise InputError(_not_running(federation, "it does not answer")) from error
        if done.returncode != 0:
            lines = (done.stdout + done.stderr).strip().splitlines()
            raise InputError(_not_running(federation, " ".join(lines[-3:])[:500]))
        self.relay.wait(_START, lambda: None)


def see_server(federation: Federation) -> None:
    """See that the server answers, and wait for one that is only just starting.

    Raises:
        InputError: Nobody runs it, what answers is another, or it cannot be used.
    """
    check_server(federation.certificate, federation.key)
    registered = federation.server / "nodes.json"
    deadline = time.monotonic() + _START
    announced = False
    while not (registered.exists() and _answers(federation)):
        if not is_in_use(federation.server):
            # Another server may have the port, which then says so.
            _answers(federation)
            raise InputError(
                f"No server answers at {federation.loopback}; start 'fedmer deploy server "
                f"{federation.folder}' on this machine and leave it running."
            )
        if time.monotonic() > deadline:
            raise InputError(_not_running(federation, f"it did not answer within {_START:.0f} s"))
        if not announced:
            say(
                f"waiting up to {_START:.0f} s for the server at {federation.loopback}, which "
                "runs and does not answer yet"
            )
            announced = True
        time.sleep(0.2)


def _answers(federation: Federation) -> bool:
    return answers("127.0.0.1", federation.port, federation.authority)


def _not_running(federation: Federation, why: str) -> str:
    return (
        f"No run can be started at {federation.loopback}; see that 'fedmer deploy server "
        f"{federation.folder}' is running on this machine ({why})."
    )


def _description(name: str, content: RecordDict) -> Description:
    numbers = take(content, "numbers")
    try:
        said: Any = content.config_records["description"]
        labels = tuple(str(label) for label in said["labels"])
        widths = [int(width) for width in said["widths"]]
        features = dict(zip(map(str, said["modalities"]), widths, strict=True))
        extractors = take_extractors(said["extractors"], list(features))
        speakers, held = int(said["speakers"]), int(said["held"])
        counts = numbers["counts"]
        moments = {
            modality: Moments(
                int(numbers[f"{modality}.count"]),
                numbers[f"{modality}.total"].numpy(),
                numbers[f"{modality}.squares"].numpy(),
            )
            for modality in features
            if f"{modality}.count" in numbers
        }
    except (KeyError, ValueError, TypeError) as error:
        raise RefusedError("its description cannot be read") from error
    right = (
        counts.dtype == torch.int64
        and counts.shape == (len(labels),)
        and 0 <= int(counts.min()) <= int(counts.max()) <= MOST_EXAMPLES
        and int(counts.sum()) > 0
        and len(labels) + len(features) <= _NAMES
        and all(len(name) <= _LONGEST and printable(name) == name for name in (*labels, *features))
        and 0 < speakers < 1000
        and held >= 0
        and all(0 < width < _FEATURES for width in widths)
        and all(m.total.shape == m.squares.shape == (features[k],) for k, m in moments.items())
        and all(m.count >= 0 and (m.squares >= 0).all() for m in moments.values())
    )
    if not right:
        raise RefusedError("its description is impossible")
    return Description(name, labels, features, speakers, counts, held, moments, extractors)


def _check_alike(known: Mapping[int, Description]) -> None:
    first = next(iter(known.values()))
    for other in known.values():
        if (other.labels, dict(other.features)) != (first.labels, dict(first.features)):
            raise InputError(
                f"{first.name} has the emotions {list(first.labels)} and the features "
                f"{dict(first.features)}, but {other.name} has {list(other.labels)} and "
                f"{dict(other.features)}; all nodes need the same."
            )
    for one, other in combinations(known.values(), 2):
        odd = unlike(one.extractors, other.extractors)
        if odd is not None:
            raise InputError(
                f"{one.name} has '{odd}' made by {one.extractors[odd]}, but {other.name} by "
                f"{other.extractors[odd]}; all nodes need the same, so let one extract again."
            )


def _total(clients: RemoteClients) -> Tensor:
    return torch.stack([client.counts for client in clients.known.values()]).sum(dim=0)


def _counts(content: RecordDict | None, classes: int) -> list[list[int]]:
    """``C`` rows of ``C`` counts, or nothing if there are none or they are impossible."""
    if content is None or "confusion" not in content:
        return []
    flat: Any = content.config_records["confusion"].get("counts", [])
    if len(flat) != classes * classes or any(
        type(n) is not int or not 0 <= n <= MOST_EXAMPLES for n in flat
    ):
        return []
    return [flat[start : start + classes] for start in range(0, len(flat), classes)]
