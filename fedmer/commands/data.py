"""``fedmer data describe|convert|split|synth``: look at, convert, split and make corpora."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmer.arguments import Parser
from fedmer.data.client_files import check_empty, write_clients
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import TableOptions, native, read_corpus, sdt_pickle
from fedmer.data.formats.memory import MAX_GB
from fedmer.data.formats.tables import write as tables
from fedmer.data.synthetic import DIALOGUES, PRESETS, synthetic_corpus
from fedmer.errors import InputError
from fedmer.printable import printable

if TYPE_CHECKING:
    from jsonargparse import Namespace
    from rich.table import Table

    from fedmer.contracts.condition import Condition
    from fedmer.contracts.partitioner import Partitioner
    from fedmer.data.partition import ClientPartition

SYNTHETIC: dict[str, Callable[[ConversationCorpus, Path], None]] = {
    "npz": native.write,
    "sdt-pickle": sdt_pickle.write,
}

DEFAULT_SPLIT = "fedmer.plugins.partitioners.dialogue.Dialogue"
"""The split of ``fedmer fit``, whose defaults lie where importing them takes seconds."""


def main(words: Sequence[str]) -> int:
    """Run ``fedmer data``; returns the exit code, 0.

    Args:
        words: For example ``["data", "describe", "corpus.npz"]``.

    Raises:
        InputError: What was typed or read cannot be used; no file has changed then.
    """
    options = parser(words[1:]).parse_args(words[1:])
    _RUN[options.subcommand](options[options.subcommand])
    return 0


def parser(argv: Sequence[str]) -> Parser:
    """What parses the words behind ``fedmer data``.

    Args:
        argv: These words, since the options of splits are made only where one is named.
    """
    commands = Parser(prog="fedmer data", description="Look at, convert, split and make corpora.")
    add = commands.add_subcommands().add_subcommand

    describe = Parser(description="Show size, emotions and features of a corpus.")
    describe.add_argument(
        "path",
        type=Path,
        nargs="?",
        help="corpus file of any kind; without it the synthetic corpus",
    )
    describe.add_argument("--seed", type=int, default=0, help="of the split and synthetic corpus")
    describe.add_argument("--save", type=Path, help="write the split as a picture to this .png")
    if argv[:1] == ["describe"] and any("partitioner" in word for word in argv):
        _add_partitioner(describe, argv, "also show how this split spreads the labels")
    else:
        describe.add_argument(
            "--partitioner", type=str, help="also show how this split spreads the labels"
        )
    if any("conditions" in word for word in argv):
        _add_conditions(describe)
    else:
        describe.add_argument(
            "--conditions", type=str, help="also show what these do to clients of the split"
        )
    _add_reading(describe)
    add("describe", describe, help=describe.description)

    convert = Parser(description="Turn a corpus of any kind into the native format, or a table.")
    convert.add_argument("source", type=Path, help="corpus file of any kind")
    convert.add_argument(
        "target", type=Path, help="the .npz to write, or a .csv, .tsv, .jsonl or .parquet"
    )
    convert.add_argument("--seed", type=int, default=0, help="of the split of a table without one")
    convert.add_argument("--overwrite", action="store_true", help="replace the target")
    _add_reading(convert)
    add("convert", convert, help=convert.description)

    split = Parser(description="Write what each client holds as a corpus.")
    split.add_argument("corpus", type=Path, help="corpus file of any kind")
    split.add_argument(
        "out_dir", type=Path, help="a new or empty folder, for client-0.npz and so on"
    )
    split.add_argument("--seed", type=int, default=0, help="of the split")
    if argv[:1] == ["split"]:
        _add_partitioner(split, argv, "who holds what", DEFAULT_SPLIT)
    _add_reading(split)
    add("split", split, help=split.description)

    synth = Parser(description="Write a synthetic corpus that behaves like IEMOCAP.")
    synth.add_argument("target", type=Path, help="the file to write")
    synth.add_argument("--preset", choices=tuple(PRESETS), default="small", help="feature sizes")
    synth.add_argument("--seed", type=int, default=0, help="the corpus is a function of it")
    synth.add_argument("--dialogues", type=int, default=DIALOGUES, help="at least 5")
    synth.add_argument("--format", choices=tuple(SYNTHETIC), default="npz", help="kind of file")
    synth.add_argument("--overwrite", action="store_true", help="replace the target")
    add("synth", synth, help=synth.description)
    return commands


def _add_reading(parser: Parser) -> None:
    """Options of ``fedmer fit --data`` that say how a file is read."""
    parser.add_argument(
        "--max_gb",
        "--data.max_gb",
        type=float,
        default=MAX_GB,
        help="what the file may unpack to, in 10^9 bytes",
    )
    parser.add_argument(
        "--columns",
        "--data.columns",
        type=dict[str, str] | None,
        help="of a table: field or modality, and the name of its column, as {speaker: Who}",
    )
    parser.add_argument(
        "--labels",
        "--data.labels",
        type=list[str] | None,
        help="of a table: the emotions in their order, as [calm, glad]",
    )


def _read(path: Path, options: "Namespace") -> ConversationCorpus:
    table = TableOptions(options.columns, options.labels, options.seed)
    return read_corpus(path, options.max_gb, table)


def _add_partitioner(parser: Parser, argv: Sequence[str], purpose: str, default: str = "") -> None:
    """Add the split and its options; only on demand, since it imports every split there is."""
    from fedmer.contracts.partitioner import Partitioner
    from fedmer.plugins import registry

    registry.load("partitioners")
    parser.add_subclass_arguments(Partitioner, "partitioner", help=purpose)
    words = [word for argument in argv for word in argument.split("=", 1)]
    name = dict(pairwise(words)).get("--partitioner", "")
    if default and not name:
        # A parser's default would lend its number of clients to whichever split is named.
        parser.set_defaults({"partitioner": {"class_path": default}})
    known = [plugin.name for plugin in registry.plugins("partitioners")]
    if name.isidentifier() and name not in known:
        raise InputError(registry.unknown("partitioner", name, known))
    if not name and not default and "--partitioner.help" not in words:
        raise InputError(
            "an option of a split was given without the split; add --partitioner NAME, "
            f"one of {', '.join(known)}."
        )


def _add_conditions(parser: Parser) -> None:
    """Add conditions and their options; only on demand, since it imports torch."""
    from fedmer.contracts.condition import Condition
    from fedmer.plugins import registry

    registry.load("conditions")
    parser.add_argument(
        "--conditions", type=Condition | list[Condition] | None, help="what is wrong with clients"
    )


def _describe(options: "Namespace") -> None:
    from fedmer.console import Console
    from fedmer.data.describe import describe, suggested_recipe

    if options.save and not options.get("partitioner"):
        raise InputError(
            "--save writes the picture of a split; name one, such as --partitioner Speaker."
        )
    if options.get("conditions") and not options.get("partitioner"):
        raise InputError(
            "--conditions hold for clients of a split; name one, such as --partitioner Dialogue."
        )
    corpus = _read(options.path, options) if options.path else synthetic_corpus(options.seed)
    console = Console()
    console.print(describe(corpus))
    recipe = suggested_recipe(corpus) if options.path else None
    if recipe is not None:
        words = shlex.join(["fedmer", "fit", "--config", recipe, "--data.path", str(options.path)])
        console.print(f"A recipe for such a corpus: {words}", highlight=False, soft_wrap=True)
    if not options.get("partitioner"):
        return

    from fedmer.report.partition import partition_table, save_partition_picture

    clients = _partitioner(options).split(corpus, corpus.part("train"), options.seed)
    console.print(partition_table(corpus, clients))
    if options.get("conditions"):
        console.print(_conditions_table(corpus, clients, options))
    if options.save:
        save_partition_picture(corpus, clients, options.save)
        console.print(f"Saved {options.save}", highlight=False, soft_wrap=True)


def _conditions_table(
    corpus: ConversationCorpus, clients: "Sequence[ClientPartition]", options: "Namespace"
) -> "Table":
    from fedmer.conditions import ClientConditions
    from fedmer.data.batch import excerpt
    from fedmer.data.client_data import ClientData
    from fedmer.data.standardise import federated_statistics
    from fedmer.report.conditions import conditions_table

    named = options.conditions
    made: list[Condition] = [_made(one) for one in (named if isinstance(named, list) else [named])]
    conditions = ClientConditions(made, len(clients), len(corpus.label_names), options.seed)
    statistics = federated_statistics(corpus, clients)
    before = [
        ClientData(one.name, [excerpt(corpus, sample, statistics) for sample in one.samples])
        for one in clients
    ]
    after = [conditions.data(number, data) for number, data in enumerate(before)]
    partitioner = _partitioner(options)
    views = [v for dialogue in corpus.part("test") for v in partitioner.views(corpus, dialogue)]
    test = [excerpt(corpus, sample, statistics) for sample in views]
    return conditions_table(conditions, before, after, test)


def _partitioner(options: "Namespace") -> "Partitioner":
    made: Partitioner = _made(options.partitioner)
    return made


def _made(chosen: "Namespace") -> Any:
    # Made here rather than by the parser, which would bury the sentence of an InputError.
    module, _, name = chosen.class_path.rpartition(".")
    return getattr(import_module(module), name)(**chosen.get("init_args", {}))


def _convert(options: "Namespace") -> None:
    target = _free(options.target, options.overwrite)
    if target.suffix not in (".npz", *tables.SUFFIXES):
        raise InputError(
            f"{target} does not end in .npz, as the native format does, or in one of "
            f"{', '.join(tables.SUFFIXES)}, as tables do."
        )
    corpus = _read(options.source, options)
    (native.write if target.suffix == ".npz" else tables.write)(corpus, target)
    for note in corpus.notes:
        print(printable(note))
    _wrote(corpus, target)


def _split(options: "Namespace") -> None:
    from fedmer.console import Console
    from fedmer.report.partition import partition_table

    folder = options.out_dir
    check_empty(folder)
    corpus = _read(options.corpus, options)
    partitioner = _partitioner(options)
    clients = partitioner.split(corpus, corpus.part("train"), options.seed)
    write_clients(corpus, clients, folder, type(partitioner).__name__)
    Console().print(partition_table(corpus, clients))
    public = len(corpus) - len(corpus.part("train"))
    rest = f", and {public} dialogues of no client in public.npz" if public else ""
    print(printable(f"Wrote {folder}: {len(clients)} clients{rest}."))


def _synth(options: "Namespace") -> None:
    target = _free(options.target, options.overwrite)
    corpus = synthetic_corpus(options.seed, options.dialogues, PRESETS[options.preset])
    SYNTHETIC[options.format](corpus, target)
    _wrote(corpus, target)


def _free(path: Path, overwrite: bool) -> Path:
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or add --overwrite.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder; make it first.")
    return path


def _wrote(corpus: ConversationCorpus, target: Path) -> None:
    turns = sum(len(dialogue) for dialogue in corpus.conversations)
    said = f"Wrote {target}: {len(corpus)} dialogues, {turns} utterances ({corpus.fingerprint})."
    print(printable(said))


_RUN: Mapping[str, Callable[["Namespace"], None]] = {
    "describe": _describe,
    "convert": _convert,
    "split": _split,
    "synth": _synth,
}
