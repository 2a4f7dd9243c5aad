"""The smallest network: one layer, an utterance at a time."""

import torch
from torch import nn

from fedmer.contracts import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape


class OneLayer(Network):
    r"""One linear layer over an utterance's modalities, without its dialogue.

    .. math:: z = V [f_1; \dots; f_M] + c, \qquad
        f_m = 0 \text{ where an utterance lacks modality } m

    Args:
        shape: The sizes of the corpus.
        bias: With :math:`c`?
    """

    reads_context = False

    def __init__(self, shape: CorpusShape, bias: bool = True) -> None:
        super().__init__(shape)
        self.head = nn.Linear(sum(shape.features.values()), shape.classes, bias)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = [rows * batch.present[name][..., None] for name, rows in batch.features.items()]
        fused = torch.cat(rows, dim=-1)
        return NetworkOutput(self.head(fused), embeddings={"fused": fused})
