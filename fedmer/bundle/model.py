"""A model that predicts: three lines of Python, no configuration, corpus or Trainer."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedmer.bundle.calibration import fit_temperature
from fedmer.bundle.contents import Contents
from fedmer.bundle.files import is_bundle, read_bundle
from fedmer.bundle.prediction import Prediction, softmax
from fedmer.contracts.aggregator import ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Excerpt, excerpt
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.evaluation import EvaluationBatches
from fedmer.errors import InputError
from fedmer.plugins.aggregators._closed_form import MARK, ClosedForm
from fedmer.runs import MODEL

if TYPE_CHECKING:
    from torch import device


class Model:
    """A trained model.

    Args:
        contents: Its description and tensors.
        source: Where they come from, for sentences.
        trusted: May it name classes that are neither fedmer's nor those of installed plugins?

    Raises:
        InputError: It cannot be built here.
    """

    def __init__(self, contents: Contents, source: str, trusted: bool = False) -> None:
        # Here, since it takes a second and reading a description needs none of it.
        from fedmer.bundle.build import build

        self.contents = contents
        self.source = source
        self.temperature = 1.0
        """What logits are divided by; see :meth:`calibrate`."""
        self.network, rule, self.partitioner = build(contents, source, trusted)
        # Whether its head is one in closed form its tensors say.
        self.aggregator = ClosedForm(rule)
        round = int(contents.tensors.get(MARK, 0))
        # It predicts only; a rule that fades over its rounds wants to know of some.
        state = ServerState(self.network, round, rounds=1, tensors=dict(contents.tensors))
        self.knowledge = self.aggregator.broadcast(state)
        """What the rule may predict with, such as class prototypes."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions that it tells apart."""
        return self.contents.labels

    @property
    def features(self) -> Mapping[str, int]:
        """Modality -> dimension that it was trained on."""
        return self.contents.shape.features

    def to(self, place: "device | str") -> "Model":
        """Move it to a device."""
        self.network.to(place)
        self.knowledge = replace(
            self.knowledge,
            tensors={name: value.to(place) for name, value in self.knowledge.tensors.items()},
        )
        return self

    def predict(self, conversation: Conversation) -> Prediction:
        """What it says of one conversation; see :meth:`predict_all`."""
        return self.predict_all([conversation])[0]

    @torch.no_grad()
    def predict_all(self, conversations: Sequence[Conversation]) -> list[Prediction]:
        """What it says of every utterance of some conversations, each by itself.

        A modality that a conversation lacks is masked, and one that the model does not know is not
        looked at. Labels, if there are any, are not looked at.

        Args:
            conversations: With features that were made in the way of the training corpus.

        Raises:
            InputError: Dimensions differ, no modality of the model is there, features are not
                finite, or more people speak than the network has places for.
        """
        if not conversations:
            return []
        fitted = [self._fit(conversation) for conversation in conversations]
        corpus = ConversationCorpus("what is given", fitted, self.labels)
        views = [view for i in range(len(fitted)) for view in self.partitioner.views(corpus, i)]
        excerpts = [excerpt(corpus, view, self.contents.statistics) for view in views]
        batches = EvaluationBatches(excerpts)
        device = next(self.network.parameters()).device
        found = [_Rows(len(conversation)) for conversation in conversations]
        order = iter(batches.order)
        for batch in batches:
            seen = self.aggregator.on_batch(batch.to(device), self.knowledge)
            said = self._say(self.network(seen))
            for row in range(len(batch.context)):
                place = next(order)
                found[views[place].dialogue].fill(excerpts[place], said, row)
        return [
            Prediction(
                conversation,
                self.labels,
                rows.named["logits", ""],
                self.temperature,
                {m: softmax(own) for (kind, m), own in rows.named.items() if kind == "students"},
                {m: own for (kind, m), own in rows.named.items() if kind == "weights"},
            )
            for conversation, rows in zip(conversations, found, strict=True)
        ]

    def calibrate(self, conversations: Sequence[Conversation] = ()) -> float:
        """Make probabilities say how often they are right; emotions stay as they are.

        Args:
            conversations: Labelled ones that it has not learnt from, to fit a temperature on. None
                take the temperature that was fitted on validation when it was trained.

        Returns:
            The temperature.

        Raises:
            InputError: There is none, or nothing in the conversations is labelled.
        """
        found = self.contents.temperature
        if conversations:
            found = fit_temperature(self.predict_all(conversations))
        if found is None:
            raise InputError(
                f"{self.source} has no temperature, since it was trained without a validation "
                "part; give labelled dialogues to fit one on."
            )
        self.temperature = found
        return found

    def _say(self, output: NetworkOutput) -> dict[tuple[str, str], Tensor]:
        said = {("logits", ""): self.aggregator.predict(output, self.knowledge)}
        said |= {("students", m): own for m, own in output.students.items()}
        said |= {("weights", m): own for m, own in output.modality_weights.items()}
        return {name: value.float().cpu() for name, value in said.items()}

    def _fit(self, conversation: Conversation) -> Conversation:
        """The same with the modalities of the model, every utterance to be predicted."""
        where = f"{self.source}: dialogue '{conversation.id}'"
        turns = len(conversation)
        known = [name for name in self.features if name in conversation.features]
        if not known:
            raise InputError(
                f"{where} has {', '.join(conversation.features) or 'no modality'}, but the model "
                f"was trained on {', '.join(self.features)}; give at least one of these."
            )
        for name in known:
            width = conversation.features[name].shape[-1]
            if width != self.features[name]:
                raise InputError(
                    f"{where}: '{name}' has {width} dimensions, but the model was trained on "
                    f"{self.features[name]}; make the features in the same way."
                )
        most = self.contents.shape.speakers
        if len(conversation.people) > most:
            raise InputError(
                f"{where} has {len(conversation.people)} speakers, but the network was built for "
                f"{most} at most; split the dialogue."
            )
        return replace(
            conversation,
            features={
                name: conversation.features[name]
                if name in known
                else np.zeros((turns, width), dtype=np.float32)
                for name, width in self.features.items()
            },
            present={
                name: conversation.present[name] if name in known else np.zeros(turns, dtype=bool)
                for name in self.features
            },
            # A split shows the utterances that have a label, so that here every utterance has one.
            labels=np.zeros(turns, dtype=np.int64),
            split="test",
        )


class _Rows:
    """Collects what is said of a conversation from the views that it is seen in."""

    def __init__(self, turns: int) -> None:
        self._turns = turns
        self.named: dict[tuple[str, str], NDArray[np.float32]] = {}

    def fill(self, seen: Excerpt, said: Mapping[tuple[str, str], Tensor], row: int) -> None:
        """Take the rows of the utterances that this view is asked about."""
        here = seen.labelled.nonzero()[:, 0]
        turns = seen.turns[here].numpy()
        for name, value in said.items():
            rows = value[row, here].numpy()
            if name not in self.named:
                self.named[name] = np.zeros((self._turns, *rows.shape[1:]), dtype=np.float32)
            self.named[name][turns] = rows


def load(path: str | Path, trust: bool = False) -> Model:
    """Load a model.

    Args:
        path: A bundle, a run with one (``runs/NAME``), a run that was stopped, a checkpoint in a
            run's folder, or ``hf://OWNER/NAME`` on the Hugging Face hub.
        trust: Let it name classes that are neither fedmer's nor those of installed plugins, which
            are imported then.

    Returns:
        Something that predicts.

    Raises:
        InputError: There is none, it is damaged, of a newer version, or cannot be built here.

    Example::

        import fedmer

        model = fedmer.load("runs/mine")
        conversation = fedmer.Conversation.of({"text": rows}, speakers=["ann", "ben", "ann"])
        print(model.predict(conversation).emotions)
    """
    from fedmer.bundle.hub import PREFIX, pull

    if str(path).startswith(PREFIX):
        return Model(read_bundle(pull(str(path))), str(path), trust)
    path = Path(path).expanduser()
    for folder in (path, path / MODEL):
        if is_bundle(folder):
            return Model(read_bundle(folder), str(path), trust)
    from fedmer.bundle.of_run import of_run

    return Model(of_run(path), str(path), trust)
