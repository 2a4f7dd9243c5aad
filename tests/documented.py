"""The commands that the documents tell a person to type, as they stand there."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATIONS = sorted((ROOT / "experiments").rglob("*.yaml"))
SWEEPS = [f for f in CONFIGURATIONS if "\nmethod:" in f.read_text(encoding="utf-8")]

_FENCED = re.compile(r"^```.*\n((?:.*\n)*?)^```$", re.MULTILINE)
_COMMAND = re.compile(r"^(?:[A-Z_]+=\S+ )?(?:/\S+/)?(?:fedmer|make) .*$")


@dataclass(frozen=True)
class Command:
    """A line to type.

    Args:
        place: The document, from the root of the repository.
        text: The line, without a prompt and a comment.
    """

    place: str
    text: str

    @property
    def words(self) -> list[str]:
        """What follows ``fedmer``, or all of another command."""
        words = shlex.split(self.text)
        at = next((i for i, word in enumerate(words) if Path(word).name == "fedmer"), -1)
        return words[at + 1 :]


def commands() -> list[Command]:
    """All of them, each once a document."""
    found = {}
    for page in PAGES:
        for block in _FENCED.findall(page.read_text(encoding="utf-8")):
            found |= dict.fromkeys(_in(page, block))
    for file in CONFIGURATIONS:
        comment = re.findall(r"^#  ?(.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
        found |= dict.fromkeys(_in(file, "\n".join(comment)))
    return list(found)


def _in(document: Path, block: str) -> Iterator[Command]:
    place = str(document.relative_to(ROOT))
    for line in block.replace("\\\n", " ").splitlines():
        line = line.strip().removeprefix("$ ").removeprefix("ExecStart=")
        if _COMMAND.match(line):
            yield Command(place, " ".join(shlex.quote(w) for w in shlex.split(line, comments=True)))
