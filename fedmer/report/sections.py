"""The sections of the page, each a heading, what is seen, and a table or a figure."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.record.prototypes import FILE as PROTOTYPES
from fedmer.record.prototypes import read_prototypes
from fedmer.report import captions
from fedmer.report.figures import bytes_against_score, concentration, curves, holdouts, weight_map
from fedmer.report.grouping import Row
from fedmer.report.prototype_figure import prototype_figure
from fedmer.report.report import Report
from fedmer.report.score_table import score_grid
from fedmer.report.side_tables import byte_table, client_table, difference_table
from fedmer.report.svg import PALETTE, dash


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Args:
        id: Of letters, for the table of contents.
        title: Plain text.
        body: HTML.
    """

    id: str
    title: str
    body: str


def sections_of(report: Report) -> list[Section]:
    """All of them; one that has nothing to show says why."""
    return [
        _scores(report),
        _differences(report),
        _convergence(report),
        _confusion(report),
        _clients(report),
        _bytes(report),
        _weights(report),
        _prototypes(report),
        _runs(report),
    ]


def _scores(report: Report) -> Section:
    personal = any(row.personal for row in report.rows)
    above = captions.SCORES + (captions.PERSONAL_ROWS if personal else "")
    grid = score_grid(report.lines, report.labels).html()
    return Section("scores", "Scores", _caption(above) + grid + _caption(captions.AUDIT))


def _differences(report: Report) -> Section:
    name = report.baseline
    title = f"Differences to {name}"
    if not report.differences:
        return Section("differences", title, _caption(captions.NO_DIFFERENCES))
    seeds = max(len(one.seeds) for one in report.differences)
    table = difference_table(report.differences).grid.html()
    return Section("differences", title, _caption(captions.differences_to(name, seeds)) + table)


def _convergence(report: Report) -> Section:
    figure = _legend(report.rows) + _figure(curves(report.rows))
    return Section("convergence", "Convergence", _caption(captions.CONVERGENCE) + figure)


def _confusion(report: Report) -> Section:
    tiles = [
        (row.name, _matrix(np.sum([run.confusion for run in row.runs], axis=0), report.labels))
        for row in report.rows
    ]
    return Section("confusion", "Confusion", _caption(captions.CONFUSION) + _tiles(tiles))


def _clients(report: Report) -> Section:
    if not any(run.result["holdouts"] for row in report.rows for run in row.runs):
        return Section("clients", "Clients", _caption(captions.NO_CLIENTS))
    body = client_table(report.rows).grid.html() + _figure(holdouts(report.rows))
    return Section("clients", "Clients", _caption(captions.CLIENTS) + body)


def _bytes(report: Report) -> Section:
    figure = _legend(report.rows) + _figure(bytes_against_score(report.rows))
    body = byte_table(report.rows).grid.html() + figure
    return Section("bytes", "Bytes", _caption(captions.BYTES) + body)


def _weights(report: Report) -> Section:
    tiles = [
        (row.name, weight_map(row.runs[0], number))
        for number, row in enumerate(report.rows)
        if row.runs[0].clients
    ]
    if not tiles:
        return Section("weights", "Weights of clients", _caption(captions.NO_WEIGHTS))
    body = _legend(report.rows) + _figure(concentration(report.rows)) + _tiles(tiles)
    return Section("weights", "Weights of clients", _caption(captions.WEIGHTS) + body)


def _prototypes(report: Report) -> Section:
    tiles = []
    for place, row in enumerate(report.rows):
        path = row.runs[0].path / PROTOTYPES
        if not path.exists():
            continue
        rounds, found = read_prototypes(path)
        for number, (site, (values, known)) in enumerate(found.items()):
            if values.shape[1] != len(report.labels):
                raise InputError(
                    f"{path}: site '{site}' has {values.shape[1]} classes; the corpus has "
                    f"{len(report.labels)}. Remove the file to leave it out."
                )
            figure, share = prototype_figure(
                f"prototypes{place}x{number}", rounds, values, known, report.labels
            )
            tiles.append((f"{row.name}, {site}: {100 * share:.0f} % of the variance", figure))
    if not tiles:
        return Section("prototypes", "Prototypes", _caption(captions.NO_PROTOTYPES))
    return Section("prototypes", "Prototypes", _caption(captions.PROTOTYPES) + _tiles(tiles))


def _runs(report: Report) -> Section:
    heads = "".join(f"<th>{head}</th>" for head in ("run", "row", "seed", "round", "command"))
    lines = "".join(
        f"<tr><th>{escape(run.path.name)}</th><td>{escape(row.name)}</td><td>{run.seed}</td>"
        f"<td>{run.round} ({run.which})</td>"
        f"<td><code>{escape(str(run.result['command']))}</code></td></tr>"
        for row in report.rows
        for run in row.runs
    )
    count = sum(len(row.runs) for row in report.rows)
    body = (
        f"<details><summary>{count} runs with seeds and commands</summary>"
        f'<div class="wide"><table class="runs"><thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div></details>"
    )
    return Section("runs", "Runs", body)


def _caption(text: str) -> str:
    return f'<p class="caption">{escape(" ".join(text.split()))}</p>\n'


def _figure(svg: str) -> str:
    return f"<figure>{svg}</figure>\n"


def _tiles(tiles: Sequence[tuple[str, str]]) -> str:
    inside = "".join(f"<div><h3>{escape(title)}</h3>{body}</div>\n" for title, body in tiles)
    return f'<div class="tiles">{inside}</div>\n'


def _legend(rows: Sequence[Row]) -> str:
    items = []
    for number, row in enumerate(rows):
        line = (
            f'<line x1="0" y1="5" x2="30" y2="5" stroke-width="2.5" '
            f'stroke="var(--row-{number % len(PALETTE)})" stroke-dasharray="{dash(number)}"/>'
        )
        items.append(
            f'<li><svg viewBox="0 0 30 10" aria-hidden="true">{line}</svg>{escape(row.name)}</li>'
        )
    return f'<ul class="legend">{"".join(items)}</ul>\n'


def _matrix(counts: NDArray[np.int64], labels: Sequence[str]) -> str:
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    heads = "".join(f'<th scope="col"><span>{escape(label)}</span></th>' for label in labels)
    lines = []
    for truth, label in enumerate(labels):
        cells = []
        for said, share in enumerate(shares[truth].tolist()):
            kind = ' class="right"' if said == truth else ""
            shade = f'style="--share:{share:.3f}" title="{counts[truth, said]} turns"'
            cells.append(f"<td{kind} {shade}>{100 * share:.0f}</td>")
        lines.append(f'<tr><th scope="row">{escape(label)}</th>{"".join(cells)}</tr>')
    return (
        f'<table class="confusion"><thead><tr><td></td>{heads}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )
