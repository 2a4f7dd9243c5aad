"""The model card: what a person should know before they use a model, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.bundle.contents import Contents
from fedmer.printable import printable
from fedmer.record.votes import FILE as VOTES
from fedmer.record.votes import read_votes
from fedmer.report.confusion import class_scores
from fedmer.report.differences import LEVEL, paired_bootstrap

_TOTALS = {
    "accuracy": "accuracy",
    "weighted_f1": "weighted F1",
    "macro_f1": "macro F1",
    "uar": "mean recall",
}
_CLIENTS = 100
"""Rows of a table; more clients are told in one line."""

LIMITS = """\
* It names what somebody *shows*, as annotators perceived it, among the emotions above and no
  others. It does not know what somebody feels, and its probabilities are not a diagnosis.
* Corpora of this field are mostly acted or taken from television. On spontaneous conversations,
  other languages, other recording conditions and transcripts made in another way, scores are
  lower, often by much.
* How people show emotions differs between cultures, ages, genders and persons. The scores above
  are means; look at the rows by emotion and by client, and test it on the people you mean before
  you rely on it.
* Do not use it to judge, hire, grade, admit, insure or watch people. Recognising emotions at work
  and in schools is forbidden in places, in the European Union by its AI Act.
* Whoever is recorded should know what is recognised and why, agree, and be able to withdraw.
* Weights can tell something of the data that they were trained on. A privacy mechanism limits it;
  see above whether there was one.
"""


def card(contents: Contents, run: Path) -> str:
    """The card of a model.

    Args:
        contents: The model, as :func:`fedmer.bundle.of_run.of_run` made it.
        run: Its run, whose votes on test give intervals; where there are none scores have none.
    """
    about = contents.about
    data = about.get("data") or {}
    scores = about.get("scores") or {}
    test = scores.get("test")
    sections = [
        _front(contents),
        f"# {_text(about.get('name') or 'A model')}",
        "A network that names the emotion of every utterance of a conversation, trained with "
        "federated learning by fedmer.",
        _use(contents),
        "## Training",
        _table(("", ""), _facts(contents, data)),
    ]
    sections += [f"* {_text(note)}" for note in data.get("notes") or []]
    sections.append("## Scores")
    if test:
        sections += _scores(contents, test, run)
    else:
        sections.append("It was not scored on a test part.")
    if about.get("holdouts"):
        sections += ["### By client", *_clients(about["holdouts"])]
    sections += ["## Limits", LIMITS, "## Made with", _versions(about.get("versions") or {})]
    return "\n\n".join(section.rstrip() for section in sections) + "\n"


def _front(contents: Contents) -> str:
    return (
        "---\nlibrary_name: fedmer\ntags:\n- emotion-recognition\n- conversation\n"
        "- federated-learning\n" + "".join(f"- {name}\n" for name in _plain(contents)) + "---"
    )


def _plain(contents: Contents) -> list[str]:
    return [name for name in contents.shape.features if name.isalnum()]


def _use(contents: Contents) -> str:
    features = ", ".join(f'"{name}": {name}' for name in contents.shape.features)
    widths = ", ".join(f"`{_text(n)}` {width}" for n, width in contents.shape.features.items())
    return (
        "```python\nimport fedmer\n\nmodel = fedmer.load(\"PATH\")\n"
        f"conversation = fedmer.Conversation.of({{{features}}}, speakers)\n"
        "print(model.predict(conversation).emotions)\n```\n\n"
        f"Numbers an utterance: {widths}; a modality may be left out. They have to be made as "
        "those of the training data were."
    )  # fmt: skip


def _facts(contents: Contents, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    about = contents.about
    which = "selected by validation" if about.get("which") == "selected" else "the last"
    facts = [
        ("emotions", ", ".join(map(_text, contents.labels))),
        ("data", _text(data.get("name", "?"))),
        ("fingerprint of the data", _text(data.get("fingerprint", "?"))),
        ("network", _named(contents.parts["network"])),
        ("rule", _named(contents.parts["aggregator"])),
        ("split over clients", _named(contents.parts["partitioner"])),
        ("clients", str(about.get("clients", "?"))),
        ("round", f"{about.get('round', '?')}, {which}"),
        ("privacy", _mechanisms(about.get("privacy"))),
        ("differential privacy", _text(about.get("guarantee") or "none")),
        ("seed", str(about.get("seed", "?"))),
        ("people in a dialogue", f"at most {contents.shape.speakers}"),
        (
            "temperature",
            "none, for want of a validation part"
            if contents.temperature is None
            else f"{contents.temperature:.3g}, fitted on validation, for `--calibrate`",
        ),
    ]
    for modality in contents.shape.features:
        made = contents.extractors.get(modality)
        said = "made by a program not recorded" if made is None else _text(made)
        facts.append((f"features of {_text(modality)}", said))
    return facts


def _mechanisms(spec: Any) -> str:
    several = spec if isinstance(spec, list) else [spec] if spec else []
    return ", ".join(map(_named, several)) or "no mechanism"


def _named(spec: Any) -> str:
    """A class with its options."""
    if not isinstance(spec, Mapping):
        return _text(spec)
    name = str(spec.get("class_path", "?")).rpartition(".")[2]
    options = spec.get("init_args") or {}
    said = ", ".join(f"{_text(k)} {_text(v)}" for k, v in options.items())
    return _text(name) + (f" ({said})" if said else "")


def _scores(contents: Contents, test: Mapping[str, Any], run: Path) -> list[str]:
    intervals = _intervals(run, contents)
    rows = [
        (title, f"{100 * test[key]:.1f}", intervals.get(key, ""))
        for key, title in _TOTALS.items()
        if key in test
    ]
    confusion = np.array(test["confusion"], dtype=np.int64)
    recall, f1 = class_scores(confusion)
    support = confusion.sum(axis=1)
    classes = [
        (_text(name), f"{100 * recall[i]:.1f}", f"{100 * f1[i]:.1f}", str(support[i]))
        for i, name in enumerate(contents.labels)
    ]
    return [
        "On the test part, in points.",
        _table(("", "score", f"{LEVEL:.0%} interval"), rows),
        "An interval is the middle of resamples of whole test dialogues. It says how far the score "
        "depends on which dialogues were drawn, and nothing of other corpora.",
        "### By emotion",
        _table(("emotion", "recall", "F1", "utterances"), classes),
    ]


def _intervals(run: Path, contents: Contents) -> dict[str, str]:
    votes = read_votes(run / VOTES, str(contents.about.get("which")), len(contents.labels))
    if votes is None:
        return {}
    counts: NDArray[np.int64] = votes.by_dialogue()[1]
    # The difference to a run that is never right is the score itself.
    found = paired_bootstrap([(counts, np.zeros_like(counts))])
    return {
        key: f"{100 * interval.low:.1f} to {100 * interval.high:.1f}"
        for key, interval in zip(("accuracy", "weighted_f1"), found, strict=True)
        if interval.low is not None and interval.high is not None
    }


def _clients(holdouts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Scores of the clients' holdouts, by number: names of clients may be names of people."""
    weighted = [float(own["weighted_f1"]) for own in holdouts]
    summary = (
        f"{len(holdouts)} clients kept dialogues back. Their weighted F1 is "
        f"{100 * np.mean(weighted):.1f} in the mean, {100 * min(weighted):.1f} at the least and "
        f"{100 * max(weighted):.1f} at the most."
    )
    rows = [
        (str(i), f"{100 * own['accuracy']:.1f}", f"{100 * own['weighted_f1']:.1f}",
         str(own.get("examples", "")))
        for i, own in enumerate(holdouts)
    ]  # fmt: skip
    if len(rows) > _CLIENTS:
        return [summary]
    return [summary, _table(("client", "accuracy", "weighted F1", "utterances"), rows)]


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{_text(name)} {_text(v)}" for name, v in versions.items()) or "fedmer"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _text(value: Any) -> str:
    """A value from outside as one line of Markdown that nothing in it shapes."""
    return "".join(f"\\{sign}" if sign in r"\`*_[]<>|#" else sign for sign in printable(str(value)))
