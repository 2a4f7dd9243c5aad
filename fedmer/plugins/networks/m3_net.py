"""M3Net, hyperedges and two frequencies over the modalities of a dialogue."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._graph import Graph, ReadOut
from fedmer.plugins.networks._history import along, both_ways, numbered
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import Projections, check, main_modality, there


class M3Net(Network):
    r"""M3Net-style: hyperedges over modalities and dialogue, and low and high graph frequencies.

    F. Chen et al., "Multivariate, Multi-frequency and Multimodal: Rethinking Graph Neural Networks
    for Emotion Recognition in Conversation", CVPR 2023. One node for each modality m of each
    utterance t, with features :math:`f_m` and speaker embedding s:

    .. math::

        x_m = W_m f_m + s \quad (\text{for the main modality } \mathrm{BiGRU}(W_m f_m) + s)

    Multivariate: a hyperedge over the modalities of each utterance, and one over the utterances of
    each modality; with :math:`v^0 = x` and learned weights :math:`\omega, \gamma > 0`,

    .. math::

        q_t &= \frac{\sum_n \gamma_n v^l_{n,t}}{\sum_n \gamma_n}, \qquad
        r_m = \frac{1}{L} \sum_j v^l_{m,j} \\
        v^{l+1}_{m,t} &= \mathrm{relu}\Big(
            \Theta_l\,\frac{\omega_0 q_t + \omega_m r_m}{\omega_0 + \omega_m}\Big)

    Multi-frequency: a graph in which the utterances of a modality are joined, and the modalities of
    an utterance, with neighbours N; with :math:`w^0 = x`,

    .. math::

        w^{k+1}_i = w^k_i + \sum_{j \in N_i}
            \frac{\tanh(a_k \cdot w^k_i + b_k \cdot w^k_j + c_k)}{\sqrt{|N_i| |N_j|}}\, w^k_j

    Where the tanh is positive neighbours are drawn together (the low-pass filter
    :math:`I + D^{-1/2} A D^{-1/2}`), and where it is negative their differences grow (the
    high-pass :math:`I - D^{-1/2} A D^{-1/2}`). Then
    :math:`\mathrm{logits} = V\,\mathrm{drop}(\mathrm{relu}([v_1; w_1; \dots; v_M; w_M])) + b`.

    The main modality is ``text`` if there is one, else the first. A node that is missing belongs to
    no edge, what it would say is zero, and the BiGRU passes over the utterance.

    Deviations: the authors learn a weight for each hyperedge and each node in it, by its number in
    the batch; so that a weight means the same in every dialogue, here :math:`\omega` is one for
    each kind of hyperedge, and :math:`\gamma` one for each modality. In a causal network the
    hyperedge of a modality holds, for each utterance, the utterances up to it.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of nodes and layers, an even number: half of the BiGRU runs each way.
        dropout: Probability in [0, 1), before every layer.
        hyper_layers: Hypergraph convolutions.
        frequency_layers: Layers of the two filters.
        recurrent: Read the main modality by the BiGRU. Without, :math:`x_m = W_m f_m + s` for all:
            averaging over clients makes slow work of a recurrence (experiments/results/method.md).
        causal: Read no later utterance; recurrences then run onward only, at the full width.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = M3Net(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    stackable: ClassVar[bool] = False

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        dropout: float = 0.3,
        hyper_layers: int = 2,
        frequency_layers: int = 2,
        recurrent: bool = True,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, hyper_layers=hyper_layers, frequency_layers=frequency_layers)
        self.main = main_modality(shape)
        self.project = Projections(shape, hidden)
        self.context = both_ways(nn.GRU, hidden, dropout, causal) if recurrent else None
        self.speaker = nn.Embedding(shape.speakers, hidden)
        self.hypergraph = _Hypergraph(len(shape.features), hidden, hyper_layers, dropout, causal)
        self.frequencies = nn.ModuleList(
            _Frequencies(hidden, dropout, causal) for _ in range(frequency_layers)
        )
        self.read_out = ReadOut(shape, hidden, dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows, present = self.project(batch), there(batch)
        if self.context is not None:
            known = present[self.main][:, None]
            rows[self.main] = along(self.context, rows[self.main][:, None], known)[:, 0]
        speaker = self.speaker(numbered(batch, self.shape.speakers))
        nodes = torch.stack([own + speaker for own in rows.values()], dim=1)
        exist = torch.stack([present[name] for name in rows], dim=1)
        nodes = nodes.masked_fill(~exist[..., None], 0)
        waves = nodes
        for layer in self.frequencies:
            waves = layer(waves, exist)
        output: NetworkOutput = self.read_out(self.hypergraph(nodes, exist), waves, exist)
        return output


class _Hypergraph(nn.Module):
    """The multivariate half: convolutions over two kinds of hyperedges."""

    def __init__(
        self, modalities: int, hidden: int, layers: int, dropout: float, causal: bool
    ) -> None:
        super().__init__()
        self.causal = causal
        self.layers = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(layers))
        # Logarithms: of gamma, and of omega, the first of which is that over the modalities.
        self.node_weights = nn.Parameter(torch.zeros(modalities))
        self.edge_weights = nn.Parameter(torch.zeros(modalities + 1))
        self.dropout = Dropout(dropout)

    def forward(self, nodes: Tensor, exist: Tensor) -> Tensor:
        """``(B, M, L, d)`` of nodes that are zero where they do not ``exist``, ``(B, M, L)``."""
        counted = exist[..., None].to(nodes.dtype)
        gamma = self.node_weights.exp()[:, None, None] * counted
        omega = self.edge_weights.exp()
        across, along_time = omega[0], omega[1:, None, None]
        weighed = gamma.sum(dim=1, keepdim=True).clamp(min=1e-12)
        members = self._reach(counted).clamp(min=1)
        for layer in self.layers:
            spread = self.dropout(nodes)
            modalities = (gamma * spread).sum(dim=1, keepdim=True) / weighed
            dialogue = self._reach(spread) / members
            mixed = (across * modalities + along_time * dialogue) / (across + along_time)
            nodes = torch.relu(layer(mixed)) * counted
        return nodes

    def _reach(self, rows: Tensor) -> Tensor:
        """Sums over what an utterance may read of its modality."""
        return rows.cumsum(dim=2) if self.causal else rows.sum(dim=2, keepdim=True)


class _Frequencies(nn.Module):
    """The multi-frequency half: one layer that draws neighbours together, or apart."""

    def __init__(self, hidden: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.reader = nn.Linear(hidden, 1)
        self.neighbour = nn.Linear(hidden, 1, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, nodes: Tensor, exist: Tensor) -> Tensor:
        """``(B, M, L, d)`` of the same and of which nodes ``exist``, ``(B, M, L)`` bool."""
        spread = self.dropout(nodes)
        reader, neighbour = self.reader(spread)[..., 0], self.neighbour(spread)[..., 0]
        within = _joined(exist)
        if self.causal:
            within = within.tril()
        across = _joined(exist.transpose(1, 2))
        degree = within.sum(dim=-1) + across.sum(dim=-1).transpose(1, 2)
        scale = degree.clamp(min=1).to(nodes.dtype).rsqrt()
        reader_, neighbour_, scale_ = (part.transpose(1, 2) for part in (reader, neighbour, scale))
        graph = Graph(
            _filter(reader, neighbour, scale) * within,
            _filter(reader_, neighbour_, scale_) * across,
        )
        return nodes + graph.mix(spread)


def _joined(exist: Tensor) -> Tensor:
    """``(..., n, n)`` bool of ``(..., n)``: which of them are joined with another."""
    other = ~torch.eye(exist.shape[-1], dtype=torch.bool, device=exist.device)
    return exist[..., :, None] & exist[..., None, :] & other


def _filter(reader: Tensor, neighbour: Tensor, scale: Tensor) -> Tensor:
    """How strongly each of ``n`` nodes takes in each other, ``(..., n, n)`` of ``(..., n)``."""
    drawn = torch.tanh(reader[..., :, None] + neighbour[..., None, :])
    return scale[..., :, None] * drawn * scale[..., None, :]
