"""A client's part of a masked sum, of the update that it has kept."""

from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitRes, Status, ndarrays_to_parameters
from flwr.compat.common.recorddict_compat import fitres_to_recorddict
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.flower.masks import harden

_KEPT = "update"


def keep(state: RecordDict, difference: NDArray[np.float32]) -> None:
    """Leave a vector with the node, in what Flower keeps between its messages, for the sum."""
    state[_KEPT] = ArrayRecord({"difference": Array(difference)})


def mask(message: Message, context: Context) -> Message:
    """One stage of the sum.

    Raises:
        InputError: The update is larger than the sum can hold.
    """
    harden()
    answer: Message = secaggplus_mod(message, context, _scaled)
    return answer


def _scaled(message: Message, context: Context) -> Message:
    """The node's difference times the weight that the server gives it; once, and then no more."""
    told: Any = message.content.config_records["fitins.config"]
    difference = context.state.array_records.pop(_KEPT)["difference"].numpy()
    scaled = float(told["weight"]) * difference
    largest = float(abs(scaled).max())
    if not largest <= told["clip"]:
        raise InputError(
            f"its weighted update reaches {largest:.3g}, beyond privacy.clip {told['clip']:g}"
        )
    parameters = ndarrays_to_parameters([scaled])
    result = FitRes(Status(Code.OK, ""), parameters, num_examples=1, metrics={})
    return Message(fitres_to_recorddict(result, keep_input=False), reply_to=message)
