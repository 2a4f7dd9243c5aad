"""Attention among the utterances of each dialogue, where dialogues lie one behind the other."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from fedmer.plugins.networks._layers import Dropout, up_to_now
from fedmer.plugins.networks._packing import Packing


def attend_in_dialogues(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    heads: int,
    present: Tensor,
    packing: Packing,
    dropout: Dropout,
    causal: bool = False,
) -> Tensor:
    """Scaled dot-product attention of ``P`` encoders, whose weights are dropped like all else.

    Args:
        queries: ``(P, N, d)``.
        keys: ``(P, N, d)``.
        values: ``(P, N, d)``.
        heads: Heads ``h``, a divisor of ``d``.
        present: ``(P, N)`` bool: the keys that may be attended to. Where a query has none, what
            comes out is finite and means nothing.
        packing: Which rows are one dialogue.
        dropout: Of the attention weights.
        causal: No query attends to a later utterance.

    Returns:
        ``(P, N, d)``.
    """

    def split(rows: Tensor) -> Tensor:
        return rows.view(*rows.shape[:2], heads, -1).transpose(1, 2)

    count = len(queries)
    parts = split(queries), split(keys), split(values)
    # A graph for other programs is made of torch's functions alone.
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
    if queries.device.type == "cpu" and not traced:
        barred = _barred(present, packing, causal)
        rows = [part.reshape(count * heads, -1, part.shape[-1]) for part in parts]
        mixed: Tensor = _BlockAttention.apply(*rows, packing.spans, barred, dropout)  # type: ignore[no-untyped-call]
        mixed = mixed.view(count, heads, *mixed.shape[1:])
    else:
        there = packing.unpack(present, dim=1).flatten(0, 1)
        # For all queries alike, or for each its own.
        there = up_to_now(there) if causal else there[:, None]
        there = there | ~there.any(dim=-1, keepdim=True)
        query, key, value = (
            packing.unpack(part, dim=2).transpose(1, 2).flatten(0, 1) for part in parts
        )
        rate = dropout.p if dropout.active else 0.0
        found = F.scaled_dot_product_attention(query, key, value, there[:, None], dropout_p=rate)
        found = found.view(count, -1, *found.shape[1:]).transpose(1, 2)
        mixed = packing.pack(found, dim=2)
    return mixed.transpose(1, 2).flatten(-2)


def _barred(present: Tensor, packing: Packing, causal: bool) -> list[Tensor] | None:
    """For each dialogue of ``n`` utterances, what is added to scores; None where nothing is.

    Returns:
        ``(P, 1, n)``, or causal ones ``(P, n, n)``: minus infinity for a key that is missing or
        later than the query, unless the query has no other.
    """
    if causal:
        seen = [up_to_now(present[:, start:end]) for start, end in packing.spans]
        kept = [own | ~own.any(dim=-1, keepdim=True) for own in seen]
        return [torch.zeros(own.shape).masked_fill_(~own, -torch.inf) for own in kept]
    if present.all():
        return None
    missing = ~present & packing.any(present)
    every = torch.zeros(present.shape).masked_fill_(missing, -torch.inf)
    return [every[:, None, start:end] for start, end in packing.spans]


class _BlockAttention(torch.autograd.Function):
    r"""Attention a dialogue at a time, so that its scores stay in the processor's cache.

    With scores :math:`S = Q K^T / \sqrt{w}`, weights :math:`A = \mathrm{softmax}(S)`, what dropout
    leaves of them :math:`D`, and :math:`O = D V`, the gradients are

    .. math::

        \bar V = D^T \bar O, \qquad
        T = D \odot (\bar O V^T), \qquad
        \bar S = T - A \odot \textstyle\sum_k T_{\cdot k}, \qquad
        \bar Q = \bar S K / \sqrt{w}, \qquad
        \bar K = \bar S^T Q / \sqrt{w}
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)  # type: ignore[untyped-decorator]
    def forward(
        ctx: Any,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        spans: Sequence[tuple[int, int]],
        barred: Sequence[Tensor] | None,
        dropout: Dropout,
    ) -> Tensor:
        scale = queries.shape[-1] ** -0.5
        mixed = torch.empty_like(queries)
        kept = []
        for place, (start, end) in enumerate(spans):
            scores = torch.bmm(queries[:, start:end] * scale, keys[:, start:end].transpose(1, 2))
            if barred is not None:
                bar = barred[place]
                every = scores.view(len(bar), -1, *scores.shape[1:])
                every.add_(bar[:, None])
            attention = scores.softmax(dim=-1)
            dropped = dropout(attention)
            mixed[:, start:end] = torch.bmm(dropped, values[:, start:end])
            kept += [attention, dropped]
        ctx.spans = spans
        ctx.save_for_backward(queries, keys, values, *kept)
        return mixed

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        queries, keys, values, *kept = ctx.saved_tensors
        scale = queries.shape[-1] ** -0.5
        moved = [torch.empty_like(rows) for rows in (queries, keys, values)]
        for i, (start, end) in enumerate(ctx.spans):
            attention, dropped = kept[2 * i], kept[2 * i + 1]
            query, key, value, out = (
                rows[:, start:end] for rows in (queries, keys, values, grad)
            )  # fmt: skip
            moved[2][:, start:end] = torch.bmm(dropped.transpose(1, 2), out)
            terms = torch.bmm(out, value.transpose(1, 2)).mul_(dropped)
            terms.addcmul_(attention, terms.sum(dim=-1, keepdim=True), value=-1).mul_(scale)
            moved[0][:, start:end] = torch.bmm(terms, key)
            moved[1][:, start:end] = torch.bmm(terms.transpose(1, 2), query)
        return *moved, None, None, None
