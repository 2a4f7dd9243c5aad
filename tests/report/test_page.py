"""A report says what the runs say, loads nothing, and shows names as they are."""

import base64
import csv
import hashlib
import html
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from xml.etree.ElementTree import Element, fromstring

import numpy as np
import pytest

import fedmer
from fedmer.__main__ import main
from fedmer.report.audit import audit_file
from fedmer.report.collect import collect
from fedmer.report.confusion import class_scores, totals
from tests.report.made import CORPUS, make_run, predictions

SCRIPT = "<script>alert('$x$')</script>"
DAY = "86400"  # 2 January 1970
LABELS = ["<b>happy</b>", "a|b", "=1+1", "$\\frac$", "_x", SCRIPT]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen rows, one of them personal and with prototypes, of a corpus with hostile names."""
    runs = tmp_path_factory.mktemp("page")
    data = {"name": f"corpus {SCRIPT}", "labels": LABELS}
    for seed in (0, 1):
        make_run(runs / f"avg{seed}", seed, data=data)
        own = [predictions(0.6, 10 * seed + i) for i in range(3)]
        path = make_run(runs / f"own{seed}", seed, "FedProto", networks=own, data=data)
        draw = np.random.default_rng(seed)
        np.savez(
            path / "prototypes.npz",
            rounds=np.array([1, 2]),
            **{
                "prototypes.fused": draw.normal(size=(2, 6, 4)),
                "known.fused": draw.random((2, 6)) < 0.7,
            },
        )
    for number in range(13):
        name = f"Rule{number}{SCRIPT if number == 3 else ''}"
        make_run(runs / f"r{number}", aggregator=name, data=data, votes=number != 5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", DAY)
        assert main(["report", str(runs)]) == 0
    return runs / "report"


class Reader(HTMLParser):
    """Collects tags and what they point to, and what is said of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tables: list[dict[str, int]] = []
        self.classes: list[list[str]] = []
        self.values: list[tuple[str, list[str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        found = dict(attrs)
        if tag == "table":
            self.tables.append(Counter())
            self.classes.append((found.get("class") or "").split())
        elif self.tables:
            kind = f"{tag} without scope" if tag == "th" and "scope" not in found else tag
            self.tables[-1][kind] += 1
        if "data-values" in found:
            self.values.append((found["id"] or "", json.loads(found["data-values"] or "")))
        for name, value in attrs:
            assert not name.startswith("on"), f"<{tag} {name}> would run a script"
            if name in ("href", "src", "xlink:href", "srcset", "action", "data", "poster"):
                self.links.append(value or "")
            if name == "id":
                self.ids.append(value or "")


def drawings(text: str) -> list[Element]:
    """The figures of a page."""
    return [fromstring(svg) for svg in re.findall(r"<svg viewBox.*?</svg>", text, re.DOTALL)]


def test_the_page_loads_nothing_and_runs_no_script_but_its_own(report: Path) -> None:
    text = (report / "index.html").read_text()
    reader = Reader(text)
    assert not {"link", "iframe", "object", "embed", "img", "base"} & set(reader.tags)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert text.count("<script") == 1
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert f"script-src 'sha256-{digest}';" in policy[1]
    assert policy[1].startswith("default-src 'none';")
    beside = {path.name for path in report.iterdir()}
    outside = [link for link in reader.links if not link.startswith("#") and link not in beside]
    assert all(link.startswith("data:image/png;base64,") for link in outside)
    assert beside - {"index.html"} <= set(reader.links)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|url\((?!#)|@import", text)
    assert len(reader.ids) == len(set(reader.ids))
    targets = {link[1:] for link in reader.links if link.startswith("#")}
    assert targets <= set(reader.ids)
    assert len(re.findall(r"url\(#([^)]*)\)", text)) > 0
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(reader.ids)


def test_every_table_can_be_sorted_and_says_what_it_is(report: Path) -> None:
    reader = Reader((report / "index.html").read_text())
    sortable = [own for own in reader.classes if "sortable" in own]
    assert len(sortable) == 5
    assert {"confusion"} == {name for own in reader.classes for name in own} - {
        *("sortable", "many", "runs")
    }
    assert len(reader.tables) == len(sortable) + 15  # a confusion matrix a row
    for table in reader.tables:
        assert table["caption"] == 1
        assert table["thead"] == 1
        assert not table["th without scope"]


def test_a_table_wider_than_the_page_scrolls_in_a_box_that_keys_reach(report: Path) -> None:
    text = (report / "index.html").read_text()
    boxes = re.findall(r'<div class="wide"([^>]*)><table', text)
    assert len(boxes) == 4 + 15
    for box in boxes:
        assert 'tabindex="0"' in box
        assert 'role="region" aria-label="' in box


def test_everything_can_be_read_without_the_script(report: Path) -> None:
    text = (report / "index.html").read_text()
    still = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)
    main_part = still[still.index("<main>") :]
    assert " hidden" not in main_part
    body = html.unescape(re.sub(r"<[^>]*>", " ", main_part))
    with (report / "table.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            assert row["row"] in body
            for name in ("accuracy", "weighted_f1"):
                assert f"{float(row[name]):.2f}" in body


def test_points_say_their_values(report: Path) -> None:
    text = (report / "index.html").read_text()
    values = Reader(text).values
    said = dict(values)
    assert len(said) == len(values)
    runs = [run for run in collect([report.parent]).runs if run.path.name.startswith("avg")]
    for place, name, factor in ((1, "test_weighted_f1", 100), (2, "train_loss", 1)):
        line = said[f"curves{place}-row0-line"]
        for number, words in enumerate(line):
            each = [factor * float(run.rounds[number][name]) for run in runs]
            mean, spread = re.fullmatch(rf"round {number + 1}: (\S+) ± (\S+)", words).groups()  # type: ignore[union-attr]
            assert float(mean) == pytest.approx(np.mean(each), abs=0.006)
            assert float(spread) == pytest.approx(np.std(each, ddof=1), abs=0.006)
    groups = [
        group for svg in drawings(text) for group in svg.iter("g") if group.get("data-values")
    ]
    assert {group.get("id") for group in groups} == set(said)
    for group in groups:
        path = group.find("path")
        places = len(list(group.iter("use")))
        vertices = 0 if path is None else len(re.findall(r"[ML] ", path.get("d", "")))
        assert len(said[group.get("id", "")]) in (places, vertices)


def test_names_are_shown_and_never_obeyed(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert "<script>alert" not in text
    assert "<b>happy</b>" not in text
    assert "&lt;b&gt;happy&lt;/b&gt;" in text
    assert "&lt;b&gt;x&lt;/b&gt;" in text  # from a command
    markdown = (report / "table.md").read_text()
    assert "<script" not in markdown
    assert "a\\|b" in markdown
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in markdown.splitlines()[:10]}
    assert widths == {17}  # name, seeds, two columns an emotion, two overall


def test_every_row_has_its_colour_in_every_legend(report: Path) -> None:
    text = (report / "index.html").read_text()
    legends = re.findall(r'<ul class="legend">(.*?)</ul>', text, re.DOTALL)
    assert len(legends) == 4
    assert len(set(legends)) == 1
    strokes = re.findall(r'stroke="(var\(--row-\d\))" stroke-dasharray="([^"]*)"', legends[0])
    assert len(strokes) == len(set(strokes)) == 15


def test_a_legend_switches_everything_of_a_row_off(report: Path) -> None:
    text = (report / "index.html").read_text()
    legend = re.findall(r'<li data-row="(\d+)">', text)
    drawn = [group for svg in drawings(text) for group in svg.iter("g") if group.get("data-row")]
    assert set(legend) == {group.get("data-row") for group in drawn} == set(map(str, range(15)))
    first = {group.get("id") for group in drawn if group.get("data-row") == "0"}
    assert {f"curves1-row0-{what}" for what in ("line", "band")} < first
    assert {f"bytes-row0-{what}" for what in ("path", "end")} < first
    assert {f"holdouts-row0-{what}" for what in ("dots", "bar")} < first


def test_the_page_says_when_and_by_which_command_it_was_made(report: Path) -> None:
    text = (report / "index.html").read_text()
    assert f"Made on 1970-01-02 by fedmer {fedmer.__version__}:" in text
    assert f"<code>fedmer report {report.parent}</code>" in text


def test_the_tables_are_what_the_runs_hold(report: Path) -> None:
    with (report / "table.csv").open(newline="") as file:
        rows = {row["row"]: row for row in csv.DictReader(file)}
    assert list(rows)[:2] == ["FedAvg", "FedProto"]
    assert list(rows)[-2:] == ["linear probe", "majority class"]
    for name, prefix in (("FedAvg", "avg"), ("FedProto", "own")):
        runs = [run for run in collect([report.parent]).runs if run.path.name.startswith(prefix)]
        matrices = np.stack([run.confusion for run in runs])
        accuracy, weighted = totals(matrices)
        recall, f1 = class_scores(matrices)
        row = rows[name]
        assert row["seeds"] == "2"
        assert float(row["accuracy"]) == pytest.approx(100 * accuracy.mean(), abs=1e-4)
        assert float(row["weighted_f1"]) == pytest.approx(100 * weighted.mean(), abs=1e-4)
        deviation = 100 * np.std(weighted, ddof=1)
        assert float(row["sd_weighted_f1"]) == pytest.approx(deviation, abs=1e-4)
        for i, label in enumerate(LABELS):
            assert float(row[f"accuracy_{label}"]) == pytest.approx(
                100 * recall[:, i].mean(), abs=1e-4
            )
            assert float(row[f"f1_{label}"]) == pytest.approx(100 * f1[:, i].mean(), abs=1e-4)
            turns = sum(
                int((CORPUS.conversations[t].labels == i).sum()) for t in CORPUS.part("test")
            )
            assert int(row[f"support_{label}"]) == turns
    assert rows["Rule1"]["sd_accuracy"] == ""


def test_every_table_passes_its_own_audit(report: Path) -> None:
    for name, count in (("table.csv", 17), ("runs.csv", 17)):
        audit = audit_file(report / name)
        assert audit.consistent
        assert len(audit.findings) == 2 * count
        assert not audit.unchecked


def test_a_report_repeats_itself_and_replaces_an_older_one(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", DAY)
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    assert set(before) == {
        *("index.html", "table.csv", "table.md", "runs.csv", "differences.csv", "differences.md"),
        *("clients.csv", "clients.md", "bytes.csv", "bytes.md", "privacy.csv", "privacy.md"),
        *("modalities.csv", "modalities.md", "having.csv", "having.md"),
    }
    assert main(["report", str(report.parent)]) == 0
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_one_old_run_alone_is_reported(tmp_path: Path) -> None:
    run = make_run(tmp_path / "runs" / "old", votes=False)
    for name in ("clients.csv", "config.yaml"):
        (run / name).unlink()
    assert main(["report", str(run), "--out", str(tmp_path / "new" / "place")]) == 0
    text = (tmp_path / "new" / "place" / "index.html").read_text()
    assert "There is no other row to compare." in text
    assert "No run kept prototypes" in text
    assert "No run kept its clients.csv." in text


def test_the_command_line_needs_no_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    make_run(tmp_path / "a")
    make_run(tmp_path / "b", aggregator="Local")
    code = (
        "import sys; from fedmer.__main__ import main\n"
        f"assert main(['report', {str(tmp_path)!r}]) == 0\n"
        "heavy = [m for m in ('torch', 'pytorch_lightning') if m in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
