"""The help of ``fedmer fit``: fedmer's own options on two screens, and all others by group.

Lightning's Trainer alone has twice as many options as fedmer. ``--help`` shows a line or two of
each option that a federation is made of; ``--help GROUP`` says all of one group, and ``--help all``
what the parser says of everything.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ActionYesNo, ArgumentParser

from fedmer.errors import InputError
from fedmer.plugins import registry

WIDTH = 100
"""Columns."""

INDENT = 36
"""Columns of an option and its value, before what is said of it."""

ALL = "all"

KINDS = {registry.option(kind): kind for kind in registry.KINDS}
_TORCH = {"optimizer": "torch.optim", "lr_scheduler": "torch.optim.lr_scheduler, fedmer.schedules"}
_LIGHTNING = "trainer"
_GROUPS = {
    "data": "Data",
    "loss": "What clients minimise",
    "local": "How clients train in a round",
    "server": "What the server does beside its rule",
    "model": "The federation",
    _LIGHTNING: "Lightning's Trainer",
}
_OFTEN = (
    *("max_epochs", "max_time", "accelerator", "precision", "logger", "callbacks"),
    *("gradient_clip_val", "enable_progress_bar"),
)
"""Options of the Trainer that are shown with fedmer's."""
_SAID = {
    "seed_everything": "Where all randomness comes from.",
    "config": "A YAML file of options, or the name of a recipe; several are merged.",
    "print_config": "Print the configuration instead of running it.",
    "ckpt_path": "A checkpoint: go on from it, or score it.",
    "weights_only": "Refuse checkpoints that could execute code.",
    "data.standardise": "By whose statistics features get mean zero and variance one.",
    "data.holdout": "Part of its dialogues that a client keeps back for validation.",
    "data.test_session": "Test on this session, and train on all others.",
    "model.evaluate_clients": "Score each client's holdout after every round.",
    "loss.task": "Factor of the teacher's cross-entropy, 0 or more.",
    "loss.students": "Factor of the students' cross-entropy, 0 or more.",
    "loss.temperature": "Of distillation, above 0.",
    "loss.class_weights": "By inverse class frequencies of the client, or of all together.",
    "loss.detach_teacher": "Keep the students' divergence out of the fused branch.",
    "local.optimizer_state": "Whether a client's optimizer starts anew in every round.",
    "trainer.accelerator": "auto, cpu, gpu and so on.",
    "trainer.precision": "32, 16-mixed, bf16-mixed or 64.",
    "trainer.gradient_clip_val": "Largest norm of a step's gradient, as --local.gradient_clip_val.",
    "trainer.max_epochs": "Rounds.",
    "trainer.logger": "Where scores go besides, such as CSVLogger or WandbLogger.",
    "trainer.callbacks": "Lightning's or yours, a list.",
    "trainer.enable_progress_bar": "Show a progress bar.",
    "trainer.max_time": "Stop after this time, as DD:HH:MM:SS.",
}
"""Where what the parser says would mislead or is too long."""
_FEW = 15
"""Characters before a colon that say too little by themselves."""
_TRUST = ("--trust", "Let files name classes of your own code, and run it.")


def asked(words: Sequence[str]) -> str | None:
    """What help is asked for: ``""`` for the short one, a topic, or None for none.

    >>> asked(["--help"]), asked(["--help", "trainer"]), asked(["--aggregator.help", "FedAvg"])
    ('', 'trainer', None)
    """
    for place, word in enumerate(words):
        option, _, value = word.partition("=")
        if option in ("--help", "-h"):
            after = words[place + 1] if place + 1 < len(words) else ""
            return value or ("" if after.startswith("-") else after)
    return None


def help_text(
    subcommand: str, parser: ArgumentParser, defaults: Mapping[str, Any], topic: str
) -> str:
    """What is printed.

    Args:
        subcommand: For example ``fit``.
        parser: Of what follows it.
        defaults: Part -> what it is unless somebody says otherwise.
        topic: As of :func:`asked`.

    Raises:
        InputError: There is no such topic.
    """
    if topic == ALL:
        return parser.format_help().rstrip()
    if topic and topic not in topics(parser):
        raise InputError(registry.unknown("topic of --help", topic, topics(parser)))
    if topic in KINDS:
        return "\n".join(_classes(topic))
    if topic in _TORCH:
        return "\n".join(
            [f"--{topic} takes the name of any class of {_TORCH[topic]}.", *_more(topic)]
        )
    if topic:
        chosen = [a for a in _options(parser) if a.dest.startswith(f"{topic}.")]
        return "\n".join([_GROUPS[topic], *(line for a in chosen for line in _option(a, True))])
    return "\n".join(_short(subcommand, parser, defaults))


def topics(parser: ArgumentParser) -> list[str]:
    """What can stand behind ``--help``: groups of options, parts, and :data:`ALL`."""
    return [*_GROUPS, *_parts(parser), ALL]


def _parts(parser: ArgumentParser) -> list[str]:
    named = {action.dest for action in _options(parser)}
    return [name for name in (*KINDS, *_TORCH) if name in named]


def _short(subcommand: str, parser: ArgumentParser, defaults: Mapping[str, Any]) -> Iterator[str]:
    options, parts = _options(parser), _parts(parser)
    yield f"usage: fedmer {subcommand} [OPTIONS]"
    yield ""
    yield "Parts; each has options of its own, as --aggregator.mu behind --aggregator FedProx"
    for name in parts:
        (action,) = [a for a in options if a.dest == name]
        chosen = defaults.get(name) or {"class_path": "none"}
        default = chosen["class_path"].rpartition(".")[2]
        said = re.sub(r": (%s|\{.*\})$", ".", str(action.help))
        yield from _entry(f"--{name} NAME", f"{_sentence(said)} [{default}]")
        if name in KINDS:
            known = ", ".join(plugin.name for plugin in registry.plugins(KINDS[name]))
            indent = " " * 6
            yield from textwrap.wrap(known, WIDTH, initial_indent=indent, subsequent_indent=indent)
    yield from _more(parts[0])
    shown = set(parts)
    for group, title in _GROUPS.items():
        inner = [a for a in options if a.dest.startswith(f"{group}.")]
        shown.update(a.dest for a in inner)
        if group == _LIGHTNING:
            title += f": the common ones of {len(inner)}; --help {group} shows all"
            inner = [a for a in inner if a.dest.partition(".")[2] in _OFTEN]
        if inner:
            yield from ("", title)
        for action in inner:
            yield from _option(action)
    yield from ("", "The run")
    for action in options:
        if action.dest not in shown:
            yield from _option(action)
    yield from _entry(*_TRUST)
    yield ""
    end = f"--help GROUP says more of {', '.join((*_GROUPS, *parts))}; --help {ALL} of everything."
    yield from textwrap.wrap(end, WIDTH, break_on_hyphens=False)


def _more(part: str) -> Iterator[str]:
    example = {"aggregator": "FedProx", "network": "SDT", "optimizer": "SGD"}.get(part, "NAME")
    yield f"  --{part}.help {example} shows the options of one class, and so for every part."


def _classes(part: str) -> Iterator[str]:
    found = registry.plugins(KINDS[part])
    width = max((len(plugin.name) for plugin in found), default=0)
    yield f"--{part} NAME, one of"
    for plugin in found:
        yield f"  {plugin.name:{width}}  {plugin.line}"
    yield from _more(part)


def _options(parser: ArgumentParser) -> list[Any]:
    """What can be typed, each once: neither links nor whole groups nor helps of classes."""
    return [
        action
        for action in parser._actions
        if any(flag.startswith("--") for flag in action.option_strings)
        and action.dest not in ("help", *_GROUPS)
        and not action.dest.endswith(".help")
    ]


def _option(action: Any, whole: bool = False) -> Iterator[str]:
    """The lines of an option; all that is said of it, or its first sentence."""
    flag = next(flag for flag in action.option_strings if flag.startswith("--"))
    said = " ".join(str(action.help or "").replace("``", "'").split())
    said = said if whole else _SAID.get(action.dest, _sentence(said))
    default = action.default
    if not (default is None or str(default) in ("==SUPPRESS==", "") or default is False):
        said += f" [{str(default).lower() if isinstance(default, bool) else default}]"
    yield from _entry(f"{flag} {_value(action)}".rstrip(), said)


def _entry(left: str, said: str) -> Iterator[str]:
    lines = textwrap.wrap(said, WIDTH - INDENT, break_on_hyphens=False) or [""]
    if len(left) + 4 > INDENT:
        yield f"  {left}"
        left = ""
    yield f"  {left:{INDENT - 2}}{lines[0]}".rstrip()
    for line in lines[1:]:
        yield " " * INDENT + line


def _sentence(said: str) -> str:
    """The first sentence, or what stands before a colon or semicolon in it.

    >>> _sentence("A file, by its content; None makes one. More."), _sentence("In 10^9 bytes")
    ('A file, by its content.', 'In 10^9 bytes.')
    >>> _sentence("For a table: names of columns. More.")
    'For a table: names of columns.'
    """
    first = re.split(r"[.](?=\s|$)", said, maxsplit=1)[0]
    short = re.split(r"[;:](?=\s)", first, maxsplit=1)[0]
    return f"{short if len(short) > _FEW else first}."


def _value(action: Any) -> str:
    """What an option takes, for people."""
    if action.dest == "print_config" or isinstance(action, ActionYesNo):
        return ""
    if action.dest == "config":
        return "FILE"
    kinds = list(dict.fromkeys(kinds_of(getattr(action, "_typehint", None))))
    if len(kinds) > 1 and "VALUE" in kinds:
        kinds.remove("VALUE")
    return "|".join(kinds) if 0 < len(kinds) < 6 else action.dest.rpartition(".")[2].upper()


def kinds_of(hint: Any) -> Iterator[str]:
    """What a type takes: values as they are typed, and kinds of values in capitals.

    >>> list(kinds_of(Literal["none", "local"] | float | None))
    ['none', 'local', 'NUMBER']
    """
    if get_origin(hint) is Literal:
        yield from map(str, get_args(hint))
    elif get_origin(hint) in (Union, UnionType):
        for inner in get_args(hint):
            yield from kinds_of(inner)
    elif hint is bool:
        yield from ("true", "false")
    elif hint is not NoneType:
        names = {"int": "INT", "float": "NUMBER", "str": "TEXT", "Path": "PATH"}
        name = getattr(get_origin(hint) or hint, "__name__", "VALUE")
        yield names.get(name, {"dict": "{...}", "list": "[...]"}.get(name, "VALUE"))
