"""Transformer layers whose keys may be missing, and the encoding of positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention that leaves out keys, and is zero where a row has none.

    Args:
        hidden: Width of queries, keys and outputs, a multiple of ``heads``.
        heads: Attention heads.
        dropout: Probability that an attention weight is dropped.
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        """What each query finds.

        Args:
            query: ``(B, Q, d)``.
            keys: ``(B, K, d)``, also the values.
            present: ``(B, K)`` bool, the keys that may be attended to.

        Returns:
            ``(B, Q, d)``, zero in the rows of ``B`` that have no key.
        """
        anything = present.any(dim=1)[:, None]
        mixed = F.scaled_dot_product_attention(
            self._split(self.query(query)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            # A softmax over nothing is NaN, so a row without keys gets all of them and is zeroed.
            attn_mask=(present | ~anything)[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        found: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return found.masked_fill(~anything[..., None], 0)

    def _split(self, rows: Tensor) -> Tensor:
        return rows.reshape(*rows.shape[:2], self.heads, -1).transpose(1, 2)


class TransformerLayer(nn.Module):
    r"""A Transformer layer with norms inside, for one sequence or across two.

    With queries :math:`x` and keys :math:`y`:

    .. math::

        o &= x + \mathrm{drop}(\mathrm{MHA}(\mathrm{LN}(x), \mathrm{LN}(y), \mathrm{LN}(y))) \\
        \mathrm{out} &= o + \mathrm{drop}(W_2\,\mathrm{drop}(\mathrm{gelu}(W_1\,\mathrm{LN}(o))))

    R. Xiong et al., "On Layer Normalization in the Transformer Architecture", ICML 2020.

    Args:
        hidden: Width d of every layer, a multiple of ``heads``.
        heads: Attention heads.
        dropout: Probability in [0, 1).
    """

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads, dropout)
        self.before = nn.LayerNorm(hidden)
        self.between = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, present: Tensor, keys: Tensor | None = None) -> Tensor:
        """One layer.

        Args:
            query: ``(B, Q, d)``.
            present: ``(B, K)`` bool, the keys that may be attended to.
            keys: ``(B, K, d)``; without them the queries attend to each other, and K is Q.

        Returns:
            ``(B, Q, d)``.
        """
        asking = self.before(query)
        asked = asking if keys is None else self.before(keys)
        attended = query + self.dropout(self.attention(asking, asked, present))
        inner = self.dropout(F.gelu(self.widen(self.between(attended))))
        output: Tensor = attended + self.dropout(self.narrow(inner))
        return output


class Transformer(nn.Module):
    """A stack of layers and a norm on top.

    Args:
        layers: How many.
        hidden: Width d of every layer, a multiple of ``heads``.
        heads: Attention heads.
        dropout: Probability in [0, 1).
    """

    def __init__(self, layers: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TransformerLayer(hidden, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, query: Tensor, present: Tensor, keys: Tensor | None = None) -> Tensor:
        """``(B, Q, d)`` from the same arguments as a layer; every layer sees the same ``keys``."""
        rows = query
        for layer in self.layers:
            rows = layer(rows, present, keys)
        normed: Tensor = self.norm(rows)
        return normed


def sinusoid(positions: Tensor, width: int) -> Tensor:
    r"""Fixed position encoding, sines at even and cosines at odd dimensions.

    Args:
        positions: ``(...)`` int64, any length of dialogue.
        width: Dimensions ``d``.

    Returns:
        ``(..., d)`` float32 with
        :math:`p_{2i} = \sin(t / 10000^{2i/d}),\ p_{2i+1} = \cos(t / 10000^{2i/d})`.
    """
    pairs = torch.arange(0, width, 2, device=positions.device)
    angles = positions[..., None] * torch.exp(pairs * (-math.log(10000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]
