"""The page of a report: one HTML file that loads nothing."""

import base64
import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import fedmer
from fedmer.errors import InputError
from fedmer.record.prototypes import FILE as PROTOTYPES
from fedmer.record.prototypes import read_prototypes
from fedmer.report.differences import RESAMPLES
from fedmer.report.figures import bytes_against_score, concentration, curves, holdouts, weight_map
from fedmer.report.grid import Table
from fedmer.report.prototype_figure import prototype_figure
from fedmer.report.report import Report
from fedmer.report.scores import Line
from fedmer.report.selection import NOT_A_RESULT
from fedmer.report.svg import PALETTE, dash

MARK = '<meta name="generator" content="fedmer report">'
"""In every page; a folder whose index.html has it may be written over."""


def page_of(report: Report, tables: Mapping[str, Table], command: str) -> str:
    """The whole page, every name in it escaped.

    Args:
        report: What it says.
        tables: Name of the file -> the table in it.
        command: That made it.
    """
    script = (Path(__file__).parent / "page.js").read_text(encoding="utf-8")
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    confusions = [
        (row, np.sum([run.confusion for run in row.runs], axis=0).tolist()) for row in report.rows
    ]
    return pages.get_template("page.html").render(
        mark=Markup(MARK),
        # A browser runs this script and no other, whatever a name may hold.
        script=Markup(script),
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=f"Made on {_today()} by fedmer {fedmer.__version__}:",
        command=command,
        report=report,
        lead=_lead(report),
        summary=_summary(report),
        tables=tables,
        not_a_result=NOT_A_RESULT,
        figures=_figures(report),
        confusions=confusions,
        resamples=RESAMPLES,
        seeds_compared=max((len(one.seeds) for one in report.differences), default=0),
        palette=len(PALETTE),
        dash=dash,
    )


def _today() -> str:
    """The day in UTC; that of ``SOURCE_DATE_EPOCH`` for whoever wants the same page every day."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    now = datetime.fromtimestamp(int(given), UTC) if given.isdecimal() else datetime.now(UTC)
    return f"{now:%Y-%m-%d}"


def _figures(report: Report) -> dict[str, Any]:
    """Name -> a figure, or several with their titles; None or empty where there is none."""
    rows = report.rows
    kept = any(run.result["holdouts"] for row in rows for run in row.runs)
    weights = [
        (row.name, weight_map(row.runs[0], number))
        for number, row in enumerate(rows)
        if row.runs[0].clients
    ]
    return {
        "curves": curves(rows),
        "holdouts": holdouts(rows) if kept else None,
        "bytes": bytes_against_score(rows),
        "concentration": concentration(rows) if weights else None,
        "weights": weights,
        "prototypes": _prototypes(report),
    }


def _prototypes(report: Report) -> list[tuple[str, Markup]]:
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
            figure, explained = prototype_figure(
                f"prototypes{place}x{number}", rounds, values, known, report.labels
            )
            tiles.append((f"{row.name}, {site}: {100 * explained:.0f} % of the variance", figure))
    return tiles


def _lead(report: Report) -> str:
    runs = [run for row in report.rows for run in row.runs]
    seeds = sorted({run.seed for run in runs})
    shown = f"{_counted(len(runs), 'run')} in {_counted(len(report.rows), 'row')}"
    named = ", ".join(map(str, seeds)) if len(seeds) <= 10 else f"{seeds[0]} to {seeds[-1]}"
    parts = [f"{shown}, {'seed' if len(seeds) == 1 else 'seeds'} {named}"]
    words = {"aggregator": "rule", "network": "network", "partitioner": "split"}
    parts += [f"{words[part]} {name}" for part, name in report.constants.items()]
    which = {run.which for run in runs}
    if which == {"selected"}:
        parts.append("the round selected by validation")
    elif which == {"last"}:
        parts.append("the last round")
    return "; ".join(parts) + "."


def _summary(report: Report) -> str:
    """The best row, its lead over what needs no federation, and which rows differ clearly."""
    trained = [line for line in report.lines if line.kind == "runs"]
    best = max(trained, key=lambda line: line.weighted_f1.mean)
    sentences = [f"Highest weighted F1: {best.name} with {_score(best)} points."]
    baselines = [line for line in report.lines if line.kind == "baseline"]
    if baselines:
        top = max(baselines, key=lambda line: line.weighted_f1.mean)
        lead = best.weighted_f1.mean - top.weighted_f1.mean
        apart = f"{abs(lead):.2f} {'less' if lead > 0 else 'more'}"
        sentences.append(f"The best baseline ({top.name}) has {_score(top)}, {apart}.")
    known = [d for d in report.differences if d.weighted_f1 is not None and not d.note]
    clear = [d.row for d in known if d.weighted_f1 is not None and d.weighted_f1.clear]
    if known:
        named = "; ".join(clear) if clear else "none"
        sentences.append(f"Clearly apart from {report.baseline} in weighted F1: {named}.")
    return " ".join(sentences)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _score(line: Line) -> str:
    score = line.weighted_f1
    spread = "" if score.deviation is None else f" \u00b1 {score.deviation:.2f}"
    return f"{score.mean:.2f}{spread}"
