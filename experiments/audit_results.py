"""The tables of attacks in experiments/results/privacy.md and docs/threat-model.md.

    fedmer sweep experiments/sweeps/results/audit.yaml -- --data.path meld_dev.npz
    fedmer audit runs/audit
    fedmer sweep experiments/sweeps/results/audit_groups.yaml -- --data.path meld_text.npz
    fedmer audit runs/audit_groups --attacks group sender --groups experiments/meld_genders.csv
    python experiments/audit_results.py              # reads runs/, fills the pages' marked places

Trials that are not finished or not audited are left out; the column of seeds says how many are
there.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean

from experiments.marked_places import replace
from fedmer.report.attacks import Figure, over_seeds, read_audit
from fedmer.report.collect import collect
from fedmer.report.grouping import Row, rows_of

ROOT = Path(__file__).resolve().parent.parent
PRIVACY = ROOT / "experiments" / "results" / "privacy.md"
PAGES = {"audit": (PRIVACY, ROOT / "docs" / "threat-model.md"), "audit_groups": (PRIVACY,)}
"""Sweep -> where its table is."""
AUDIT = {
    "learnt from: AUC": ("shadows", "utterances: AUC"),
    "hits at 1 %": ("shadows", "utterances: hits at 1 % false"),
    "labels": ("labels", "distance to the histogram"),
    "sender, update": ("sender", "by update"),
    "sender, prototypes": ("sender", "by prototypes"),
    "mean of 1": ("prototypes", "means of 1"),
    "of 5 or more": ("prototypes", "means of 5 or more"),
    "single utterance": ("features", "utterance found"),
}
"""Title -> attack and figure."""
GROUPS = {
    "gender, update": ("group", "by update"),
    "gender, prototypes": ("group", "by prototypes"),
    "sender, update": ("sender", "by update"),
    "sender, prototypes": ("sender", "by prototypes"),
}
TABLES = {"audit": ("attacks", AUDIT), "audit_groups": ("groups", GROUPS)}
"""Sweep -> its marked place, and columns."""
NAMES = {
    "none": "none",
    "clip_norm": "`ClipNorm`, 0.5",
    "noise_server": "`GaussianNoise` at the server, 0.05",
    "noise_client_weak": "`GaussianNoise` on clients, 0.01",
    "noise_client": "`GaussianNoise` on clients, 0.1",
    "sign": "`Compression`, sign",
    "top_k": "`Compression`, top 5 %",
    "secure_sum": "`SecureSum`",
}
"""Of the files in experiments/sweeps/protections, in the order of the table."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where the sweep is.")
    options = parser.parse_args()
    for sweep, (place, columns) in TABLES.items():
        trials = sorted(path.parent for path in (options.runs / sweep).glob("*/audit.json"))
        if not trials:
            print(f"No run in {options.runs / sweep} was audited; its table stays as it is.")
            continue
        rows, _ = rows_of(collect(trials).runs)
        block = "\n".join(lines(rows, columns))
        for page in PAGES[sweep]:
            text = replace(page, page.read_text(encoding="utf-8"), place, block)
            page.write_text(text, encoding="utf-8")
            print(f"The table of {place} is in {page.relative_to(ROOT)}.")
    return 0


def lines(rows: Sequence[Row], columns: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """A line a protection, the mean over seeds and half the width of its interval; and chance."""
    yield f"| | seeds | wF1 | {' | '.join(columns)} |"
    yield f"|---|--:|--:|{'--:|' * len(columns)}"
    known = {row.name: row for row in rows}
    for name, title in NAMES.items():
        if name not in known:
            continue
        row = known[name]
        scores = [run.result[run.which]["scores"]["test"]["weighted_f1"] for run in row.runs]
        cells = [str(len(scores)), f"{100 * fmean(scores):.1f}"]
        cells += [_cell(figures(row, *column)) for column in columns.values()]
        yield f"| {title} | {' | '.join(cells)} |"
    chances = [_chance([f for row in rows for f in figures(row, *c)]) for c in columns.values()]
    yield f"| *by chance* | | | {' | '.join(chances)} |"


def figures(row: Row, attack: str, name: str) -> list[Figure]:
    """One a run that has it."""
    audits = [audit for audit in (read_audit(run.path) for run in row.runs) if audit]
    found = [audit.findings[attack].figures for audit in audits if attack in audit.findings]
    return [figure for one in found for figure in one if figure.name == name]


def _cell(found: Sequence[Figure]) -> str:
    if not found:
        return "\u2013"
    value, low, high = over_seeds(found)
    spread = "" if low is None or high is None else f" ± {(high - low) / 2:.2f}"
    return f"{value:.2f}{spread}"


def _chance(found: Sequence[Figure]) -> str:
    return f"{fmean(figure.chance for figure in found):.3f}" if found else ""


if __name__ == "__main__":
    raise SystemExit(main())
