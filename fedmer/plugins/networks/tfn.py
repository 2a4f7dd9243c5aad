"""TFN, the Tensor Fusion Network."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import Subnetworks, check

LARGEST = 100_000
"""Products that an utterance may have; the first layer after them has ``hidden`` weights for
each."""


class TFN(Network):
    r"""Tensor Fusion Network: all products of modalities' features; reads each utterance alone.

    A. Zadeh et al., "Tensor Fusion Network for Multimodal Sentiment Analysis", EMNLP 2017. With a
    small subnetwork for each modality:

    .. math::

        h_m &= \mathrm{subnetwork}_m(f_m), \qquad
        T = \begin{bmatrix} 1 \\ h_1 \end{bmatrix} \otimes \dots \otimes
            \begin{bmatrix} 1 \\ h_M \end{bmatrix} \\
        h &= \mathrm{relu}(W_2\,\mathrm{drop}(\mathrm{relu}(W_1 \mathrm{vec}(T)))),
        \qquad z = V h + c

    The ones make T hold the features of every subset of the modalities, and their products.
    Where an utterance lacks a modality, :math:`h_m = 0`, and T holds what the others have. T has
    ``(width + 1) ** M`` numbers a turn: 4,913 of three modalities at the default. The authors
    have 140,481, of widths 128, 32 and 32, and an LSTM over the words as the subnetwork of text.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of the two layers after the product.
        dropout: Probability in [0, 1).
        width: Width of each modality's vector in the product.

    Raises:
        InputError: A hyperparameter is out of range, or T would have more than 100,000 numbers.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = TFN(corpus.shape, hidden=8, width=4)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    reads_context: ClassVar[bool] = False

    def __init__(
        self, shape: CorpusShape, hidden: int = 64, dropout: float = 0.3, width: int = 16
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, width=width)
        products = (width + 1) ** len(shape.features)
        if products > LARGEST:
            raise InputError(
                f"width is {width}, so {len(shape.features)} modalities have {products:,} "
                f"products; expected at most {LARGEST:,}. Lower width, or use LMF."
            )
        self.subnetworks = Subnetworks(shape, width, dropout)
        self.fuse = nn.Sequential(
            nn.Linear(products, hidden),
            nn.ReLU(),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        vectors = self.subnetworks(batch)
        fused = self.fuse(outer(list(vectors.values())))
        return NetworkOutput(logits=self.head(fused), embeddings={**vectors, "fused": fused})


def outer(vectors: list[Tensor]) -> Tensor:
    """All products of one entry of each ``[1; h_m]``, the last modality's index fastest.

    Args:
        vectors: A ``(..., D_m)`` tensor a modality.

    Returns:
        ``(..., (D_1 + 1) * ... * (D_M + 1))``.

    >>> outer([torch.tensor([2.0]), torch.tensor([3.0, 5.0])])
    tensor([ 1.,  3.,  5.,  2.,  6., 10.])
    """
    one = vectors[0].new_ones(*vectors[0].shape[:-1], 1)
    product = one
    for vector in vectors:
        extended = torch.cat([one, vector], dim=-1)
        product = (product[..., :, None] * extended[..., None, :]).flatten(-2)
    return product
