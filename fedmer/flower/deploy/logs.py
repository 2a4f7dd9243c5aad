"""One form for what every process of a federation says: the time in UTC, a level, a message.

Flower's programs, uvicorn, Python's warnings and tracebacks each have a form of their own. Whatever
a process prints passes through here on its way into its log.
"""

import logging
import re
import time
from collections.abc import Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path

LARGEST = 5 * 2**20
"""Bytes of a log, after which another begins."""
KEPT = 3
"""Older logs that are kept, as ``node.log.1`` and so on."""

_FORM = "%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_LEVELLED = re.compile(
    r"(?:\d{4}-\d\d-\d\dT\S+Z\s+)?(DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\s*:?\s+"
    r"(?:\[uvicorn[\w.]*\]\s+)?(?=\S)(.*)"
)
_NOTHING = re.compile(r"(DEBUG|INFO|WARNING|ERROR)\s*:?\s*")


class _Form(logging.Formatter):
    converter = staticmethod(time.gmtime)

    def __init__(self) -> None:
        super().__init__(_FORM, "%Y-%m-%dT%H:%M:%S")


def announce(message: str, level: int = logging.INFO) -> None:
    """Print a message as a line of a log, for whoever watches a command."""
    print(_Form().format(_record(message, logging.getLevelName(level))), flush=True)


class Lines:
    """Takes apart what a process prints.

    >>> lines = Lines()
    >>> lines.read("INFO :      Starting Flower SuperNode")
    ('INFO', 'Starting Flower SuperNode')
    >>> lines.read("2026-11-26T01:01:36.967Z ERROR [uvicorn.error] It failed")
    ('ERROR', 'It failed')
    >>> lines.read("INFO :      "), lines.read("plain")
    (None, ('INFO', 'plain'))
    """

    def __init__(self) -> None:
        self._in_traceback = False

    def read(self, text: str) -> tuple[str, str] | None:
        """Level and message of a line; None if it says nothing."""
        text = _COLOUR.sub("", text).rstrip()
        if not text or _NOTHING.fullmatch(text):
            return None
        found = _LEVELLED.fullmatch(text)
        if found is not None:
            self._in_traceback = False
            return "WARNING" if found[1] == "WARN" else found[1], found[2]
        if text.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
        return "ERROR" if self._in_traceback else "INFO", text


def write_log(path: Path, lines: Iterable[bytes]) -> None:
    """Write what a process prints into its log, until it prints no more.

    A log that cannot be written, as on a full disk, stops nobody: what is printed then is lost.

    Args:
        path: The log, added to; when it is long it is renamed, and a new one begins.
        lines: What is printed.
    """
    handler = RotatingFileHandler(path, maxBytes=LARGEST, backupCount=KEPT, encoding="utf-8")
    handler.setFormatter(_Form())
    apart = Lines()
    for line in lines:
        said = apart.read(line.decode(errors="replace"))
        if said is not None:
            handler.emit(_record(said[1], said[0]))
    handler.close()


def _record(message: str, level: str) -> logging.LogRecord:
    return logging.makeLogRecord({"msg": message, "levelname": level})
