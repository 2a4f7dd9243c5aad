"""``fedmer completion bash|zsh``: a script by which the shell completes what is typed."""

from collections.abc import Iterator, Sequence

from fedmer.arguments import Parser
from fedmer.commands.fit import COMMANDS
from fedmer.completion import SHELLS, Offer, offers_of, script


def parser() -> Parser:
    """What parses the words behind ``fedmer completion``."""
    made = Parser(
        prog="fedmer completion",
        description="Print a script by which a shell completes commands, options and plugins.",
    )
    made.add_argument("shell", choices=SHELLS, help="which shell")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer completion``; returns the exit code, 0.

    Args:
        words: For example ``["completion", "bash"]``.

    Raises:
        InputError: There is no such shell.
    """
    shell = parser().parse_args(words[1:]).shell
    offers = dict(_light())
    offers["fit"] = _of_fit()
    print(script(shell, offers, COMMANDS), end="")
    return 0


def _light() -> Iterator[tuple[str, Offer]]:
    from fedmer.commands import (
        audit,
        data,
        demo,
        deploy,
        doctor,
        export,
        extract,
        plugins,
        predict,
        report,
        sweep,
    )
    from fedmer.plugins import registry

    parsers = {
        "audit": audit.parser(),
        "completion": parser(),
        "data": data.parser(["describe", "--partitioner", "Dialogue"]),
        "demo": demo.parser(),
        "deploy": deploy.parser(),
        "doctor": doctor.parser(),
        "export": export.parser(),
        "extract": extract.parser([]),
        "predict": predict.parser(),
        "report": report.parser(),
        "sweep": sweep.parser(),
    }
    for name, made in parsers.items():
        for command, offer in offers_of(name, made):
            if "--partitioner" in offer.options:
                offer.values["--partitioner"] = _names("partitioners")
            if name == "extract":
                offer.values |= _extractors()
            yield command, offer
    kinds = list(registry.KINDS)
    yield "plugins", Offer([*kinds, plugins.NEW, "--help"])
    ((_, offer),) = offers_of("plugins new", plugins.new_parser())
    yield "plugins new", Offer([*map(registry.singular, kinds), *offer.options])


def _of_fit() -> Offer:
    """What ``fedmer fit`` takes; it takes seconds, since it imports Lightning."""
    from fedmer.choice import PARTS, classes, options
    from fedmer.option_help import topics
    from fedmer.sweep.check import fit_parser

    made = fit_parser().options
    ((_, found),) = offers_of("fit", made)
    found.values["--help"] = topics(made)
    for part in PARTS:
        if f"--{part}" not in found.options:
            continue
        known: dict[str, list[str]] = {name: [] for name in classes(part) if name[0] != "_"}
        for option, owners in options(part).items():
            for owner in known.keys() & owners:
                known[owner].append(f"--{part}.{option}")
        found.values[f"--{part}"] = found.values[f"--{part}.help"] = list(known)
        found.classes[f"--{part}"] = known
    return found


def _names(kind: str) -> list[str]:
    from fedmer.plugins import registry

    return [plugin.name for plugin in registry.plugins(kind)]


def _extractors() -> dict[str, list[str]]:
    """Option of ``fedmer extract`` -> extractors that read what it is made of."""
    from fedmer.choice import classes
    from fedmer.extraction.making import MEDIA

    found = classes("extractor")
    return {
        f"--{modality}": [name for name, made in found.items() if made.reads == medium]
        for modality, medium in MEDIA.items()
    }
