"""What a parser says against an argument, as one sentence that a person understands."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

from fedmer.choice import PARTS, classes, options
from fedmer.errors import InputError
from fedmer.plugins import registry
from fedmer.trust import REFUSED


def cause(error: BaseException) -> str:
    """The plugin's own sentence, out of the frames that a parser puts around it."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, InputError | ImportError):
            return " ".join(str(here).split())
        here = here.__cause__ or here.__context__
    inner: list[str] = re.findall(
        r"^  - (?!Expected a <class 'NoneType'>)(.+)$", str(error), re.MULTILINE
    )
    # Of a list, the parser says first that it is no single one.
    single = [said for said in inner if not said.startswith("Not a valid subclass")]
    return (single or inner or [str(error)])[0]


def sentence(message: str, flags: Iterable[str] = ()) -> str:
    r"""What a parser's message says, as one sentence.

    Args:
        message: The parser's own.
        flags: Options that the parser has, to suggest one of them.

    >>> sentence("Parser key \"mu\": Expected a <class 'float'>. Got value: x")
    "mu is 'x'; expected float."
    >>> sentence("unrecognized arguments: --rnus 3", ["--runs"])
    "unknown option --rnus; did you mean --runs? 'fedmer fit --help all' shows all."
    """
    flat = " ".join(message.split())
    stray = re.search(r"unrecognized arguments: (\S+)", flat)
    if stray is not None:
        return _stray(stray[1].partition("=")[0], flags)
    lacking = re.search(r"the following arguments are required: ([\w., ]+)", flat)
    if lacking is not None:
        name = lacking[1].partition(",")[0].strip(" .")
        part = "trainer.logger" if name == "save_dir" else "PART"
        return (
            f"a class that was chosen needs {lacking[1]}, which has no default; give it behind the "
            f"part that needs it, as in --{part}.{name} VALUE."
        )
    shown = re.search(r"--(\w+)\.help: Expected a dot import path string: (\S+)", flat)
    if shown is not None and shown[1] in PARTS:
        return registry.unknown(registry.singular(shown[1]), shown[2], classes(shown[1]))
    denied = re.search(r"Importing '(\S+)' is not allowed", flat)
    if denied is not None:
        return f"the configuration names {denied[1]}, {REFUSED}"
    option = re.search(r"Option '([\w.]+)' is not accepted", flat)
    if option is not None:
        return _foreign(option[1], flags)
    keys = [key for key in re.findall(r'Parser key "([\w.]+)"', flat) if key != "config"]
    if not keys:
        return flat
    problem = re.search(
        r"Problem with given class_path '(\S+)': (.*?)(?= - Expected| Given|$)", flat
    )
    if problem is not None:
        return f"{keys[-1]} is '{problem[1]}', which cannot be used: {problem[2].strip()}"
    return _wrong_value(keys[-1], flat)


def _wrong_value(key: str, flat: str) -> str:
    """The sentence for a value that is of none of the types that an option has."""
    types = re.findall(r"(?<!- )Expected a <class '(\w+)'>|- Expected a <class '([\w.]+)'>", flat)
    words = {"NoneType": "null", "collections.abc.Iterable": "list"}
    expected = [words.get(one + other, one + other) for one, other in types]
    listed = re.findall(r"Expected a typing\.Literal(\[[^\]]*\])", flat)
    expected += [f"one of {names}" for names in listed]
    name = re.search(r"Expected a dot import path string: (\S+)", flat)
    if name is not None:
        what = key.rpartition(".")[2]
        if what in PARTS:
            return registry.unknown(registry.singular(what), name[1], classes(what))
        # Numbers that may be tensors too are meant to be numbers.
        among = re.search(r"Subtypes: \[(.*?)\] Errors", flat)
        bases = re.findall(r"<class '[\w.]+\.(\w+)'>", among[1]) if among else []
        wanted = " or ".join(base for base in bases if base != "Tensor")
        if wanted or not expected:
            expected.insert(0, f"the name of a class{f' ({wanted})' if wanted else ''}")
    value = re.search(r"(?:Got|Given) value: (.*)$", flat)
    if value is None or not expected:
        return flat
    if value[1].lower().lstrip("+-.") in ("nan", "inf", "infinity") and "float" in expected:
        expected = ["a finite number"]
    return f"{key} is '{value[1]}'; expected {' or '.join(expected)}."


def _foreign(option: str, flags: Iterable[str]) -> str:
    """The sentence for an option that no chosen part has.

    >>> _foreign("mu", [])
    "nothing that was chosen has an option 'mu'; it belongs to FedProx."
    >>> _foreign("dropot", []), _foreign("agregator", ["--aggregator"])
    ("unknown option 'dropot'; did you mean 'dropout'?", "unknown option 'agregator'; did you mean \
'aggregator'?")
    """
    name = option.rpartition(".")[2]
    owners = sorted({owner for part in PARTS for owner in options(part).get(name, ())})
    if owners:
        few = ", ".join(owners[:12])
        few += f" and {len(owners) - 12} more" if len(owners) > 12 else ""
        return f"nothing that was chosen has an option '{name}'; it belongs to {few}."
    known = {flag.lstrip("-").rpartition(".")[2] for flag in flags}
    known.update(*(options(part) for part in PARTS))
    close = " or ".join(f"'{other}'" for other in sorted(get_close_matches(name, known, n=2)))
    hint = f"did you mean {close}?" if close else "'fedmer fit --help all' shows all."
    return f"unknown option '{name}'; {hint}"


def _stray(flag: str, flags: Iterable[str]) -> str:
    """The sentence for an option that is nobody's."""
    if not flag.startswith("-"):
        return f"'{flag}' belongs to no option; expected --OPTION VALUE."
    known = {*flags, *(f"--{part}.{option}" for part in PARTS for option in options(part))}
    last = flag.lstrip("-").rpartition(".")[2]
    tails = {name: name.lstrip("-").rpartition(".")[2] for name in sorted(known)}
    close = (
        [name for name in tails if name.startswith(flag) or tails[name] == last]
        or get_close_matches(flag, tails, n=1, cutoff=0.75)
        or [name for name in tails if tails[name].startswith(last)]
        or [name for name in tails if get_close_matches(last, [tails[name]], cutoff=0.8)]
    )
    hint = f"did you mean {' or '.join(close[:3])}? " if close else ""
    return f"unknown option {flag}; {hint}'fedmer fit --help all' shows all."
