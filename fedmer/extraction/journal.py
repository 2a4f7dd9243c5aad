"""Rows of features on disk as they are made, so that a stopped extraction goes on."""

import hashlib
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats.tables.utterance import Utterance
from fedmer.errors import InputError
from fedmer.files import explained


def key(utterance: Utterance, reads: str) -> str:
    """32 hexadecimal digits of all that the features of an utterance depend on.

    A recording counts by its path, size and time of change.

    Args:
        utterance: The row.
        reads: What the extractor reads: ``text``, ``audio`` or ``video``.
    """
    parts: list[object] = [reads]
    if reads == "text":
        parts.append(utterance.text.strip())
    else:
        path = utterance.video if reads == "video" else utterance.audio or utterance.video
        try:
            found = path.stat() if path is not None else None
        except OSError:
            found = None
        parts += [str(path), utterance.start, utterance.end]
        parts += [found.st_size, found.st_mtime_ns] if found is not None else []
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


class Journal:
    """The rows of one modality, in two files that only grow.

    ``NAME.rows`` holds vectors one after the other; each line of ``NAME.jsonl`` says whose vector
    is the next one, and its checksum. A vector is written before its line, so that what a killed
    process leaves is whole up to the last line that fits; the rest is made again.

    Args:
        folder: Where the files are.
        modality: Their name.
        record: The extractor; rows that another one made are thrown away.

    Raises:
        InputError: The files cannot be read or written.
    """

    def __init__(self, folder: Path, modality: str, record: ExtractorRecord) -> None:
        self._rows = folder / f"{modality}.rows"
        self._lines = folder / f"{modality}.jsonl"
        self.places: dict[str, int] = {}
        """Key of an utterance -> place of its vector."""
        self.width = 0
        with explained(self._lines):
            whole = self._read(record.to_json()) if self._lines.exists() else 0
            if not whole:
                self._lines.write_text(json.dumps({"extractor": record.to_json()}) + "\n")
                whole = self._lines.stat().st_size
                self._rows.write_bytes(b"")
            self._line_file: IO[bytes] = self._lines.open("r+b")
            self._row_file: IO[bytes] = self._rows.open("r+b")
            self._line_file.truncate(whole)
            self._line_file.seek(whole)
            self._row_file.truncate(4 * self.width * len(self.places))
            self._row_file.seek(0, 2)

    def add(self, key: str, row: NDArray[np.float32]) -> None:
        """Keep a vector, unless there is one of this key, as of an utterance that was said twice.

        Raises:
            InputError: It has another length than those before, or it cannot be written.
        """
        if key in self.places:
            return
        self.width = self.width or len(row)
        if len(row) != self.width:
            raise InputError(
                f"the extractor of {self._rows.stem} gave {len(row)} numbers for one clip and "
                f"{self.width} for another; it has to give the same."
            )
        content = np.ascontiguousarray(row, dtype="<f4").tobytes()
        line = json.dumps({"key": key, "width": self.width, "crc": zlib.crc32(content)})
        with explained(self._rows):
            self._row_file.write(content)
            self._row_file.flush()
            self._line_file.write(f"{line}\n".encode())
            self._line_file.flush()
        self.places[key] = len(self.places)

    def matrix(self, keys: Iterable[str]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """``(n, D)`` features of utterances, zero where there are none, and where there are."""
        places = np.array([self.places.get(key, -1) for key in keys], dtype=np.int64)
        present = places >= 0
        found = np.zeros((len(places), self.width), dtype=np.float32)
        if present.any():
            stored = np.memmap(self._rows, dtype="<f4", mode="r").reshape(-1, self.width)
            found[present] = stored[places[present]]
        return found, present

    def close(self) -> None:
        self._line_file.close()
        self._row_file.close()

    def _read(self, record: str) -> int:
        """Take what is there; returns the bytes of the lines that are whole, 0 if none is."""
        whole = 0
        with self._lines.open("rb") as lines, self._rows.open("rb") as rows:
            for number, line in enumerate(lines):
                try:
                    said = json.loads(line) if line.endswith(b"\n") else {}
                    if number == 0:
                        if said["extractor"] != record:
                            return 0
                    else:
                        content = rows.read(4 * said["width"])
                        fits = len(content) == 4 * said["width"]
                        if not fits or zlib.crc32(content) != said["crc"]:
                            break
                        self.places[said["key"]] = len(self.places)
                        self.width = said["width"]
                except (ValueError, KeyError, TypeError):
                    break
                whole += len(line)
        return whole
