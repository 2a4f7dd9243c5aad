"""A client's part of a masked sum, of the update that it has kept.

The protocol is Flower's. What is checked here is that the server cannot use it to see one update:
the numbers it sets up, the weights, and who it says was lost. Each kept update goes into one sum,
each pair of keys masks one vector, and of each peer a node reveals its seed or its key, once.
"""

import fcntl
import math
import os
import secrets
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.common.secure_aggregation.secaggplus_constants import (
    RECORD_KEY_CONFIGS,
    RECORD_KEY_STATE,
    Key,
    Stage,
)
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.flower.class_rows import Rows, put_rows, weighed
from fedmer.flower.masks import CLIENT, harden
from fedmer.flower.node.policy import Policy
from fedmer.flower.records import put_failure
from fedmer.flower.terms import MODULUS, Terms, grid, read_classes, read_weights

_KEPT = "update"
_ASKED = "update.asked"
_WEIGHTS = "masked sum"
_SPENT = "spent"


def keep(
    state: RecordDict,
    difference: NDArray[np.float32],
    digest: bytes,
    rows: Rows = (),
    needed: int = 0,
) -> None:
    """Leave a vector with the node, in what Flower keeps between its messages, for the sum.

    Args:
        state: What Flower keeps.
        difference: ``(n,)``, what training changed.
        digest: The digest of what the node was asked to learn.
        rows: Where the rows of classes lie in the vector, by the node's own network and rule.
        needed: How many weights of rows it takes for its summary not to be one of few.
    """
    state[_KEPT] = ArrayRecord({"difference": Array(difference)})
    flat = [number for row in rows for number in row]
    name = secrets.token_hex(16)
    state[_ASKED] = ConfigRecord({"digest": digest, "name": name, "rows": flat, "needed": needed})


def mask(message: Message, context: Context) -> Message:
    """One stage of the sum; the answer says in a sentence if the node will not take part."""
    refused = RecordDict()
    try:
        folder = context.node_config.get("folder")
        policy = Policy.of(None if folder is None else str(folder))
        policy.check_message(message.content)
        state_folder = None if folder is None else Path(str(folder)) / "state"
        return _stage(message, context, policy, state_folder)
    except InputError as error:
        put_failure(refused, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the server has to know
        # The whole story stays here: what an exception says may hold data.
        traceback.print_exc(file=sys.stderr)
        put_failure(refused, f"{type(error).__name__}; its own log says more")
    return Message(refused, reply_to=message)


def _stage(message: Message, context: Context, policy: Policy, folder: Path | None) -> Message:
    asked: Any = message.content.config_records[RECORD_KEY_CONFIGS]
    setup: Any = context.state.config_records.get(RECORD_KEY_STATE, {})
    stage = asked[Key.STAGE]
    terms = b""
    if stage == Stage.SETUP:
        _check_setup(asked, policy)
        # Of the sum before.
        context.state.config_records.pop(_WEIGHTS, None)
    elif stage == Stage.SHARE_KEYS:
        _check_peers(asked, setup, message.metadata.dst_node_id)
    elif stage == Stage.COLLECT_MASKED_VECTORS:
        found = _agree(message, context, setup, policy)
        terms = found.digest
        _once(folder, f"keys {setup['pk1'].hex()}", "its keys have masked a vector already")
    elif stage == Stage.UNMASK:
        _check_unmask(asked, setup, context.state, policy)
        _once(folder, f"shares {setup['pk1'].hex()}", "it has helped to unmask this sum already")
    harden(CLIENT, terms)

    def scaled(message: Message, context: Context) -> Message:
        return _scaled(message, context, found, folder)

    answer: Message = secaggplus_mod(message, context, scaled)
    return answer


def _check_setup(asked: Mapping[str, Any], policy: Policy) -> None:
    """The numbers of the protocol, which Flower's client takes as they come."""
    nodes, threshold, clip = (
        asked.get(key) for key in (Key.SAMPLE_NUMBER, Key.THRESHOLD, Key.CLIPPING_RANGE)
    )
    if type(nodes) is not int or type(threshold) is not int or not _is_positive(clip):
        raise InputError("the set-up of the masked sum cannot be read")
    policy.check_cohort(nodes, threshold)
    # Another factor or grid would round most of an update away, and leave that of a node which
    # was told the right one.
    expected = {
        Key.SHARE_NUMBER: nodes,
        Key.TARGET_RANGE: grid(nodes),
        Key.MOD_RANGE: MODULUS,
        Key.MAX_WEIGHT: 1.0,
    }
    for key, value in expected.items():
        if asked.get(key) != value:
            raise InputError(
                f"the set-up of the masked sum has {key} {asked.get(key)}, and fedmer's has {value}"
            )


def _check_peers(asked: Mapping[str, Any], setup: Mapping[str, Any], node: int) -> None:
    names = [key for key in asked if key != Key.STAGE]
    if len(names) != setup["sample_num"] or str(node) not in names:
        raise InputError(
            f"the masked sum was set up for {setup['sample_num']} nodes, and the keys of "
            f"{len(names)} came, or its own are missing"
        )
    if not all(key.removeprefix("-").isdecimal() and str(int(key)) == key for key in names):
        raise InputError("the keys of the masked sum are of nodes without a number")


def _agree(message: Message, context: Context, setup: Mapping[str, Any], policy: Policy) -> Terms:
    """The terms of the sum, once the weights are known."""
    config: Any = message.content.config_records["fitins.config"]
    asked: Any = message.content.config_records[RECORD_KEY_CONFIGS]
    state = context.state
    peers = set(setup["public_keys_dict:K"])
    sources = list(asked[Key.SOURCE_LIST])
    if sorted(sources) != sorted(peers - {setup["nid"]}):
        raise InputError("the shares for it are not one of each other node of the masked sum")
    if _KEPT not in state or _ASKED not in state:
        raise InputError("it has no update for a masked sum; each is used once")
    if config.get("clip") != setup["clipping_range"]:
        raise InputError("the masked sum was set up with another clip")
    weights = read_weights(config.get("weights"))
    if weights.keys() != peers:
        raise InputError("the weights of the masked sum are not those of its nodes")
    policy.check_shares(weights, peers)
    kept: Any = state.config_records[_ASKED]
    classes = read_classes(config.get("classes"))
    rows, needed = _rows(kept["rows"]), kept["needed"]
    given = len(next(iter(classes.values()), ()))
    most = max([needed, *(first + count for _, _, count, _, first in rows)])
    if given not in (needed, most) or (classes and classes.keys() != peers):
        raise InputError(
            "the weights of classes of the masked sum are not those of its nodes, or not of "
            "its network's and its summary's classes"
        )
    rows = weighed(rows, given)
    count = rows[0][2] if rows else 0
    if classes:
        policy.check_class_shares(classes, peers, count)
    told = {"weights": config["weights"], "classes": config["classes"], "count": count}
    state[_WEIGHTS] = ConfigRecord(told)
    digest = bytes(kept["digest"])
    return Terms(digest, weights, setup["threshold"], setup["clipping_range"], classes, rows)


def _check_unmask(
    asked: Mapping[str, Any],
    setup: Mapping[str, Any],
    state: RecordDict,
    policy: Policy,
) -> None:
    """Of each peer its seed or its key: who has both of a node has its update."""
    if _WEIGHTS not in state:
        raise InputError("it has sent nothing into this masked sum")
    told: Any = state.config_records[_WEIGHTS]
    active, dead = list(asked[Key.ACTIVE_NODE_ID_LIST]), list(asked[Key.DEAD_NODE_ID_LIST])
    if sorted([*active, *dead]) != sorted(setup["public_keys_dict:K"]):
        raise InputError(
            "each node of the masked sum has to be among those that were lost, or among the "
            "others, and once"
        )
    if setup["nid"] not in active:
        raise InputError("it was not lost in the masked sum, and the server says it was")
    if len(active) < setup["threshold"]:
        raise InputError(f"fewer than {setup['threshold']} nodes are left of the masked sum")
    policy.check_shares(read_weights(told["weights"]), active)
    classes = read_classes(told["classes"])
    if classes:
        policy.check_class_shares(classes, active, told["count"])


def _rows(flat: Sequence[int]) -> Rows:
    return tuple(zip(*(flat[place::5] for place in range(5)), strict=True))


def _is_positive(value: object) -> bool:
    return type(value) is float and 0 < value < math.inf


def _once(folder: Path | None, what: str, otherwise: str) -> None:
    """Let something happen once for good, even if Flower answers two messages at a time.

    What Flower keeps of a run is given to each message as it was when the message came, so that
    two at a time would both find nothing done.

    Raises:
        InputError: It has happened.
    """
    if folder is None:
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    path = os.open(folder / _SPENT, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(path, "a+", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        if what in file.read().splitlines():
            raise InputError(f"{otherwise}, and does so once")
        file.write(f"{what}\n")
        file.flush()
        os.fsync(file.fileno())


def _scaled(message: Message, context: Context, terms: Terms, folder: Path | None) -> Message:
    """The node's difference times the weights that the server gives it; once, and then no more."""
    name = str(context.state.config_records.pop(_ASKED)["name"])
    difference = context.state.array_records.pop(_KEPT)["difference"].numpy()
    node = message.metadata.dst_node_id
    scaled = terms.weights[node] * difference
    if terms.classes:
        put_rows(scaled, difference, terms.classes[node], terms.rows)
    largest = float(abs(scaled).max())
    if not largest <= terms.clip:
        raise InputError(
            f"its weighted update reaches {largest:.3g}, beyond privacy.clip {terms.clip:g}"
        )
    _once(folder, f"update {name}", "its update is part of a masked sum already")
    parameters = ndarrays_to_parameters([scaled])
    result = FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
    return Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)
