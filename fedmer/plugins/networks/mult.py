"""MulT, the Multimodal Transformer."""

import torch
from torch import nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, there


class MulT(Network):
    r"""Multimodal Transformer: each modality asks every other, layer after layer.

    Y.-H. H. Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences",
    ACL 2019. With position encoding :math:`p` and speaker embedding :math:`s`, for every ordered
    pair of modalities :math:`n \to m`:

    .. math::

        x_m &= \mathrm{drop}(W_m f_m + p + s) \\
        x_{n \to m} &= \mathrm{Transformer}_{n \to m}(\text{queries } x_m, \text{ keys } x_n) \\
        h_m &= \mathrm{Transformer}_m([x_{n \to m};\ n \ne m]) \\
        u &= [h_1; \dots; h_M], \qquad
        h = u + W_2\,\mathrm{drop}(\mathrm{relu}(W_1 u)), \qquad z = V h + c

    Every layer of a crossmodal Transformer sees the same keys :math:`x_n`. ``fused`` is h, of
    ``M (M - 1) hidden`` numbers. A single modality has no pair and goes straight to its own
    Transformer.

    The authors' sequences are the words, frames and samples of one utterance, each modality at its
    own rate, and the last step predicts. Here a sequence is the dialogue: each modality has one
    row an utterance, so the modalities are aligned, and every utterance predicts. Who speaks is
    added to the position, and there are no convolutions before the layers. Nobody attends to an
    utterance that lacks the modality asked.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of a modality, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of every Transformer. The authors have 4 or 5.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MulT(corpus.shape, hidden=8, heads=2)(batch)
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
        self.sources = {
            target: [name for name in shape.features if name != target] for target in shape.features
        }
        self.project = Projections(shape, hidden, bias=False)
        self.place = Place(shape, hidden)
        self.crossmodal = nn.ModuleDict(
            {
                f"{source}_to_{target}": Transformer(layers, hidden, heads, dropout, causal)
                for target, sources in self.sources.items()
                for source in sources
            }
        )
        width = hidden * max(len(shape.features) - 1, 1)
        self.transformers = nn.ModuleDict(
            {name: Transformer(layers, width, heads, dropout, causal) for name in shape.features}
        )
        width *= len(shape.features)
        self.residual = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        place = self.place(batch)
        streams = {name: self.dropout(rows + place) for name, rows in self.project(batch).items()}
        hidden = {}
        for target, sources in self.sources.items():
            flows = [
                self.crossmodal[f"{source}_to_{target}"](
                    streams[target], present[source], keys=streams[source]
                )
                for source in sources
            ]
            # What flowed in has reached utterances that lack the target, so they are keys as well.
            rows = torch.cat(flows or [streams[target]], dim=-1)
            hidden[target] = self.transformers[target](rows, batch.context)
        together = torch.cat(list(hidden.values()), dim=-1)
        fused = together + self.residual(together)
        return NetworkOutput(logits=self.head(fused), embeddings={**hidden, "fused": fused})
