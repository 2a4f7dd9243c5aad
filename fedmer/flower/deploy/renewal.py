"""Another certificate for the server of a federation, by the authority that its nodes know."""

from datetime import datetime, timedelta
from pathlib import Path

from fedmer.errors import InputError
from fedmer.files import SHARED, write_atomically
from fedmer.flower.deploy.certificates import ends, renewed
from fedmer.flower.deploy.folder import Federation

ANEW = "make a new federation with 'fedmer deploy init' and carry its folders to the nodes"


def renew(found: Federation, authority_key: Path, begin: datetime, end: datetime) -> None:
    """Replace the server's certificate; its key, and all that nodes have, stay as they are.

    Args:
        found: The federation's folder.
        authority_key: The private key of its authority.
        begin: From when the new certificate holds.
        end: Until when.

    Raises:
        InputError: The key is missing or another's, a file cannot be read, or the authority ends
            earlier.
    """
    last = ends(found.authority)
    if end > last:
        most = (last - begin) // timedelta(days=1) - 1
        fewer = f"choose --days of at most {most}, or " if most > 0 else ""
        raise InputError(
            f"The last day of the authority of {found.folder} is {last:%Y-%m-%d}, before "
            f"{end:%Y-%m-%d}; {fewer}{ANEW}."
        )
    try:
        key = authority_key.read_bytes()
    except OSError as error:
        raise InputError(
            f"{authority_key} cannot be read ({error.strerror}); bring the authority's key back "
            "from where it is kept, or name it with --authority-key."
        ) from error
    try:
        old, authority = found.certificate.read_bytes(), found.authority.read_bytes()
        certificate = renewed(old, authority, key, begin, end)
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{authority_key}, {found.authority} and {found.certificate} do not belong together "
            f"({error}); restore them from where 'fedmer deploy init' wrote them."
        ) from error
    write_atomically(found.certificate, certificate, SHARED)
