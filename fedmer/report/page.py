"""The page of a report: one HTML file that loads nothing."""

from html import escape
from importlib.resources import files
from string import Template

from fedmer.report.report import Report
from fedmer.report.scores import Line
from fedmer.report.sections import Section, sections_of

MARK = '<meta name="generator" content="fedmer report">'
"""In every page; a folder whose index.html has it may be written over."""


def page_of(report: Report) -> str:
    """The whole page, every name in it escaped."""
    sections = sections_of(report)
    here = files("fedmer.report")
    return Template((here / "page.html").read_text(encoding="utf-8")).substitute(
        title=escape(f"Federations on {report.corpus}"),
        style=(here / "page.css").read_text(encoding="utf-8"),
        lead=escape(_lead(report)),
        summary=_summary(report),
        contents="\n".join(f'<li><a href="#{s.id}">{escape(s.title)}</a></li>' for s in sections),
        sections="\n".join(_section(section) for section in sections),
    )


def _section(section: Section) -> str:
    title = escape(section.title)
    return f'<section id="{section.id}">\n<h2>{title}</h2>\n{section.body}</section>'


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
    """Who leads, by how much over what needs no federation, and what is missing."""
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
    out = f"<p>{escape(' '.join(sentences))}</p>"
    if report.notes:
        items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
        out += f'\n<ul class="notes caption">{items}</ul>'
    return out


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _score(line: Line) -> str:
    score = line.weighted_f1
    spread = "" if score.deviation is None else f" \u00b1 {score.deviation:.2f}"
    return f"{score.mean:.2f}{spread}"
