"""``fedmer data describe|convert|synth``: look at a corpus, convert one, write a synthetic one."""

import sys
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native, read_corpus, sdt_pickle
from fedmer.data.synthetic import DIALOGUES, PRESETS, synthetic_corpus
from fedmer.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from fedmer.plugins.partitioners.base import Partitioner

WRITERS: dict[str, Callable[[ConversationCorpus, Path], None]] = {
    "npz": native.write,
    "sdt-pickle": sdt_pickle.write,
}


def main(argv: list[str]) -> int:
    """Run ``fedmer data`` with the arguments that follow it.

    Args:
        argv: For example ``["describe", "corpus.npz"]``.

    Returns:
        The exit code: 0, or 2 when what was typed or read cannot be used. The sentence that says
        why is on the standard error stream then, and no file has changed.
    """
    from jsonargparse import ArgumentError

    try:
        parser = _parser(argv)
        options = parser.parse_args(argv)
        name = options.subcommand
        run = {"describe": _describe, "convert": _convert, "synth": _synth}[name]
        run(options[name], parser)
    except (InputError, ArgumentError) as error:
        print(f"fedmer: error: {error}", file=sys.stderr)
        return 2
    except SystemExit as end:
        # argparse leaves this way after --help and after a usage message.
        return int(end.code or 0)
    return 0


def _parser(argv: list[str]) -> "ArgumentParser":
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(prog="fedmer data", description="Look at, convert and make corpora.")
    commands = parser.add_subcommands()

    describe = ArgumentParser(description="Show size, emotions and features of a corpus.")
    describe.add_argument(
        "path", nargs="?", help="corpus file of any kind; without it the synthetic corpus"
    )
    describe.add_argument("--seed", type=int, default=0, help="of the split and synthetic corpus")
    describe.add_argument("--save", type=str, help="write the split as a picture to this .png")
    if argv[:1] == ["describe"] and any("partitioner" in word for word in argv):
        _add_partitioner(describe, argv)
    else:
        describe.add_argument(
            "--partitioner", type=str, help="also show how this split spreads the labels"
        )
    commands.add_subcommand("describe", describe)

    convert = ArgumentParser(description="Turn a corpus of any kind into the native format.")
    convert.add_argument("source", help="corpus file of any kind")
    convert.add_argument("target", help="the .npz to write")
    convert.add_argument("--overwrite", action="store_true", help="replace the target")
    commands.add_subcommand("convert", convert)

    synth = ArgumentParser(description="Write a synthetic corpus that behaves like IEMOCAP.")
    synth.add_argument("target", help="the file to write")
    synth.add_argument("--preset", choices=tuple(PRESETS), default="small", help="feature sizes")
    synth.add_argument("--seed", type=int, default=0, help="the corpus is a function of it")
    synth.add_argument("--dialogues", type=int, default=DIALOGUES, help="at least 5")
    synth.add_argument("--format", choices=tuple(WRITERS), default="npz", help="kind of file")
    synth.add_argument("--overwrite", action="store_true", help="replace the target")
    commands.add_subcommand("synth", synth)
    return parser


def _add_partitioner(parser: "ArgumentParser", argv: list[str]) -> None:
    """Add the split and its options; only on demand, since it imports every split there is."""
    from fedmer.plugins import registry
    from fedmer.plugins.partitioners.base import Partitioner

    registry.load("partitioners")
    parser.add_subclass_arguments(
        Partitioner, "partitioner", help="also show how this split spreads the labels"
    )
    words = [word for argument in argv for word in argument.split("=", 1)]
    name = dict(pairwise(words)).get("--partitioner", "")
    known = [plugin.name for plugin in registry.plugins("partitioners")]
    if name.isidentifier() and name not in known:
        raise InputError(registry.unknown("partitioner", name, known))
    if not name and "--partitioner.help" not in words:
        raise InputError(
            "an option of a split was given without the split; add --partitioner NAME, "
            f"one of {', '.join(known)}."
        )


def _describe(options: "Namespace", parser: "ArgumentParser") -> None:
    from rich.console import Console

    from fedmer.data.describe import describe

    if options.save and not options.get("partitioner"):
        raise InputError(
            "--save writes the picture of a split; name one, such as --partitioner Speaker."
        )
    corpus = read_corpus(options.path) if options.path else synthetic_corpus(options.seed)
    console = Console()
    console.print(describe(corpus))
    if not options.get("partitioner"):
        return

    from fedmer.report.partition import partition_table, save_partition_picture

    # Made here rather than by the parser, which would bury the sentence of an InputError.
    module, _, name = options.partitioner.class_path.rpartition(".")
    made = getattr(import_module(module), name)
    partitioner: Partitioner = made(**options.partitioner.get("init_args", {}))
    clients = partitioner.split(corpus, corpus.part("train"), options.seed)
    console.print(partition_table(corpus, clients))
    if options.save:
        save_partition_picture(corpus, clients, options.save)
        console.print(f"Saved {options.save}", highlight=False, soft_wrap=True)


def _convert(options: "Namespace", parser: "ArgumentParser") -> None:
    target = _free(options.target, options.overwrite)
    if target.suffix != ".npz":
        raise InputError(f"{target} does not end in .npz; the native format is an .npz file.")
    corpus = read_corpus(options.source)
    native.write(corpus, target)
    _wrote(corpus, target)


def _synth(options: "Namespace", parser: "ArgumentParser") -> None:
    target = _free(options.target, options.overwrite)
    corpus = synthetic_corpus(options.seed, options.dialogues, PRESETS[options.preset])
    WRITERS[options.format](corpus, target)
    _wrote(corpus, target)


def _free(target: str, overwrite: bool) -> Path:
    path = Path(target)
    if path.exists() and not overwrite:
        raise InputError(f"{path} exists; choose another name or add --overwrite.")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is not a folder; make it first.")
    return path


def _wrote(corpus: ConversationCorpus, target: Path) -> None:
    turns = sum(len(talk) for talk in corpus.conversations)
    print(f"Wrote {target}: {len(corpus)} dialogues, {turns} turns ({corpus.fingerprint}).")
