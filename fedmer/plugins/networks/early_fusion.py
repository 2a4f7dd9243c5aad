"""EarlyFusion: one Transformer over the concatenated modalities."""

from torch import nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check


class EarlyFusion(Network):
    r"""Concatenated modalities through one Transformer over the dialogue.

    The baseline that every fusion has to beat. With modalities :math:`f_1, \dots, f_M`, position
    encoding :math:`p` and speaker embedding :math:`s`:

    .. math::

        x &= \mathrm{drop}(W [f_1; \dots; f_M] + p + s) \\
        h &= \mathrm{Transformer}(x), \qquad z = V h + c

    ``W`` is stored as one block for each modality. Where an utterance lacks a modality, its block
    and its bias are left out. The attention is that of A. Vaswani et al., "Attention Is All You
    Need", NeurIPS 2017, over the utterances of one dialogue.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Transformer layers.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = EarlyFusion(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 2,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.transformer = Transformer(layers, hidden, heads, dropout, causal)
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = sum(self.project(batch).values(), start=self.place(batch))
        fused = self.transformer(self.dropout(rows), batch.context)
        return NetworkOutput(logits=self.head(fused), embeddings={"fused": fused})
