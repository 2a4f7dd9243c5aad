"""Whether a federation's server answers, until when, and what is wrong if it cannot be used."""

import socket
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedmer.errors import InputError

_SECONDS_TO_ANSWER = 10.0

# The numbers are those of OpenSSL's X509_V_ERR_*; the ssl module has no names for them.
_NOT_YET, _EXPIRED, _NAME, _ADDRESS = 9, 10, 62, 64


def answers(host: str, port: int, authority: Path) -> bool:
    """Whether the server answers, as :func:`served_until` says."""
    return served_until(host, port, authority) is not None


def served_until(host: str, port: int, authority: Path) -> datetime | None:
    """Shake hands with the server as a node will, and say in words what is wrong.

    Args:
        host: The name or IP address to dial, which the certificate has to hold.
        port: Where the server listens.
        authority: The certificate of the federation's authority.

    Returns:
        When the certificate ends by which it answers; None if nobody answers there yet.

    Raises:
        InputError: Somebody answers, but is not the server of this federation.
    """
    where = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{authority} is not a certificate ({error}); carry the node's folder here again."
        ) from error
    try:
        with (
            socket.create_connection((host, port), timeout=_SECONDS_TO_ANSWER) as plain,
            context.wrap_socket(plain, server_hostname=host) as secret,
        ):
            ends: Any = (secret.getpeercert() or {})["notAfter"]
            return datetime.fromtimestamp(ssl.cert_time_to_seconds(ends), UTC)
    except ssl.SSLCertVerificationError as error:
        raise InputError(_verdict(error, where, authority)) from error
    except ssl.SSLEOFError:
        # A server that is just coming up or going down hangs up like this.
        return None
    except ssl.SSLError as error:
        raise InputError(
            f"What answers at {where} does not speak TLS ({error.reason}); another program "
            "has that port, or the folder names another server."
        ) from error
    except socket.gaierror as error:
        raise InputError(
            f"The name {host} is not known here ({error.strerror}); check the network, or the "
            "address in node.json."
        ) from error
    except OSError:
        return None


def _verdict(error: ssl.SSLCertVerificationError, where: str, authority: Path) -> str:
    if error.verify_code == _EXPIRED:
        return (
            f"The certificate of the server at {where} has expired; whoever runs it renews it with "
            "'fedmer deploy renew DIR' and restarts the server (or set this clock)."
        )
    if error.verify_code == _NOT_YET:
        return (
            f"The certificate of the server at {where} does not hold yet; set the clock of "
            "this machine, or of the one where 'fedmer deploy init' ran."
        )
    if error.verify_code in (_NAME, _ADDRESS):
        return (
            f"The certificate of the server at {where} is for another host; dial the host that "
            "was given to 'fedmer deploy init --host'."
        )
    return (
        f"The server at {where} is not the one of this federation: its certificate was not "
        f"signed by {authority} ({error.verify_message}); take the folder that was made "
        "together with that server."
    )
