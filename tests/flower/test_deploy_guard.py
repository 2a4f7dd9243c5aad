"""The guard in front of the SuperLink; test_deploy_processes.py asks a running one."""

import asyncio
from types import SimpleNamespace

import pytest

pytest.importorskip("flwr")

from fedmer.errors import InputError
from fedmer.flower.superlink import Guard, put_guard


@pytest.mark.parametrize(
    ("path", "client", "expected"),
    [
        ("/v1/fleet/pull-messages", ("10.0.0.1", 1), "passed"),
        ("/health", ("10.0.0.1", 1), "passed"),
        ("/v1/control/start-run", ("127.0.0.1", 1), "passed"),
        ("/v1/runtime/acquire-task", ("::1", 1), "passed"),
        ("/v1/control/start-run", ("10.0.0.1", 1), 403),
        ("/v1/control/start-run", ("127.0.0.2", 1), 403),
        ("/v1/control/start-run", ("::ffff:127.0.0.1", 1), 403),
        ("/v1/control/start-run", None, 403),
        ("/v1/runtime/acquire-task", ("10.0.0.1", 1), 403),
        ("/docs", ("10.0.0.1", 1), 403),
        ("/openapi.json", ("10.0.0.1", 1), 403),
        ("/v1/fleet", ("10.0.0.1", 1), 403),
        ("/v1/fleetcontrol", ("10.0.0.1", 1), 403),
        ("//v1/control/start-run", ("10.0.0.1", 1), 403),
    ],
)
def test_guard_lets_strangers_through_to_the_fleet_only(path, client, expected):
    sent: list[object] = []

    async def application(scope, receive, send):
        sent.append("passed")

    async def send(message):
        sent.append(message.get("status", "body"))

    scope = {"type": "http", "path": path, "client": client}
    asyncio.run(Guard(application)(scope, None, send))
    assert sent[0] == expected
    if path.startswith("/v1/control") and expected == 403:
        sent.clear()
        asyncio.run(Guard(application)(scope | {"type": "websocket"}, None, send))
        assert "passed" not in sent


def test_flower_that_cannot_be_guarded_is_not_started():
    def elsewhere() -> None:
        """Serves in some other way."""

    def known() -> None:
        uvicorn.run()  # noqa: F821 (only its name is looked at)

    for entry in (
        SimpleNamespace(),
        SimpleNamespace(uvicorn=SimpleNamespace(run=elsewhere)),
        SimpleNamespace(_run_superlink_http_api=known),
        SimpleNamespace(_run_superlink_http_api=elsewhere, uvicorn=SimpleNamespace(run=elsewhere)),
    ):
        with pytest.raises(InputError, match=r"in a way that fedmer cannot guard; install flwr"):
            put_guard(entry)
    served: list[dict[str, object]] = []
    library = SimpleNamespace(
        run=lambda app, **options: served.append({"app": app, **options}), Server=None
    )
    entry = SimpleNamespace(_run_superlink_http_api=known, uvicorn=library)
    put_guard(entry)
    entry.uvicorn.run(app=None, proxy_headers=True)
    assert isinstance(served[0]["app"], Guard)
    assert served[0]["proxy_headers"] is False
    assert not hasattr(entry.uvicorn, "Server")
