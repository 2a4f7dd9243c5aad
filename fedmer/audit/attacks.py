"""The attacks that there are, and a run of them."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.audit.identity import group, sender
from fedmer.audit.inversion import one_utterance
from fedmer.audit.labels import label_histograms
from fedmer.audit.membership import likelihood_ratio, loss_threshold
from fedmer.audit.prototypes import nearest_utterance
from fedmer.audit.restore import restore
from fedmer.audit.subject import Subject
from fedmer.errors import InputError
from fedmer.files import write_atomically
from fedmer.report.attacks import FILE, Audit, Finding
from fedmer.report.collect import Run


@dataclass(frozen=True)
class Options:
    """How attacks are made.

    Args:
        rounds: How many rounds of messages a server listens to, from 1.
        shadows: Networks that the likelihood ratio compares with, an even number from 2.
        groups: Speaker -> group, such as a gender, that is to be told from messages.
        kept: Filled by attacks with what they find of several runs at once.

    Raises:
        InputError: A number is out of range.
    """

    rounds: int = 3
    shadows: int = 8
    groups: Mapping[str, str] = field(default_factory=dict)
    kept: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise InputError(f"--rounds is {self.rounds}; expected at least 1.")
        if self.shadows < 2 or self.shadows % 2:
            raise InputError(f"--shadows is {self.shadows}; expected an even number from 2.")


ATTACKS: dict[str, Callable[[Subject, Options], Finding]] = {
    "membership": lambda subject, _: loss_threshold(subject),
    "shadows": lambda subject, options: likelihood_ratio(subject, options.shadows, options.kept),
    "labels": lambda subject, _: label_histograms(subject),
    "sender": lambda subject, _: sender(subject),
    "group": lambda subject, options: group(subject, options.groups),
    "prototypes": lambda subject, _: nearest_utterance(subject),
    "features": lambda subject, _: one_utterance(subject),
}
"""Name on the command line -> the attack."""


def audit(run: Run, attacks: Sequence[str], options: Options, trusted: bool = False) -> Audit:
    """Attack a run, and keep what was found in its folder.

    Args:
        run: A finished one.
        attacks: Names of :data:`ATTACKS`.
        options: How.
        trusted: May it name classes that are neither fedmer's nor those of installed plugins?

    Raises:
        InputError: The run cannot be restored; as :func:`fedmer.audit.restore.restore`.
    """
    began = time.perf_counter()
    subject = restore(run, options.rounds, trusted)
    findings = {name: ATTACKS[name](subject, options) for name in attacks}
    made: dict[str, Any] = {"rounds": options.rounds, "shadows": options.shadows}
    seconds = round(time.perf_counter() - began, 1)
    found = Audit(subject.done, seconds, made, findings)
    write_atomically(run.path / FILE, json.dumps(found.as_dict(), indent=2) + "\n")
    return found
