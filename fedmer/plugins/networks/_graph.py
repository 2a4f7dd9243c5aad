"""The multimodal graph of a dialogue: a node for each modality of each utterance, and how it
mixes."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import NetworkOutput
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout


@dataclass(frozen=True, eq=False)
class Graph:
    """The normalised adjacency of ``M * L`` nodes, as the blocks that are not zero.

    Args:
        within: ``(B, M, L, L)``, edges between the utterances of one modality, self-loops included.
        across: ``(B, L, M, M)``, edges between the modalities of one utterance, zero on the
            diagonal.
    """

    within: Tensor
    across: Tensor

    def mix(self, nodes: Tensor) -> Tensor:
        """Every node's weighted sum of its neighbours, ``(B, M, L, d)`` from the same shape."""
        return self.within @ nodes + (self.across @ nodes.transpose(1, 2)).transpose(1, 2)


def multimodal_graph(nodes: Tensor, present: Tensor, causal: bool = False) -> Graph:
    r"""Join all utterances within a modality, and all modalities within an utterance.

    J. Hu et al., ACL 2021. For nodes :math:`a, b` that are joined, and each node with itself:

    .. math::

        A_{ab} = 1 - \frac{1}{\pi} \arccos(0.99999 \cos(x_a, x_b)), \qquad
        \hat A = D^{-1/2} A D^{-1/2}, \qquad D_{aa} = \sum_b A_{ab}

    Args:
        nodes: ``(B, M, L, d)``, :math:`x`.
        present: ``(B, M, L)`` bool. A node that is not present has no edge, to itself either.
        causal: A node hears no later utterance, and its degree D counts none.

    Returns:
        :math:`\hat A`. The cosine with a vector of zeros counts as 0.
    """
    # The least norm bounds the gradient of the direction of a vector that is almost zero.
    unit = F.normalize(nodes, dim=-1, eps=1e-4)
    turns, there = unit.transpose(1, 2), present.transpose(1, 2)
    other = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    within = _closeness(unit) * (present[..., :, None] & present[..., None, :])
    if causal:
        within = within.tril()
    across = _closeness(turns) * (there[..., :, None] & there[..., None, :] & other)
    degree = within.sum(dim=-1) + across.sum(dim=-1).transpose(1, 2)
    scale = degree.masked_fill(~present, 1).rsqrt()
    within = scale[..., :, None] * within * scale[..., None, :]
    scale = scale.transpose(1, 2)
    across = scale[..., :, None] * across * scale[..., None, :]
    return Graph(within.to(nodes.dtype), across.to(nodes.dtype))


def _closeness(unit: Tensor) -> Tensor:
    """``(..., n, n)`` in (0, 1) from ``n`` unit vectors: 1 less the angle as a part of pi."""
    cosine = unit @ unit.transpose(-1, -2)
    # The slope of arccos is infinite at 1: half precision would round 0.99999 up to it.
    cosine = cosine.to(torch.promote_types(cosine.dtype, torch.float32)).clamp(-1, 1)
    return 1 - torch.arccos(0.99999 * cosine) / math.pi


class GraphConvolution(nn.Module):
    r"""One layer of GCNII, in the variant with separate weights for neighbours and input.

    M. Chen et al., "Simple and Deep Graph Convolutional Networks", ICML 2020. At depth
    :math:`l = 1, 2, \dots` with the graph :math:`\hat A` and the first layer's input :math:`h^0`:

    .. math::

        \theta &= \ln(\lambda / l + 1) \\
        \mathrm{out} &= \theta\, W [\hat A h; h^0]
            + (1 - \theta) ((1 - \alpha) \hat A h + \alpha h^0)

    Args:
        hidden: Width d of the nodes.
        depth: The layer's number l, from 1.
        alpha: Sample of the first layer's input, in [0, 1].
        decay: The factor lambda, above 0: the larger, the further down W counts.

    Raises:
        InputError: ``alpha`` or ``decay`` is out of range.
    """

    def __init__(self, hidden: int, depth: int, alpha: float, decay: float) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise InputError(f"alpha is {alpha}; expected a number in [0, 1].")
        if not 0 < decay < math.inf:
            raise InputError(f"decay is {decay}; expected a number above 0.")
        self.alpha = alpha
        self.theta = math.log(decay / depth + 1)
        self.weight = nn.Linear(2 * hidden, hidden, bias=False)

    def forward(self, graph: Graph, nodes: Tensor, initial: Tensor) -> Tensor:
        """``(B, M, L, d)`` from nodes h and initial nodes of the same shape."""
        mixed = graph.mix(nodes)
        learned: Tensor = self.weight(torch.cat([mixed, initial], dim=-1))
        kept = (1 - self.alpha) * mixed + self.alpha * initial
        return self.theta * learned + (1 - self.theta) * kept


class ReadOut(nn.Module):
    r"""Read each node's way through the graph, modality by modality.

    .. math::

        z_m = \mathrm{ReLU}([x_m; h_m]), \qquad
        \mathrm{logits} = V \,\mathrm{drop}([z_1; \dots; z_M]) + b

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of x and of h.
        dropout: Probability in [0, 1).
    """

    def __init__(self, shape: CorpusShape, hidden: int, dropout: float) -> None:
        super().__init__()
        self.names = list(shape.features)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(2 * hidden * len(self.names), shape.classes)

    def forward(self, nodes: Tensor, hidden: Tensor, present: Tensor) -> NetworkOutput:
        """The prediction, with z as an embedding for each modality.

        Args:
            nodes: ``(B, M, L, d)``, the graph's input x.
            hidden: ``(B, M, L, d)``, the last layer's output h.
            present: ``(B, M, L)`` bool. The z of other nodes are zero.
        """
        said = F.relu(torch.cat([nodes, hidden], dim=-1)).masked_fill(~present[..., None], 0)
        each = dict(zip(self.names, said.unbind(dim=1), strict=True))
        fused = torch.cat(list(each.values()), dim=-1)
        logits = self.head(self.dropout(fused))
        return NetworkOutput(logits=logits, embeddings={**each, "fused": fused})
