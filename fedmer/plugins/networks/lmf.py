"""LMF, Low-rank Multimodal Fusion."""

import functools
from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._modalities import Subnetworks, check


class LMF(Network):
    r"""Low-rank Multimodal Fusion: a tensor fusion in factors; reads each utterance alone.

    Z. Liu et al., "Efficient Low-rank Multimodal Fusion with Modality-Specific Factors", ACL 2018.
    With the vectors :math:`h_m` of TFN's subnetworks and ``rank`` matrices :math:`F_m^{(r)}` of
    each modality:

    .. math::

        h = \sum_{r=1}^R \bigodot_m F_m^{(r)} \begin{bmatrix} 1 \\ h_m \end{bmatrix} + b,
        \qquad z = V h + c

    This is a linear layer on TFN's tensor T, which is never made: the weight of T for output d is
    :math:`\sum_r F_1^{(r)}[d] \otimes \dots \otimes F_M^{(r)}[d]`. The sizes grow with the sum of
    the widths and not with their product. Where an utterance lacks a modality, :math:`h_m = 0`. The
    authors weigh the R terms once more, which adds nothing to what the factors can express, and
    is left out.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of the fused vector h.
        dropout: Probability in [0, 1).
        width: Width of each modality's vector.
        rank: Factors R of each modality.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = LMF(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    reads_context: ClassVar[bool] = False

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        dropout: float = 0.3,
        width: int = 32,
        rank: int = 4,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, width=width, rank=rank)
        self.subnetworks = Subnetworks(shape, width, dropout)
        self.factors = nn.ParameterDict(
            {name: torch.empty(rank, width + 1, hidden) for name in shape.features}
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.head = nn.Linear(hidden, shape.classes)
        # So that the sum over the ranks of the product over the modalities has the variance of
        # one modality's vector.
        spread = (width + 1) ** -0.5 * rank ** (-0.5 / len(shape.features))
        for factor in self.factors.values():
            nn.init.normal_(factor, std=spread)

    def forward(self, batch: Batch) -> NetworkOutput:
        vectors = self.subnetworks(batch)
        fused = self.fuse(vectors)
        return NetworkOutput(logits=self.head(fused), embeddings={**vectors, "fused": fused})

    def fuse(self, vectors: dict[str, Tensor]) -> Tensor:
        """h of modality name -> ``(B, L, width)``; ``(B, L, hidden)``."""
        # [1; h] F without the concatenation: the first row of F is what the one meets.
        terms = [
            torch.einsum("blw,rwd->rbld", vector, self.factors[name][:, 1:])
            + self.factors[name][:, :1, None]
            for name, vector in vectors.items()
        ]
        product: Tensor = functools.reduce(torch.mul, terms)
        return product.sum(dim=0) + self.bias
