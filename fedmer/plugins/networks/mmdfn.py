"""MM-DFN, a graph of modalities whose layers pass through a dynamic gate."""

import math
from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._graph import Graph, GraphConvolution, ReadOut, multimodal_graph
from fedmer.plugins.networks._history import along, both_ways, by_role
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import Projections, check, main_modality, there


class MMDFN(Network):
    r"""Multimodal dynamic fusion: MMGCN's graph, gated layer by layer, and speakers apart.

    D. Hu et al., "MM-DFN: Multimodal Dynamic Fusion Network for Emotion Recognition in
    Conversations", ICASSP 2022 (arXiv 2203.02385). With features :math:`f_m`, the graph
    :math:`\hat A` of :func:`~fedmer.plugins.networks._graph.multimodal_graph` over all :math:`x`,
    and :class:`~fedmer.plugins.networks._graph.GraphConvolution`:

    .. math::

        u_m &= W_m f_m, \qquad
        x_m = c(u_m) + w_m \,\mathrm{BiGRU}^p(u_m \text{ of the same speaker's turns}) \\
        h^0 &= \mathrm{ReLU}(U \,\mathrm{drop}(x)), \qquad g^0 = \mathrm{drop}(h^0) \\
        \tilde g^l, s^l &= \mathrm{LSTM}(g^{l-1}, s^{l-1}), \qquad
        g^l = \mathrm{drop}(\mathrm{ReLU}(\mathrm{GCNII}_l(\hat A, \tilde g^l, h^0))) + g^{l-1} \\
        z_m &= \mathrm{ReLU}([x_m; g^K_m]), \qquad
        \mathrm{logits} = V \,\mathrm{drop}([z_1; \dots; z_M])

    The main modality, ``text`` if there is one, else the first, has
    :math:`c(u) = \mathrm{BiGRU}(u)`; for the others c does nothing. :math:`\mathrm{BiGRU}^p` is
    one for all speakers and modalities. The LSTM runs along the layers, node by node, with the same
    weights at each. Where a modality of an utterance is missing, its node has no edge, :math:`z_m`
    is zero, and both recurrences pass over the utterance. The authors minimise a focal loss with
    class weights and have wider nodes (200) than layers (100); here both are d wide, and the loss
    is chosen elsewhere.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of nodes and layers, an even number: half of it runs each way.
        dropout: Probability in [0, 1).
        layers: Graph convolutions K. The authors run 16 or 32.
        alpha: Sample of the nodes' first state h^0 in each layer, in [0, 1].
        decay: lambda above 0 of GCNII: the larger, the further down a layer's weights count.
        party: Modality name -> weight w of the BiGRU over a speaker's own utterances, 0 or more and
            not all 0; 1 where nothing is said. The authors have 3 for audio, 0 for visual, 1 for
            text.
        causal: Read no later utterance; recurrences then run onward only, at the full width.

    Raises:
        InputError: A hyperparameter is out of range, or ``party`` names an unknown modality.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MMDFN(corpus.shape, hidden=8)(batch)
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
        alpha: float = 0.2,
        decay: float = 0.5,
        party: Mapping[str, float] | None = None,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, layers=layers)
        self.weights = _weights(shape, party or {})
        self.main = main_modality(shape)
        self.causal = causal
        self.project = Projections(shape, hidden)
        self.context = both_ways(nn.GRU, hidden, dropout, causal)
        self.party = both_ways(nn.GRU, hidden, dropout, causal)
        self.enter = nn.Linear(hidden, hidden)
        self.gate = nn.LSTMCell(hidden, hidden)
        self.layers = nn.ModuleList(
            GraphConvolution(hidden, depth, alpha, decay) for depth in range(1, layers + 1)
        )
        self.dropout = Dropout(dropout)
        self.read_out = ReadOut(shape, hidden, dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows, present = self.project(batch), there(batch)
        speaking = by_role(batch, self.shape.speakers)
        nodes = torch.stack(
            [self._encode(name, rows[name], present[name], speaking) for name in rows], dim=1
        )
        exist = torch.stack([present[name] for name in rows], dim=1)
        hidden = self._fuse(multimodal_graph(nodes, exist, self.causal), nodes)
        output: NetworkOutput = self.read_out(nodes, hidden, exist)
        return output

    def _encode(self, name: str, rows: Tensor, present: Tensor, speaking: Tensor) -> Tensor:
        """x_m, ``(B, L, d)``."""
        said = rows
        if name == self.main:
            said = along(self.context, rows[:, None], present[:, None])[:, 0]
        if self.weights[name] == 0:
            return said
        seen = rows[:, None].expand(-1, speaking.shape[1], -1, -1)
        # An utterance has one speaker, so that the sum over roles picks the one state that is not
        # zero.
        party = along(self.party, seen, speaking & present[:, None]).sum(dim=1)
        return said + self.weights[name] * party

    def _fuse(self, graph: Graph, nodes: Tensor) -> Tensor:
        """g^K, ``(B, M, L, d)``."""
        initial = F.relu(self.enter(self.dropout(nodes)))
        fused: Tensor = self.dropout(initial)
        state: tuple[Tensor, Tensor] | None = None
        for layer in self.layers:
            gated, cell = self.gate(fused.flatten(0, 2), state)
            state = (gated, cell)
            fused = self.dropout(F.relu(layer(graph, gated.view_as(fused), initial))) + fused
        return fused


def _weights(shape: CorpusShape, party: Mapping[str, float]) -> dict[str, float]:
    """Each modality's weight of the recurrence over its speakers' utterances."""
    for name, weight in party.items():
        if name not in shape.features:
            raise InputError(
                f"party names '{name}'; expected one of the modalities {', '.join(shape.features)}."
            )
        if not 0 <= weight < math.inf:
            raise InputError(f"party['{name}'] is {weight}; expected a number, 0 or more.")
    weights = {name: float(party.get(name, 1)) for name in shape.features}
    if not any(weights.values()):
        raise InputError(
            "party is 0 for every modality; expected a weight above 0 for one of them."
        )
    return weights
