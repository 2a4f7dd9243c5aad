"""Whether a node's clock is near enough to its server's for what it signs to be taken."""

import http.client
import ssl
import time
from email.utils import parsedate_to_datetime
from pathlib import Path

from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE

HEALTH = "/health"
"""Where a server says that it is there, to anybody."""
_SECONDS_TO_ANSWER = 10.0


def wrong_clock(host: str, port: int, authority: Path) -> str:
    """What is wrong with this machine's clock or the server's; empty if they agree, or nobody says.

    A node signs the time of each request, and the server refuses one that comes from the future,
    or is older than five minutes.

    Args:
        host: Of the server.
        port: Where it listens.
        authority: The certificate of the federation's authority.
    """
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(
        host, port, timeout=_SECONDS_TO_ANSWER, context=context
    )
    before = time.time()
    try:
        connection.request("GET", HEALTH)
        theirs = parsedate_to_datetime(connection.getresponse().headers["Date"]).timestamp()
    except (OSError, http.client.HTTPException, ValueError, TypeError):
        # Whether the server can be used is for others to say.
        return ""
    finally:
        connection.close()
    # The server's time is of whole seconds, at some moment between our two looks at the clock.
    ahead, behind = before - theirs - 1, theirs - time.time()
    if ahead > SYSTEM_TIME_TOLERANCE:
        return f"This machine's clock is {ahead:.0f} s ahead of the server's; set either."
    if behind > TIMESTAMP_TOLERANCE:
        return f"This machine's clock is {behind:.0f} s behind the server's; set either."
    return ""
