"""What a parser says against an argument, as one sentence that a person understands."""

import re
from difflib import get_close_matches

from fedmer.errors import InputError
from fedmer.plugins import registry


def cause(error: BaseException) -> str:
    """The plugin's own sentence, out of the frames that a parser puts around it."""
    here: BaseException | None = error
    while here is not None:
        if isinstance(here, InputError | ImportError):
            return " ".join(str(here).split())
        here = here.__cause__ or here.__context__
    inner = re.findall(r"^  - (?!Expected a <class 'NoneType'>)(.+)$", str(error), re.MULTILINE)
    return inner[0] if inner else str(error)


def _foreign(option: str) -> str:
    """The sentence for an option that no chosen part has.

    >>> _foreign("mu")
    "nothing that was chosen has an option 'mu'; it belongs to FedProx."
    >>> _foreign("beta")
    "unknown option 'beta'; did you mean 'beta1' or 'beta2'?"
    """
    known = registry.options()
    name = option.rpartition(".")[2]
    if name in known:
        owners = ", ".join(known[name])
        return f"nothing that was chosen has an option '{name}'; it belongs to {owners}."
    close = " or ".join(f"'{other}'" for other in sorted(get_close_matches(name, known, n=2)))
    hint = f"did you mean {close}?" if close else "'fedmer fit --help' shows all."
    return f"unknown option '{name}'; {hint}"


def sentence(message: str) -> str:
    r"""What a parser's message says, as one sentence.

    >>> sentence("Parser key \"mu\": Expected a <class 'float'>. Got value: x")
    "mu is 'x'; expected float."
    """
    flat = " ".join(message.split())
    option = re.search(r"Option '([\w.]+)' is not accepted", flat)
    if option is not None:
        return _foreign(option[1])
    key = re.search(r'Parser key "([\w.]+)"', flat)
    if key is None:
        return flat
    name = re.search(r"Expected a dot import path string: (\S+)", flat)
    if name is not None:
        what = key[1].rpartition(".")[2]
        kinds = {registry.singular(kind): kind for kind in registry.KINDS}
        if what in kinds:
            known = [plugin.name for plugin in registry.plugins(kinds[what])]
            return registry.unknown(what, name[1], known)
        return f"unknown {what} '{name[1]}'; expected a class name or a dotted path to one."
    value = re.search(r"(?:Got|Given) value: (.*)$", flat)
    types = re.findall(r"Expected a (?:<class '(\w+)'>|typing\.Literal(\[.*?\]))", flat)
    if value is None or not types:
        return flat
    expected = " or ".join("null" if t == "NoneType" else t or f"one of {c}" for t, c in types)
    return f"{key[1]} is '{value[1]}'; expected {expected}."
