"""LateFusion: a Transformer for each modality, and the mean of what they say."""

from torch import nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, mean_over, there


class LateFusion(Network):
    r"""A Transformer over the dialogue for each modality; their logits are averaged.

    With position encoding :math:`p` and speaker embedding :math:`s`, over the modalities
    :math:`A` that an utterance has:

    .. math::

        h_m &= \mathrm{Transformer}_m(\mathrm{drop}(W_m f_m + p + s)), \qquad z_m = V h_m + c \\
        z &= \frac{1}{|A|} \sum_{m \in A} z_m = V h + c, \qquad
        h = \frac{1}{|A|} \sum_{m \in A} h_m

    The modalities share the last layer, so the mean of their logits is the logits of their mean
    :math:`h`, which is the embedding ``fused``. The students are :math:`z_m`. An utterance without
    any modality averages what all of them make of the rest of the dialogue.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Transformer layers of each modality.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = LateFusion(corpus.shape, hidden=8)(batch)
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
        self.transformers = nn.ModuleDict(
            {name: Transformer(layers, hidden, heads, dropout, causal) for name in shape.features}
        )
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        place = self.place(batch)
        hidden = {
            name: self.transformers[name](self.dropout(rows + place), present[name])
            for name, rows in self.project(batch).items()
        }
        fused = mean_over(hidden, present)
        return NetworkOutput(
            logits=self.head(fused),
            students={name: self.head(rows) for name, rows in hidden.items()},
            embeddings={**hidden, "fused": fused},
        )
