"""Layers that networks share: Transformers whose keys may be missing, dropout, positions."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Dropout whose mask costs a tenth on the CPU of torch's, which draws a float a number.

    Args:
        p: Probability that a number is zeroed, in [0, 1); the others are divided by ``1 - p``. On
            the CPU a call zeroes by a byte a number, with a multiple of 1 / 256 that is p on
            average over calls.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p
        self.bytewise = True
        """Draw bytes on the CPU; off, torch draws, which also works for many clients at once."""

    @property
    def active(self) -> bool:
        return self.training and self.p > 0

    def forward(self, rows: Tensor) -> Tensor:
        if not self.active:
            return rows
        if rows.device.type != "cpu" or not self.bytewise:
            return F.dropout(rows, self.p)
        kept = math.floor((1 - self.p) * 256 + torch.rand(()).item())
        words = torch.empty((rows.numel() + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        drawn = words.view(torch.int8)[: rows.numel()].view(rows.shape)
        # Compared into floats at once: a mask of bools would have to be converted twice.
        mask = torch.empty(rows.shape, dtype=rows.dtype)
        return rows * torch.le(drawn, kept - 129, out=mask).mul_(1 / (1 - self.p))


class Linears(nn.Module):
    """Linear layers of one shape side by side, as one product.

    Args:
        count: How many, ``P``.
        wide: Width of the inputs.
        narrow: Width of the outputs.
        bias: Whether they have biases.
    """

    def __init__(self, count: int, wide: int, narrow: int, bias: bool = True) -> None:
        super().__init__()
        bound = wide**-0.5
        self.weight = nn.Parameter(torch.empty(count, narrow, wide).uniform_(-bound, bound))
        self.bias = (
            nn.Parameter(torch.empty(count, 1, narrow).uniform_(-bound, bound)) if bias else None
        )

    def forward(self, rows: Tensor) -> Tensor:
        """``(P, ..., narrow)`` of ``(P, ..., wide)``."""
        flat, turned = rows.flatten(1, -2), self.weight.transpose(1, 2)
        said = flat @ turned if self.bias is None else torch.baddbmm(self.bias, flat, turned)
        return said.view(*rows.shape[:-1], -1)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, present: Tensor, dropout: Dropout
) -> Tensor:
    """Scaled dot-product attention whose weights are dropped like everything else.

    Args:
        queries: ``(N, h, Q, w)`` of ``h`` heads.
        keys: ``(N, h, K, w)``.
        values: ``(N, h, K, w)``.
        present: ``(N, K)`` bool, at least one a row: the keys that may be attended to; or
            ``(N, Q, K)``, at least one for each query.
        dropout: Of the attention weights.

    Returns:
        ``(N, h, Q, w)``.
    """
    mask = present[:, None] if present.ndim == 3 else present[:, None, None, :]
    if dropout.bytewise and not (dropout.active and queries.device.type == "cpu"):
        rate = dropout.p if dropout.active else 0.0
        return F.scaled_dot_product_attention(queries, keys, values, mask, dropout_p=rate)
    # Added, since filling would cost a pass over all scores in the backward step too.
    barred = torch.where(mask, queries.new_zeros(()), -torch.inf)
    scores = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-1, -2)
    mixed: Tensor = dropout((scores + barred).softmax(dim=-1)) @ values
    return mixed


def up_to_now(present: Tensor) -> Tensor:
    """``(..., L, L)`` bool of ``(..., L)``: for each utterance, what is there of it and before it.

    >>> up_to_now(torch.tensor([True, False, True])).int().tolist()
    [[1, 0, 0], [1, 0, 0], [1, 0, 1]]
    """
    length = present.shape[-1]
    return present[..., None, :].expand(*present.shape, length).tril()


class Attention(nn.Module):
    """Multi-head attention that leaves out keys, and is zero where a row has none.

    Args:
        hidden: Width of queries, keys and outputs, a multiple of ``heads``.
        heads: Attention heads.
        dropout: Probability that an attention weight is dropped.
        causal: Queries and keys are the utterances of one dialogue, and no query attends to a later
            one.
    """

    def __init__(self, hidden: int, heads: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.dropout = Dropout(dropout)
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
            ``(B, Q, d)``, zero for queries that have no key.
        """
        if self.causal:
            present = up_to_now(present)
        anything = present.any(dim=-1, keepdim=True)
        mixed = attend(
            self._split(self.query(query)),
            self._split(self.key(keys)),
            self._split(self.value(keys)),
            # A softmax over nothing is NaN, so a row without keys gets all of them and is zeroed.
            present | ~anything,
            self.dropout,
        )
        found: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        # One for each query, or one for all of them.
        nothing = ~anything if self.causal else ~anything[..., None]
        return found.masked_fill(nothing, 0)

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
        causal: See :class:`Attention`.
    """

    def __init__(self, hidden: int, heads: int, dropout: float, causal: bool = False) -> None:
        super().__init__()
        self.attention = Attention(hidden, heads, dropout, causal)
        self.before = nn.LayerNorm(hidden)
        self.between = nn.LayerNorm(hidden)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.dropout = Dropout(dropout)

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
        causal: See :class:`Attention`.
    """

    def __init__(
        self, layers: int, hidden: int, heads: int, dropout: float, causal: bool = False
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerLayer(hidden, heads, dropout, causal) for _ in range(layers)
        )
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
