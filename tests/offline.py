"""What Weights & Biases wrote of an offline run, read back from its file."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_HEAD, _BLOCK, _CHUNK = 7, 32768, 7
_LAST_CHUNKS = (1, 4)
"""Kinds of chunks that end a record: one that is whole, and the last of several."""


@dataclass
class OfflineRun:
    """A run as a server would know it after a sync."""

    id: str = ""
    name: str = ""
    group: str = ""
    project: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, str] = field(default_factory=dict)
    """Name or pattern -> the axis that it is drawn over."""
    artifacts: list[Any] = field(default_factory=list)


def read_offline(path: Path) -> OfflineRun:
    """Read ``run-ID.wandb``."""
    run = OfflineRun()
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            told = record.run
            run.id, run.name, run.group = told.run_id, told.display_name, told.run_group
            run.project, run.tags = told.project, tuple(told.tags)
            _update(run.config, told.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.rows.append(row)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "metric":
            run.metrics[record.metric.name or record.metric.glob_name] = record.metric.step_metric
        elif kind == "artifact":
            run.artifacts.append(record.artifact)
        elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
            run.artifacts.append(record.request.log_artifact.artifact)
    return run


def _records(content: bytes) -> Iterator[wandb_internal_pb2.Record]:
    """The log of LevelDB: blocks of chunks, each with a checksum, a length and a kind."""
    place, part = _HEAD, b""
    while place + _CHUNK <= len(content):
        if _BLOCK - place % _BLOCK < _CHUNK:
            place += _BLOCK - place % _BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        place += _CHUNK
        part += content[place : place + length]
        place += length
        if kind in _LAST_CHUNKS:
            record = wandb_internal_pb2.Record()
            record.ParseFromString(part)
            yield record
            part = b""


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *above, last = list(item.nested_key) or [item.key]
        inside = target
        for key in above:
            inside = inside.setdefault(key, {})
        inside[last] = json.loads(item.value_json)
