"""The contract of a network."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor, nn

from fedmer.contracts.part import NetworkType
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape


@dataclass(frozen=True, eq=False)
class NetworkOutput:
    """What a network says of a batch of ``B`` dialogues of up to ``L`` utterances.

    Args:
        logits: ``(B, L, C)``, the prediction.
        students: Modality name -> ``(B, L, C)`` logits from that modality alone; may be empty.
        embeddings: Site name -> ``(B, L, D)``; ``fused`` is what the prediction is made from.
        modality_weights: Modality name -> ``(B, L)`` in [0, 1], how much it counts in what is
            fused; they sum to 1 over an utterance's modalities. For people to look at, so that a
            network may leave them out, above all while it trains.
        auxiliary: ``(B, L)``, what the network minimises of each utterance while it trains, beside
            what the loss makes of logits and students, its factors included. The mean over the
            labelled utterances is added to the loss. None for nothing.
    """

    logits: Tensor
    students: Mapping[str, Tensor] = field(default_factory=dict)
    embeddings: Mapping[str, Tensor] = field(default_factory=dict)
    modality_weights: Mapping[str, Tensor] = field(default_factory=dict)
    auxiliary: Tensor | None = None


class Network(nn.Module, metaclass=NetworkType):
    """Reads dialogues, predicts an emotion an utterance.

    A network may look at everything in the batch but ``labels`` and ``labelled``. What it says of
    an utterance must depend neither on padding, nor on which dialogues share the batch, nor on a
    missing modality's rows.

    Args:
        shape: The sizes of the corpus. The constructor's other arguments are its hyperparameters.
            Without a shape, as in ``SDT(hidden=64)``, the class gives what makes such a network of
            a shape.
    """

    reads_context: ClassVar[bool] = True
    """Does the prediction of an utterance depend on other utterances of its dialogue?"""

    stackable: ClassVar[bool] = True
    """Can ``torch.func.vmap`` run it for many clients at once?"""

    def __init__(self, shape: CorpusShape) -> None:
        super().__init__()
        self.shape = shape

    @contextmanager
    def under_vmap(self) -> Iterator[None]:
        """For as long as ``torch.func.vmap`` runs it: layers that draw ``bytewise`` do not."""
        drawing = [module for module in self.modules() if getattr(module, "bytewise", False)]
        for module in drawing:
            module.bytewise = False  # type: ignore[assignment]
        try:
            yield
        finally:
            for module in drawing:
                module.bytewise = True  # type: ignore[assignment]

    @property
    def class_parameters(self) -> dict[str, int]:
        """Name -> axis, of the parameters that have one row a class along that axis.

        A rule may give a client another weight in each of these rows. By default they are those of
        modules called ``head``, with the classes along the first axis.
        """
        names = (name for name, _ in self.named_parameters())
        return {name: 0 for name in names if "head" in name.split(".")}

    @property
    def linear_head(self) -> nn.Linear | None:
        """The layer that makes the logits of the ``fused`` embeddings, where one linear layer does.

        By default the one module called ``head``.
        """
        heads = [m for name, m in self.named_modules() if name.split(".")[-1] == "head"]
        return heads[0] if len(heads) == 1 and isinstance(heads[0], nn.Linear) else None

    @abstractmethod
    def forward(self, batch: Batch) -> NetworkOutput:
        """Predict every utterance of a batch."""
