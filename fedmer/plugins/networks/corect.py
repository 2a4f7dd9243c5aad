"""CORECT, a relational temporal graph beside attention between modalities."""

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, Linears, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, main_modality, there


class CORECT(Network):
    r"""CORECT-style: a graph with relations of modality and time, and every pair of modalities.

    C.-V. T. Nguyen et al., "Conversation Understanding using Relational Temporal Graph Neural
    Networks with Auxiliary Cross-Modality Interaction", EMNLP 2023 (arXiv 2311.04507). One node for
    each modality m of each utterance t, with features :math:`f_m`, position encoding p and speaker
    embedding s:

    .. math::

        x_m = W_m f_m + p + s \quad
        (\text{for the main modality } \mathrm{Transformer}(\mathrm{drop}(W_m f_m + p + s)))

    The graph has a relation r for each ordered pair of modalities of one utterance, and for each
    modality one to the ``window`` utterances before and one to those after. With :math:`N_r` a
    node's neighbours under r, and :math:`N` all of them:

    .. math::

        g_i &= W_0 x_i + \sum_r \frac{1}{|N_r(i)|} \sum_{j \in N_r(i)} W_r x_j \\
        o_i &= W_1 g_i + \sum_{j \in N(i)} \mathrm{drop}(a_{ij}) W_2 g_j, \qquad
        a_{i \cdot} = \mathrm{softmax}_{j \in N(i)}
            \frac{(W_3 g_i) \cdot (W_4 g_j)}{\sqrt{d / \mathrm{heads}}}

    Beside it every ordered pair of modalities attends over the whole dialogue, and both meet:

    .. math::

        x_{n \to m} &= \mathrm{Transformer}_{n \to m}(\text{queries } x_m, \text{ keys } x_n) \\
        h &= \mathrm{relu}(W\,\mathrm{drop}([\mathrm{relu}(o_m); \dots; x_{n \to m}; \dots])),
        \qquad z = V h + c

    The main modality is ``text`` if there is one, else the first. A node that is missing has no
    neighbour and is none, its o is zero, and nobody attends to it. A single modality has no pair.

    Deviations: the authors have windows of different lengths before and after, and no positions.
    Sizes of layers that the paper does not give are ours.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of nodes and layers, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of every Transformer.
        window: Utterances before and after that are neighbours in the graph, 0 or more.
        causal: Read no later utterance; the graph then has no relation to those after.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = CORECT(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        window: int = 10,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        if window < 0:
            raise InputError(f"window is {window}; expected a whole number, 0 or more.")
        names = list(shape.features)
        self.main = main_modality(shape)
        self.pairs = [(source, target) for target in names for source in names if source != target]
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.context = Transformer(layers, hidden, heads, dropout, causal)
        self.relations = _Relations(len(names), hidden, window, causal)
        self.attention = _GraphAttention(hidden, heads, dropout, window, causal)
        self.crossmodal = nn.ModuleDict(
            {
                f"{source}_to_{target}": Transformer(layers, hidden, heads, dropout, causal)
                for source, target in self.pairs
            }
        )
        self.fuse = nn.Linear((len(names) + len(self.pairs)) * hidden, hidden)
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present, place = there(batch), self.place(batch)
        rows = {name: own + place for name, own in self.project(batch).items()}
        rows[self.main] = self.context(self.dropout(rows[self.main]), present[self.main])
        exist = torch.stack([present[name] for name in rows], dim=1)
        nodes = torch.stack(list(rows.values()), dim=1).masked_fill(~exist[..., None], 0)
        local = self.attention(self.relations(nodes, exist), exist)
        each = local.relu().masked_fill(~exist[..., None], 0).unbind(dim=1)
        flows = [
            self.crossmodal[f"{source}_to_{target}"](
                rows[target], present[source], keys=rows[source]
            )
            for source, target in self.pairs
        ]
        fused = torch.relu(self.fuse(self.dropout(torch.cat([*each, *flows], dim=-1))))
        named = dict(zip(rows, each, strict=True))
        return NetworkOutput(logits=self.head(fused), embeddings={**named, "fused": fused})


class _Relations(nn.Module):
    """The relational convolution: the mean of each kind of neighbour, by weights of its own."""

    def __init__(self, modalities: int, hidden: int, window: int, causal: bool) -> None:
        super().__init__()
        self.window, self.causal = window, causal
        self.itself = nn.Linear(hidden, hidden)
        self.before = Linears(modalities, hidden, hidden, bias=False)
        self.after = None if causal else Linears(modalities, hidden, hidden, bias=False)
        # For the modalities of an utterance: by what is read and by who reads, off the diagonal.
        bound = hidden**-0.5
        self.between = nn.ParameterDict(
            {
                f"{source}_to_{target}": torch.empty(hidden, hidden).uniform_(-bound, bound)
                for target in range(modalities)
                for source in range(modalities)
                if source != target
            }
        )

    def forward(self, nodes: Tensor, exist: Tensor) -> Tensor:
        """g, ``(B, M, L, d)``, of x and of which nodes ``exist``, ``(B, M, L)``; others are 0."""
        found = self.itself(nodes)
        back = _back(exist)
        found = found + _mean(self.before, (back > 0) & (back <= self.window), nodes, exist)
        if self.after is not None:
            found = found + _mean(self.after, (back < 0) & (-back <= self.window), nodes, exist)
        rows = list(found.unbind(dim=1))
        for pair, weight in self.between.items():
            source, target = (int(place) for place in pair.split("_to_"))
            rows[target] = rows[target] + nodes[:, source] @ weight
        return torch.stack(rows, dim=1)


class _GraphAttention(nn.Module):
    """Attention of each node to its neighbours in the graph, whatever their relation."""

    def __init__(self, hidden: int, heads: int, dropout: float, window: int, causal: bool) -> None:
        super().__init__()
        self.heads, self.window, self.causal = heads, window, causal
        self.itself, self.value, self.query, self.key = (
            nn.Linear(hidden, hidden) for _ in range(4)
        )
        self.dropout = Dropout(dropout)

    def forward(self, nodes: Tensor, exist: Tensor) -> Tensor:
        """o, ``(B, M, L, d)``, of g, ``(B, M, L, d)``, and of which nodes ``exist``."""
        query, key, value = (
            self._split(layer(nodes)) for layer in (self.query, self.key, self.value)
        )
        query = query * query.shape[-1] ** -0.5
        back = _back(exist)
        near = (back != 0) & (back.abs() <= self.window)
        if self.causal:
            near = near & (back > 0)
        turns = near & exist[..., None, :]
        other = ~torch.eye(exist.shape[1], dtype=torch.bool, device=exist.device)
        others = exist.transpose(1, 2)[..., None, :] & other
        # Neighbours of a node: first the utterances of its modality, then the modalities.
        seen = torch.cat([turns, others.transpose(1, 2)], dim=-1)[:, None]
        within = query @ key.transpose(-1, -2)
        across = query.transpose(2, 3) @ key.transpose(2, 3).transpose(-1, -2)
        scores = torch.cat([within, across.transpose(2, 3)], dim=-1)
        # A softmax over nothing is NaN, so that its scores stay finite and its weights are zeroed.
        scores = scores.masked_fill(~seen, torch.finfo(scores.dtype).min)
        weights = self.dropout(scores.softmax(dim=-1).masked_fill(~seen, 0))
        length = exist.shape[-1]
        mixed = weights[..., :length] @ value
        beside = weights[..., length:].transpose(2, 3) @ value.transpose(2, 3)
        mixed = mixed + beside.transpose(2, 3)
        found: Tensor = self.itself(nodes) + mixed.movedim(1, 3).flatten(-2)
        return found

    def _split(self, rows: Tensor) -> Tensor:
        """``(B, h, M, L, w)`` of ``(B, M, L, d)``."""
        return rows.view(*rows.shape[:-1], self.heads, -1).movedim(3, 1)


def _back(exist: Tensor) -> Tensor:
    """``(L, L)``: how many utterances each of the second index lies before each of the first."""
    turns = torch.arange(exist.shape[-1], device=exist.device)
    return turns[:, None] - turns


def _mean(layer: Linears, near: Tensor, nodes: Tensor, exist: Tensor) -> Tensor:
    """A layer on the mean of the neighbours that are near, ``(L, L)`` bool, and exist."""
    joined = (near & exist[..., None, :]).to(nodes.dtype)
    mean = (joined @ nodes) / joined.sum(dim=-1, keepdim=True).clamp(min=1)
    found: Tensor = layer(mean.transpose(0, 1)).transpose(0, 1)
    return found
