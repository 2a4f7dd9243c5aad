"""What a shell can offer behind ``fedmer``, as a script for it."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fedmer.option_help import kinds_of

SHELLS = ("bash", "zsh")

_SAFE = re.compile(r"[\w.+:/=-]+")
_BASH = """\
# What 'fedmer completion {shell}' printed; print it again when plugins have come or gone.
{before}_fedmer() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} option=${{COMP_WORDS[COMP_CWORD-1]}}
  local command=${{COMP_WORDS[1]}} words="" place class without="-"
  # Bash takes --option=value for three words.
  if [[ $word == "=" ]]; then
    word=""
  elif [[ $option == "=" ]]; then
    option=${{COMP_WORDS[COMP_CWORD-2]}}
  fi
  case $command in
    {nested}) [[ $COMP_CWORD -gt 2 ]] && command="$command ${{COMP_WORDS[2]}}" ;;
    {alike}) command={first} ;;
  esac
  if [[ $COMP_CWORD -eq 1 ]]; then
    words={commands}
  else
    case "$command $option" in
{values}
      *)
        # An option whose values are not known may take any, such as a file.
        [[ $option == --* && $word != -* ]] && without="--*"
        case $command in
{options}
        esac
        ;;
    esac
  fi
  if [[ $word == --* ]]; then
    for ((place = 2; place < COMP_CWORD; place++)); do
      class=${{COMP_WORDS[place+1]}}
      [[ $class == "=" ]] && class=${{COMP_WORDS[place+2]}}
      case "$command ${{COMP_WORDS[place]}} $class" in
{classes}
      esac
    done
  fi
  COMPREPLY=($(compgen -X "$without" -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _fedmer fedmer
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n"


@dataclass
class Offer:
    """What can stand behind a command.

    Args:
        options: Its options, and the subcommands that it has.
        values: Option -> what it can be, where that is a list.
        classes: Option -> class -> options that come with it.
    """

    options: list[str] = field(default_factory=list)
    values: dict[str, list[str]] = field(default_factory=dict)
    classes: dict[str, dict[str, list[str]]] = field(default_factory=dict)


def offers_of(name: str, parser: Any) -> Iterator[tuple[str, Offer]]:
    """What a parser takes, and each of its subcommands.

    Args:
        name: The command, as in ``data``.
        parser: Of jsonargparse, of what follows the command.
    """
    found = Offer()
    for action in parser._actions:
        flags = [flag for flag in action.option_strings if flag.startswith("--")]
        if isinstance(action.choices, dict):
            found.options += list(action.choices)
            for below, inner in action.choices.items():
                yield from offers_of(f"{name} {below}", inner)
        elif flags and flags[0] != "--help":
            found.options += [flag for flag in flags if not flag.endswith("+")]
            known = _known(action)
            if known:
                found.values |= dict.fromkeys(flags, known)
        elif action.choices:
            found.options += [str(choice) for choice in action.choices]
    found.options.append("--help")
    yield name, found


def _known(action: Any) -> list[str]:
    """What an option can be, if that is a list; nothing where it may be left out."""
    if action.nargs == "?":
        return []
    if action.choices:
        return [str(choice) for choice in action.choices]
    found = list(kinds_of(getattr(action, "_typehint", None)))
    return [] if any(kind.isupper() or "." in kind or "[" in kind for kind in found) else found


def script(shell: str, offers: Mapping[str, Offer], alike: Sequence[str]) -> str:
    """The script that a shell reads.

    Args:
        shell: One of :data:`SHELLS`.
        offers: Command -> what can stand behind it.
        alike: Commands that take what the first of them takes.
    """
    nested = sorted({name.split()[0] for name in offers if " " in name})
    values = [
        f"      {_pattern(name, option)}) words={_words(known)} ;;"
        for name, offer in offers.items()
        for option, known in offer.values.items()
    ]
    options = [
        f"          {shlex.quote(name)}) words={_words(offer.options)} ;;"
        for name, offer in offers.items()
    ]
    classes = [
        f'        {_pattern(name, option, chosen)}) words="$words "{_words(known)} ;;'
        for name, offer in offers.items()
        for option, groups in offer.classes.items()
        for chosen, known in groups.items()
    ]
    return _BASH.format(
        shell=shell,
        before=_ZSH if shell == "zsh" else "",
        nested="|".join(nested),
        alike="|".join(alike),
        first=alike[0],
        commands=_words(sorted({name.split()[0] for name in offers} | set(alike))),
        values="\n".join(values),
        options="\n".join(options),
        classes="\n".join(classes),
    )


def _pattern(*words: str) -> str:
    return shlex.quote(" ".join(words))


def _words(found: Iterable[str]) -> str:
    """A list for the shell, without what it would not read as a word."""
    return shlex.quote(" ".join(word for word in found if _SAFE.fullmatch(word)))
