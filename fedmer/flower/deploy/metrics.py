"""Two pages for whoever watches a server or a node: whether it is well, and numbers of Prometheus.

They say the names of nodes, and nothing of clients, data or what is trained.
"""

import json
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from http.server import ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

from fedmer.errors import InputError
from fedmer.flower.deploy.activity import Activity
from fedmer.flower.deploy.certificates import ends
from fedmer.flower.deploy.folder import split

_HERE = "127.0.0.1"
_SECONDS_TO_ASK = 10.0


class Metrics:
    """Serves ``/health`` and ``/metrics`` over HTTP while it is entered, in a thread of its own.

    ``/health`` is ``{"ok": true, "round": 3}``, with status 200, or 503 where it is not well.
    ``/metrics`` has, in Prometheus's format,

    * ``fedmer_round``, the last round that was finished;
    * ``fedmer_node_connected{node}``, 1 or 0;
    * ``fedmer_node_last_seen_seconds{node}``, in seconds since 1970, 0 for never;
    * ``fedmer_node_round{node}``, the last round that the node finished;
    * ``fedmer_bytes_total{node, direction}``, of messages down to the node and up from it;
    * ``fedmer_certificate_expiry_seconds{certificate}``, in seconds since 1970.

    Args:
        address: PORT, or HOST:PORT; without a host this machine alone reaches it.
        activity: Where the numbers are kept; see :mod:`fedmer.flower.deploy.activity`.
        nodes: Their names.
        certificates: Name -> file.
        healthy: Whether all is well.

    Raises:
        InputError: The address cannot be used, or prometheus_client is not installed.
    """

    def __init__(
        self,
        address: str,
        activity: Path,
        nodes: Collection[str],
        certificates: Mapping[str, Path],
        healthy: Callable[[], bool],
    ) -> None:
        try:
            host, port = split(address if ":" in address else f"{_HERE}:{address}")
        except ValueError as error:
            raise InputError(
                f"--metrics is '{address}'; expected a port, such as 9464, or HOST:PORT."
            ) from error
        registry = _registry(_Numbers(activity, nodes, certificates))
        self._activity = activity
        self._healthy = healthy
        try:
            self._server = ThreadingHTTPServer((host, port), _handler(registry, self._health))
        except OSError as error:
            raise InputError(
                f"--metrics {address} cannot be used ({error.strerror}); end what listens there, "
                "or name another port."
            ) from error
        self._server.daemon_threads = True

    def __enter__(self) -> "Metrics":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _health(self) -> tuple[int, bytes]:
        well = self._healthy()
        said = {"ok": well, "round": Activity.known(self._activity).round}
        return 200 if well else 503, json.dumps(said).encode() + b"\n"


class _Numbers:
    """Collects the numbers at the moment when they are asked for.

    Args:
        activity: Where they are kept.
        nodes: Their names.
        certificates: Name -> file.
    """

    def __init__(
        self, activity: Path, nodes: Collection[str], certificates: Mapping[str, Path]
    ) -> None:
        self._activity = activity
        self._nodes = nodes
        self._certificates = certificates

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        known = Activity.known(self._activity)
        yield GaugeMetricFamily(
            "fedmer_round", "The last round that was finished.", value=known.round
        )
        connected = GaugeMetricFamily(
            "fedmer_node_connected", "Whether node and server reach each other.", labels=["node"]
        )
        seen = GaugeMetricFamily(
            "fedmer_node_last_seen_seconds",
            "When node and server last heard of each other, in seconds since 1970.",
            labels=["node"],
        )
        finished = GaugeMetricFamily(
            "fedmer_node_round", "The last round that the node finished.", labels=["node"]
        )
        weighed = CounterMetricFamily(
            "fedmer_bytes",
            "Bytes of messages down to the node and up from it.",
            labels=["node", "direction"],
        )
        for name in self._nodes:
            contact = known.of(name)
            connected.add_metric([name], contact.connected)
            seen.add_metric([name], contact.seen)
            finished.add_metric([name], contact.round)
            weighed.add_metric([name, "down"], contact.down)
            weighed.add_metric([name, "up"], contact.up)
        expiry = GaugeMetricFamily(
            "fedmer_certificate_expiry_seconds",
            "When the certificate ends, in seconds since 1970.",
            labels=["certificate"],
        )
        for name, path in self._certificates.items():
            # One that is just being replaced by hand is there at the next look.
            with suppress(InputError):
                expiry.add_metric([name], ends(path).timestamp())
        yield from (connected, seen, finished, weighed, expiry)


def _registry(numbers: _Numbers) -> Any:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise InputError(
            "--metrics needs prometheus_client, which is not installed; "
            "pip install 'fedmer[flower]'."
        ) from error
    registry = CollectorRegistry(auto_describe=False)
    registry.register(numbers)
    return registry


def _handler(numbers: Any, health: Callable[[], tuple[int, bytes]]) -> Any:
    from prometheus_client import MetricsHandler

    class Handler(MetricsHandler):
        registry = numbers
        timeout = _SECONDS_TO_ASK
        server_version = "fedmer"
        sys_version = ""

        def do_GET(self) -> None:  # noqa: N802 - so that http.server finds it
            path = self.path.partition("?")[0]
            if path == "/metrics":
                super().do_GET()
            elif path == "/health":
                self._answer(*health())
            else:
                self.send_error(404)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
