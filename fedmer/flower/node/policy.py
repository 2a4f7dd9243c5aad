"""What a node takes part in, as its owner says in ``policy.json``, whatever a server asks."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedmer.errors import InputError
from fedmer.files import write_atomically

FILE = "policy.json"
_MEGABYTE = 10**6


@dataclass(frozen=True)
class Policy:
    """The limits of one node. Whatever a server asks beyond them is refused in a sentence.

    Args:
        secure_sum: Weights leave the node in a masked sum only; a rule that sends none is free.
        smallest_cohort: Nodes that a masked sum has to have at least, each with a weight above 0,
            counted again without those that were lost.
        threshold: The least share of the cohort, in (0.5, 1], that has to help before a masked sum
            can be unmasked.
        largest_share: The largest share of a masked sum's weights, in (0, 1], that one node may
            have: the total of a sum that one node dominates is that node's update.
        largest_message_mb: Megabytes that a message of the server may have.
        rules: Names of the aggregation rules that the node takes part in; None is any.

    Raises:
        InputError: One of them is out of range.
    """

    secure_sum: bool = True
    smallest_cohort: int = 3
    threshold: float = 0.6
    largest_share: float = 0.8
    largest_message_mb: float = 256.0
    rules: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        right = {
            "secure_sum": isinstance(self.secure_sum, bool),
            "smallest_cohort": _is_number(self.smallest_cohort, 1, 10**6)
            and isinstance(self.smallest_cohort, int),
            "threshold": _is_number(self.threshold, 0.5, 1) and self.threshold > 0.5,
            "largest_share": _is_number(self.largest_share, 0, 1) and self.largest_share > 0,
            "largest_message_mb": _is_number(self.largest_message_mb, 0, 10**6)
            and self.largest_message_mb > 0,
            "rules": self.rules is None
            or (isinstance(self.rules, tuple) and all(isinstance(n, str) for n in self.rules)),
        }
        expected = {
            "secure_sum": "true or false",
            "smallest_cohort": "a whole number of at least 1",
            "threshold": "a number above 0.5 and at most 1",
            "largest_share": "a number above 0 and at most 1",
            "largest_message_mb": "a number of megabytes above 0 and at most a million",
            "rules": "null or a list of names",
        }
        for name, fits in right.items():
            if not fits:
                value = json.dumps(getattr(self, name), default=str)
                raise InputError(f"{name} is {value}; expected {expected[name]}")

    @classmethod
    def of(cls, folder: str | None) -> "Policy":
        """That of a node's folder; a virtual node has none, and nobody to hide an update from.

        Raises:
            InputError: As :meth:`read`.
        """
        return OPEN if folder is None else cls.read(Path(folder) / FILE)

    @classmethod
    def read(cls, path: Path) -> "Policy":
        """Read the file, at every message, so that its owner need not restart the node.

        A node whose file is missing goes by the defaults.

        Raises:
            InputError: It cannot be read, or says what it cannot; the sentence names no folder,
                as the server may get it.
        """
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, RecursionError) as error:
            kind = type(error).__name__
            raise InputError(f"its {FILE} cannot be read ({kind}); its owner has to mend it") from (
                error
            )
        known = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or not values.keys() <= set(known):
            odd = "no object" if not isinstance(values, dict) else sorted(values.keys() - known)[0]
            raise InputError(f"its {FILE} has {odd}; expected {', '.join(known)}")
        if isinstance(values.get("rules"), list):
            values["rules"] = tuple(values["rules"])
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"its {FILE}: {error}") from error

    def write(self, path: Path) -> None:
        """Write the file, for its owner to change."""
        write_atomically(path, json.dumps(asdict(self), indent=2) + "\n", 0o600)

    def check_message(self, content: RecordDict) -> None:
        """Refuse a message that is too large.

        Raises:
            InputError: It is.
        """
        size = sum(map(_bytes_of, content.values()))
        if size > self.largest_message_mb * _MEGABYTE:
            raise InputError(
                f"the message has {size / _MEGABYTE:.0f} MB, and its {FILE} allows "
                f"{self.largest_message_mb:g}; its owner can raise largest_message_mb"
            )

    def check_rule(self, name: str) -> None:
        """Refuse a rule that its owner has not listed.

        Raises:
            InputError: It is not listed.
        """
        if self.rules is not None and name not in self.rules:
            raise InputError(
                f"its {FILE} allows the rules {', '.join(self.rules) or 'none'}, and this run "
                f"wants {name}"
            )

    def check_update(self, masked: bool) -> None:
        """Refuse to send weights by themselves, where they have to be masked.

        Raises:
            InputError: They would be in the open.
        """
        if self.secure_sum and not masked:
            raise InputError(
                "it sends its weights in a masked sum only; start the run with --privacy "
                f"SecureSum, or let its owner set secure_sum to false in its {FILE}"
            )

    def check_cohort(self, nodes: int, threshold: int) -> None:
        """Refuse a masked sum over few nodes, or one that few of them can unmask.

        Args:
            nodes: Of the cohort.
            threshold: How many of them can unmask a sum.

        Raises:
            InputError: There are too few.
        """
        if nodes < self.smallest_cohort:
            raise InputError(
                f"its {FILE} wants {self.smallest_cohort} nodes or more in a masked sum, and this "
                f"one has {nodes}"
            )
        # Two halves of a cohort that are each enough could unmask two sums and compare them.
        least = max(math.ceil(self.threshold * nodes), nodes // 2 + 1)
        if not least <= threshold <= nodes:
            raise InputError(
                f"{threshold} of {nodes} nodes could unmask this sum, and its {FILE} wants "
                f"{least}; raise --privacy.threshold to {self.threshold:g}"
            )

    def check_shares(self, weights: Mapping[int, float], kept: Collection[int]) -> None:
        """Refuse a sum that would show one node's update, or that of few.

        Args:
            weights: Node -> its weight in the sum.
            kept: Those of them whose vectors are in it.

        Raises:
            InputError: It would.
        """
        counted = [weights[node] for node in kept if weights[node] > 0]
        if len(counted) < self.smallest_cohort:
            raise InputError(
                f"its {FILE} wants {self.smallest_cohort} nodes or more in a masked sum, and "
                f"{len(counted)} have a weight above 0 and are still there"
            )
        share = max(counted) / math.fsum(counted) if counted else 1.0
        if share > self.largest_share:
            raise InputError(
                f"one node has {share:.3g} of the weight of this masked sum, and its {FILE} allows "
                f"{self.largest_share:g}; a sum that one node dominates shows its update"
            )

    def check_class_shares(
        self, classes: Mapping[int, Sequence[float]], kept: Collection[int], count: int
    ) -> None:
        """Refuse a sum in which a class's rows would be those of one node, or of few.

        A class in which nobody has a weight keeps its old rows, and shows nothing.

        Args:
            classes: Node -> ``(K,)`` weights in the sum of each class's rows, of a network and
                of summaries.
            kept: Those nodes whose vectors are in it.
            count: How many classes there are.

        Raises:
            InputError: They would.
        """
        for place, column in enumerate(zip(*(classes[node] for node in kept), strict=True)):
            named = place % count + 1
            counted = [weight for weight in column if weight > 0]
            if counted and len(counted) < self.smallest_cohort:
                raise InputError(
                    f"its {FILE} wants {self.smallest_cohort} nodes or more behind a class's rows "
                    f"in a masked sum, and class {named} has {len(counted)}; start the run "
                    f"with --privacy.class_holders {self.smallest_cohort} or more"
                )
            if counted and max(counted) / math.fsum(counted) > self.largest_share:
                raise InputError(
                    f"one node has {max(counted) / math.fsum(counted):.3g} of the weight of class "
                    f"{named} in this masked sum, and its {FILE} allows "
                    f"{self.largest_share:g}; start the run with --privacy.class_share "
                    f"{self.largest_share:g} or less"
                )


def policy_for(nodes: int) -> Policy:
    """The one that a new node gets: as strict as a federation of so many nodes can be."""
    return replace(Policy(), smallest_cohort=min(Policy.smallest_cohort, max(nodes, 2)))


def _is_number(value: object, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _bytes_of(record: Any) -> int:
    if isinstance(record, ArrayRecord):
        return sum(len(array.data) for array in record.values())
    if isinstance(record, ConfigRecord):
        return sum(len(key) + _length(value) for key, value in record.items())
    return 0


def _length(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    return sum(map(_length, value)) if isinstance(value, list) else 8


OPEN = Policy(False, 1, math.nextafter(0.5, 1), 1.0, 10**6)
"""Refuses nothing that can be had of a masked sum at all."""
