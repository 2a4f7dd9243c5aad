"""What was said before: recurrences over one speaker's utterances, and memories read by
attention."""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import there


def concatenated(batch: Batch, shape: CorpusShape) -> Tensor:
    """``(B, L, D)``: all modalities side by side in the order of ``shape``, zero where missing."""
    present = there(batch)
    return torch.cat(
        [batch.features[name].masked_fill(~present[name][..., None], 0) for name in shape.features],
        dim=-1,
    )


def heard(batch: Batch) -> Tensor:
    """``(B, L)`` bool: the utterances that have a modality. Of the others nothing can be
    remembered."""
    return torch.stack(list(there(batch).values())).any(dim=0)


def numbered(batch: Batch, speakers: int) -> Tensor:
    """``(B, L)`` roles below ``speakers``. The later ones of a longer list count as the last."""
    return batch.roles.clamp(max=speakers - 1)


def by_role(batch: Batch, speakers: int) -> Tensor:
    """Who speaks when: ``(B, R, L)`` bool with ``R = speakers``, False in padding."""
    roles = numbered(batch, speakers)[:, None]
    numbers = torch.arange(speakers, device=roles.device)[:, None]
    return (roles == numbers) & batch.context[:, None]


def own_and_others(speaking: Tensor, remembered: Tensor) -> tuple[Tensor, Tensor]:
    """For each role, the utterances of whoever has it and the utterances of everybody else.

    Args:
        speaking: ``(B, R, L)`` bool of :func:`by_role`.
        remembered: ``(B, L)`` bool, the utterances that count.

    Returns:
        Two ``(B, R, L)`` bool. A role that never speaks in a dialogue hears nobody in it.

    >>> speaking = torch.tensor([[[1, 0, 1], [0, 1, 0], [0, 0, 0]]]).bool()
    >>> own, others = own_and_others(speaking, torch.tensor([[1, 1, 1]]).bool())
    >>> others.int().tolist()
    [[[0, 1, 0], [1, 0, 1], [0, 0, 0]]]
    """
    counted = remembered[:, None]
    takes_part = speaking.any(dim=-1, keepdim=True)
    return speaking & counted, ~speaking & counted & takes_part


def along(recurrence: nn.Module, rows: Tensor, members: Tensor) -> Tensor:
    """Run a recurrence over the members of each group as if there were no other utterances.

    Args:
        recurrence: A batch-first GRU or LSTM, from ``D`` to ``H`` over all its directions.
        rows: ``(B, G, L, D)``, the utterances as each of ``G`` groups sees them, finite everywhere.
        members: ``(B, G, L)`` bool.

    Returns:
        ``(B, G, L, H)``, the states in the members' places, zero elsewhere.
    """
    order = members.byte().argsort(dim=-1, descending=True, stable=True)
    compact = rows.take_along_dim(order[..., None], dim=2).flatten(0, 1)
    # Nothing can be packed that has no utterances; what an empty group says is dropped below.
    sizes = members.sum(dim=-1).flatten().clamp(min=1).cpu()
    packed = pack_padded_sequence(compact, sizes, batch_first=True, enforce_sorted=False)
    states, _ = pad_packed_sequence(
        recurrence(packed)[0], batch_first=True, total_length=rows.shape[2]
    )
    place = (members.cumsum(dim=-1) - 1).clamp(min=0)
    spread: Tensor = states.reshape(*members.shape, -1).take_along_dim(place[..., None], dim=2)
    return spread.masked_fill(~members[..., None], 0)


def both_ways(
    kind: type[nn.GRU] | type[nn.LSTM], hidden: int, dropout: float, causal: bool = False
) -> nn.GRU | nn.LSTM:
    """Two layers of a recurrence in both directions, from ``hidden`` to ``hidden``.

    Causal ones run onward only, at the full width.

    Raises:
        InputError: ``hidden`` is odd.

    >>> both_ways(nn.GRU, 7, 0.3)
    Traceback (most recent call last):
    fedmer.errors.InputError: hidden is 7; expected an even number, as half of it runs each way.
    """
    if causal:
        return kind(hidden, hidden, 2, dropout=dropout, batch_first=True)
    if hidden % 2:
        raise InputError(
            f"hidden is {hidden}; expected an even number, as half of it runs each way."
        )
    return kind(hidden, hidden // 2, 2, dropout=dropout, bidirectional=True, batch_first=True)


def slots(speaking: Tensor, members: Tensor, window: int) -> Tensor:
    """Which states of :func:`along` are the memory of which utterance.

    The memory of utterance i are the members of the group of its role among the ``window``
    utterances before i, whoever speaks in between.

    Args:
        speaking: ``(B, R, L)`` bool of :func:`by_role`.
        members: ``(B, R, L)`` bool.
        window: Utterances that a memory reaches back.

    Returns:
        ``(B, L, R * L)`` bool: for each utterance, the states of all roles, role by role.
    """
    turns = torch.arange(speaking.shape[-1], device=speaking.device)
    back = turns[:, None] - turns
    within = (back > 0) & (back <= window)
    visible = speaking[..., :, None] & members[..., None, :] & within
    return visible.transpose(1, 2).flatten(2)


class Reading(nn.Module):
    r"""Attention of utterances to a memory, with bounded scores.

    .. math::

        o_i = \sum_j \mathrm{drop}(p_{ij}) M_j, \qquad
        p_i = \mathrm{softmax}_j \tanh(q_i \cdot M_j)

    Args:
        dropout: Probability that an attention weight is dropped.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor, visible: Tensor) -> Tensor:
        """What each utterance finds.

        Args:
            queries: ``(B, L, d)``.
            memory: ``(B, R, L, d)`` of :func:`along`.
            visible: ``(B, L, R * L)`` bool of :func:`slots`.

        Returns:
            ``(B, L, d)``, zero where the memory is empty.
        """
        states = memory.flatten(1, 2)
        scores = torch.tanh(queries @ states.transpose(1, 2))
        # Where nothing is visible the scores stay finite, and the weights are zeroed.
        scores = scores.masked_fill(~visible, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1).masked_fill(~visible, 0)
        found: Tensor = self.dropout(weights) @ states
        return found
