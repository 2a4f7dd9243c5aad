"""Names from outside, as a terminal may have them."""

import unicodedata

_JOINERS = "\u200c\u200d"
"""They only shape letters and emoji, and some languages are misspelt without them."""


def printable(text: str) -> str:
    r"""The text on one line, with everything that steers a terminal written out.

    Escapes and other control characters, line ends, characters that turn the direction of writing,
    and halves of surrogate pairs, which no output takes, are written as Python writes them. So
    different names stay different ones.

    >>> print(printable("Anna\x1b[2J\nB\u00e9la\u202e"))
    Anna\x1b[2J\nBéla\u202e
    """
    return "".join(_visible(character) for character in text)


def drawable(text: str) -> str:
    r"""The same for a picture of matplotlib, which reads what stands between two $ as mathematics.

    >>> print(drawable("$happy$"))
    \$happy\$
    """
    return printable(text).replace("$", r"\$")


def _visible(character: str) -> str:
    steers = unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    if not steers or character in _JOINERS:
        return character
    return character.encode("unicode_escape").decode("ascii")
