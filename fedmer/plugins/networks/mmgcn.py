"""MMGCN, a deep graph convolution over the modalities of a dialogue."""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._graph import GraphConvolution, ReadOut, multimodal_graph
from fedmer.plugins.networks._history import along, both_ways, numbered
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import Projections, check, main_modality, there


class MMGCN(Network):
    r"""Multimodal graph convolution: one node a modality and utterance, joined by similarity.

    J. Hu et al., "MMGCN: Multimodal Fusion via Deep Graph Convolution Network for Emotion
    Recognition in Conversation", ACL 2021 (arXiv 2107.06779). With features :math:`f_m`, speaker
    embedding :math:`s`, the graph :math:`\hat A` of
    :func:`~fedmer.plugins.networks._graph.multimodal_graph` over all :math:`x`, and
    :class:`~fedmer.plugins.networks._graph.GraphConvolution`:

    .. math::

        x_m &= W_m f_m \quad (\text{for the main modality } \mathrm{BiLSTM}(W_m f_m) + s) \\
        h^0 &= \mathrm{ReLU}(U \,\mathrm{drop}(x)), \qquad
        h^l = \mathrm{ReLU}(\mathrm{GCNII}_l(\hat A, \mathrm{drop}(h^{l-1}), h^0)) \\
        z_m &= \mathrm{ReLU}([x_m; h^K_m]), \qquad
        \mathrm{logits} = V \,\mathrm{drop}([z_1; \dots; z_M])

    The main modality is ``text`` if there is one, else the first. Where a modality of an utterance
    is missing, its node has no edge, :math:`z_m` is zero, and the BiLSTM passes over the utterance.
    The authors weigh classes in the loss and have wider nodes (200) than layers (100); here both
    are d wide, and the loss is chosen elsewhere.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of nodes and layers, an even number: half of it runs each way.
        dropout: Probability in [0, 1).
        layers: Graph convolutions K. The authors run 64.
        alpha: Sample of the nodes' first state h^0 in each layer, in [0, 1].
        decay: lambda above 0 of GCNII: the larger, the further down a layer's weights count.
        causal: Read no later utterance; recurrences then run onward only, at the full width.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MMGCN(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    stackable: ClassVar[bool] = False

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        dropout: float = 0.3,
        layers: int = 4,
        alpha: float = 0.1,
        decay: float = 0.5,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, layers=layers)
        self.main = main_modality(shape)
        self.causal = causal
        self.project = Projections(shape, hidden)
        self.context = both_ways(nn.LSTM, hidden, dropout, causal)
        self.speaker = nn.Embedding(shape.speakers, hidden)
        self.enter = nn.Linear(hidden, hidden)
        self.layers = nn.ModuleList(
            GraphConvolution(hidden, depth, alpha, decay) for depth in range(1, layers + 1)
        )
        self.dropout = Dropout(dropout)
        self.read_out = ReadOut(shape, hidden, dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows, present = self.project(batch), there(batch)
        context = along(self.context, rows[self.main][:, None], present[self.main][:, None])[:, 0]
        rows[self.main] = context + self.speaker(numbered(batch, self.shape.speakers))
        nodes = torch.stack(list(rows.values()), dim=1)
        exist = torch.stack([present[name] for name in rows], dim=1)
        graph = multimodal_graph(nodes, exist, self.causal)
        initial = hidden = F.relu(self.enter(self.dropout(nodes)))
        for layer in self.layers:
            hidden = F.relu(layer(graph, self.dropout(hidden), initial))
        output: NetworkOutput = self.read_out(nodes, hidden, exist)
        return output
