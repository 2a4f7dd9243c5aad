"""Figures of matplotlib as SVG that lives inside a page and takes its colours."""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#b5508f", "#e69f00", "#56b4e9", "#707880")
"""Of M. Okabe and K. Ito, for colour-blind people too; yellow would be lost on white."""

DASHES = ("", "6 2", "1.5 1.5")
"""After seven rows the colours come again with another line."""

INK, RULE = "#010101", "#020202"
"""What stands for the page's text and line colours while a figure is drawn."""


def colour(number: int) -> str:
    """The colour of a row, the same in every figure of a page."""
    return PALETTE[number % len(PALETTE)]


def dash(number: int) -> str:
    """The dashes of a row, as SVG writes them; empty for a solid line."""
    return DASHES[number // len(PALETTE) % len(DASHES)]


def line_style(number: int) -> Any:
    """The same for matplotlib."""
    parts = tuple(float(part) for part in dash(number).split())
    return (0, parts) if parts else "solid"


@contextmanager
def drawing(width: float, height: float) -> Iterator["Figure"]:
    """A figure under fedmer's settings, whatever the user's are.

    Args:
        width: Inches.
        height: Inches.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings: Any = {
        # Labels come from corpora: text is never markup.
        "text.parse_math": False,
        "text.usetex": False,
        "svg.fonttype": "none",
        "svg.hashsalt": "fedmer",
        # A vertex for every value, which the page's script reads.
        "path.simplify": False,
        "font.size": 9,
        "axes.edgecolor": RULE,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": RULE,
        "grid.alpha": 0.35,
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.6,
    }
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(settings)
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        yield figure


def row_id(number: int, what: str) -> str:
    """For matplotlib's ``gid``: what has it is of a row, and is switched off in the legend."""
    return f"row{number}-{what}"


def svg_of(
    figure: "Figure", name: str, title: str, values: Mapping[str, Sequence[str]] | None = None
) -> Markup:
    """The figure as an ``<svg>`` for a page, to be called within :func:`drawing`.

    Colours become the page's variables, ids get the name in front so that those of two figures do
    not meet, and nothing points outside.

    Args:
        figure: What was drawn.
        name: Of letters and digits, unique in the page.
        title: What a screen reader says.
        values: Id of a line or of dots -> what each of their points is, in words.
    """
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    head, _, body = svg.partition(">")
    box = re.search(r'viewBox="([^"]*)"', head)
    assert box is not None
    body = re.sub(r'(<[^<>]*?\s)id="([^"]*)"', rf'\1id="{name}-\2"', body)
    body = re.sub(r'xlink:href="#([^"]*)"', rf'href="#{name}-\1"', body)
    body = body.replace("xlink:href=", "href=")
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    body = re.sub(rf'(id="{name}-row(\d+)-[^"]*")', r'\1 data-row="\2"', body)
    for number, value in enumerate(PALETTE):
        body = body.replace(value, f"var(--row-{number})")
    body = body.replace(INK, "var(--ink)").replace(RULE, "var(--rule)")
    # Last, so that nothing is replaced in words from outside.
    for gid, words in (values or {}).items():
        said = f'id="{name}-{gid}"'
        body = body.replace(
            said, f'{said} data-values="{escape(json.dumps(list(words), ensure_ascii=False))}"', 1
        )
    head = Markup('<svg viewBox="{}" role="img" aria-label="{}">')
    return head.format(box[1], title) + Markup(body.strip())
