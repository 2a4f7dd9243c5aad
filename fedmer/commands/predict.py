"""``fedmer predict MODEL [SOURCE]``: the emotion of every utterance, as a table, a file and a
page."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.errors import InputError
from fedmer.printable import printable

if TYPE_CHECKING:
    from jsonargparse import Namespace

SHOWN = 40
"""Utterances that the terminal shows."""
FEW = 100
"""Labels below which a temperature is doubtful."""


def parser() -> Parser:
    """What parses the words behind ``fedmer predict``."""
    from fedmer.data.corpus import SPLITS
    from fedmer.data.formats.memory import MAX_GB

    made = Parser(
        prog="fedmer predict",
        description="Name the emotion of every utterance of a corpus or a table.",
    )
    add = made.add_argument
    add(
        "model",
        metavar="MODEL",
        nargs="?",
        help="a run, one of its checkpoints, a bundle, or hf://OWNER/NAME",
    )
    add(
        "source",
        metavar="SOURCE",
        type=Path,
        nargs="?",
        help="a corpus, a table of features, recordings or words, or - for lines of "
        "'speaker: words' on standard input; without it the test part of what the run was "
        "trained on",
    )
    add(
        "--ckpt_path",
        type=Path,
        metavar="FILE",
        help="a checkpoint instead of MODEL, as 'fedmer test' has it; predictions.csv is then "
        "written into the run's folder unless --out says otherwise",
    )
    add("--config", "-c", type=Path, metavar="FILE", help="the configuration of that run")
    add("--part", choices=SPLITS, help="only this part of the source")
    add("--out", type=Path, metavar="FILE", help="a .csv, .tsv, .jsonl or .parquet to write")
    add("--html", type=Path, metavar="FILE", help="a page of timelines to write")
    add(
        "--calibrate",
        nargs="?",
        const="",
        metavar="CORPUS",
        help="probabilities that say how often they are right, by the temperature fitted on "
        "validation, or on the labels of this corpus",
    )
    add("--abstain", type=float, default=0.0, metavar="P", help="no prediction below this chance")
    add(
        "--columns",
        "--data.columns",
        type=dict[str, str] | None,
        help="of a table, as of fedmer fit",
    )
    add("--labels", "--data.labels", type=list[str] | None, help="of a table, as of fedmer fit")
    add("--max_gb", type=float, default=MAX_GB, help="what a file may unpack to, in 10^9 bytes")
    add("--trust", action="store_true", help="let the model name classes of your own")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer predict``; returns the exit code, 0.

    Args:
        words: For example ``["predict", "runs/a", "new.csv", "--html", "new.html"]``.

    Raises:
        InputError: The model or the source cannot be used, or they do not fit; nothing was written
            then.
    """
    options = parser().parse_args(words[1:])
    _settle_model(options)
    if not 0 <= options.abstain <= 1:
        raise InputError(f"--abstain is {options.abstain}; expected a probability, 0 to 1.")
    for option in ("out", "html"):
        path = getattr(options, option)
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"--{option} is {path}, but its folder does not exist; make it first.")
    return _predict(options)


def _settle_model(options: "Namespace") -> None:
    """Name the model, however it was given."""
    from fedmer.runs import CONFIG

    checkpoint = options.ckpt_path
    if (options.model is None) == (checkpoint is None):
        raise InputError(
            "'fedmer predict' needs a trained network: name a run, a bundle or a checkpoint, or "
            "give --ckpt_path runs/NAME/checkpoints/last.ckpt."
        )
    if options.config is not None:
        run = checkpoint.resolve().parent.parent if checkpoint is not None else None
        if run is None or options.config.resolve() != run / CONFIG:
            raise InputError(
                f"--config is {options.config}, but a model has its configuration beside it; leave "
                "--config out."
            )
    if checkpoint is not None:
        options.model = str(checkpoint)
        options.out = options.out or checkpoint.resolve().parent.parent / "predictions.csv"


def _predict(options: "Namespace") -> int:
    from fedmer.bundle.model import load
    from fedmer.bundle.rows import agreement, check_ending, rows_of, table_of, write_rows
    from fedmer.bundle.source import Source, read_source, source_of_lines, source_of_run
    from fedmer.bundle.timeline import timeline_of
    from fedmer.console import Console
    from fedmer.data.corpus import UNLABELLED
    from fedmer.data.formats import TableOptions
    from fedmer.files import SHARED, write_atomically

    if options.out is not None:
        check_ending(options.out)
    model = load(options.model, options.trust)
    reading = TableOptions(options.columns, options.labels)

    def read(path: Path, part: str | None) -> Source:
        return read_source(path, model.contents, reading, part, options.max_gb)

    if options.source is None:
        run = Path(options.model).expanduser()
        source = source_of_run(run, model.contents, options.part or "test")
    elif str(options.source) == "-":
        if options.part is not None:
            raise InputError("--part means nothing for lines on standard input; leave it out.")
        if isinstance(sys.stdin, io.TextIOWrapper):
            sys.stdin.reconfigure(errors="surrogateescape")
        source = source_of_lines(sys.stdin, model.contents)
    else:
        source = read(options.source, options.part)
    if options.calibrate is not None:
        given = read(Path(options.calibrate), None).conversations if options.calibrate else ()
        print(f"temperature {model.calibrate(given):.3g}")
        labelled = sum(int((one.labels != UNLABELLED).sum()) for one in given)
        if given and labelled < FEW:
            print(f"It is fitted on {labelled} labels; below {FEW} it depends much on which.")
    predictions = model.predict_all(source.conversations)
    rows = rows_of(predictions, source.names, options.abstain)
    for note in source.notes:
        print(printable(note))
    Console().print(table_of(rows, SHOWN))
    if len(rows) > SHOWN:
        print(f"and {len(rows) - SHOWN} more utterances; --out FILE has them all")
    if agreement(rows, model.labels):
        print(agreement(rows, model.labels))
    silent = sum(row["prediction"] == "" for row in rows)
    if options.abstain:
        print(f"{silent} of {len(rows)} utterances have no prediction: below {options.abstain:g}")
    if options.out is not None:
        write_rows(rows, options.out)
        print(printable(f"Wrote {options.out}: {len(rows)} utterances"))
    if options.html is not None:
        name = options.source.name if options.source else str(options.model)
        name = "Standard input" if name == "-" else name
        page = timeline_of(predictions, rows, str(options.model), name)
        write_atomically(options.html, page, SHARED)
        print(printable(f"Wrote {options.html}: {len(predictions)} dialogues"))
    return 0
