"""From a run to a bundle beside it or elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fedmer.bundle.calibration import fit_temperature
from fedmer.bundle.card import card
from fedmer.bundle.contents import Contents
from fedmer.bundle.files import CARD, is_bundle, read_bundle, write_bundle
from fedmer.bundle.model import Model
from fedmer.bundle.of_run import of_run
from fedmer.data.corpus import Conversation
from fedmer.errors import InputError
from fedmer.files import PRIVATE
from fedmer.runs import MODEL


def bundle_run(run: Path, validation: Sequence[Conversation]) -> Path:
    """Write the bundle of a finished run into its folder ``model``; returns that.

    Args:
        run: Its folder.
        validation: Dialogues that nobody learnt from, to fit a temperature on.

    Raises:
        InputError: A file of the run is damaged, or the folder cannot be written.
    """
    # What a person typed chose its classes, and they are imported.
    model = Model(of_run(run), str(run), trusted=True)
    contents = _without_training(model)
    if validation:
        contents = replace(contents, temperature=fit_temperature(model.predict_all(validation)))
    write_bundle(contents, card(contents, run), run / MODEL, PRIVATE)
    return run / MODEL


def export(source: Path, target: Path, trusted: bool = False) -> Model:
    """Write the bundle of a run, of a checkpoint or of a bundle, and load it again.

    Args:
        source: A run, one of its checkpoints, or a bundle.
        target: A new or empty folder.
        trusted: May it name classes that are neither fedmer's nor those of installed plugins?

    Returns:
        The model, as it is read from the target.

    Raises:
        InputError: The target holds something, or the model cannot be made.
    """
    if target.is_file() or (target.is_dir() and any(target.iterdir())):
        raise InputError(f"{target} is not an empty folder; choose another.")
    bundle = next((folder for folder in (source, source / MODEL) if is_bundle(folder)), None)
    if bundle is not None:
        contents = read_bundle(bundle)
        text = (bundle / CARD).read_text(encoding="utf-8")
    else:
        contents = of_run(source)
        text = card(contents, source if source.is_dir() else source.resolve().parent.parent)
    # Before anything is written, so that what cannot be built leaves nothing behind.
    contents = _without_training(Model(contents, str(source), trusted))
    write_bundle(contents, text, target)
    return Model(read_bundle(target), str(target), trusted)


def _without_training(model: Model) -> Contents:
    """What it predicts by. What a rule keeps for rounds to come, sums over clients' utterances
    among that, is nothing to give away."""
    known, kept = model.knowledge.tensors, model.contents.tensors
    return replace(model.contents, tensors={n: v for n, v in kept.items() if n in known})
