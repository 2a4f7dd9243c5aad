"""``fedmer export MODEL TARGET``: a trained model by itself."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.errors import InputError
from fedmer.printable import printable

if TYPE_CHECKING:
    from fedmer.bundle.model import Model


def parser() -> Parser:
    """What parses the words behind ``fedmer export``."""
    made = Parser(
        prog="fedmer export",
        description="Write a trained model by itself: weights, description and model card.",
    )
    add = made.add_argument
    add("model", metavar="MODEL", type=Path, help="a run, one of its checkpoints, or a bundle")
    add("target", metavar="TARGET", help="a new folder or file, or hf://OWNER/NAME on the hub")
    add(
        "--format",
        choices=("bundle", "torchscript", "onnx"),
        default="bundle",
        help="a folder that fedmer.load reads, or one file that other programs run",
    )
    add("--trust", action="store_true", help="let the model name classes of your own")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer export``; returns the exit code, 0.

    Args:
        words: For example ``["export", "runs/a", "model"]``.

    Raises:
        InputError: There is no such model, it cannot be written so, or the target is taken.
    """
    options = parser().parse_args(words[1:])
    if options.target.startswith("hf://"):
        if options.format != "bundle":
            raise InputError("The hub takes a bundle; leave --format out.")
        from fedmer.bundle.hub import push

        with TemporaryDirectory() as folder:
            place = Path(folder) / "bundle"
            model = _export(options.model, place, options.trust)
            where = push(place, options.target)
    elif options.format == "bundle":
        model = _export(options.model, Path(options.target), options.trust)
        where = options.target
    else:
        from fedmer.bundle.graphs import save_graph
        from fedmer.bundle.model import load

        if Path(options.target).exists():
            raise InputError(f"{options.target} exists; choose another name.")
        model = load(options.model, options.trust)
        save_graph(model, Path(options.target), options.format)
        where = options.target
    features = ", ".join(f"{name} {width}" for name, width in model.features.items())
    network = type(model.network).__name__
    print(printable(f"Wrote {where}: {network} on {features}, for {', '.join(model.labels)}."))
    return 0


def _export(source: Path, target: Path, trusted: bool) -> "Model":
    from fedmer.bundle.export import export

    return export(source, target, trusted)
