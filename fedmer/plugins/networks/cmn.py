"""CMN, the Conversational Memory Network."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._history import (
    Reading,
    along,
    by_role,
    concatenated,
    heard,
    own_and_others,
    slots,
)
from fedmer.plugins.networks._layers import Dropout
from fedmer.plugins.networks._modalities import check


class CMN(Network):
    r"""Conversational Memory Network: hops over the speaker's and the others' past utterances.

    D. Hazarika et al., "Conversational Memory Network for Emotion Recognition in Dyadic Dialogue
    Videos", NAACL 2018. With :math:`x_i` the concatenated modalities of utterance i, and :math:`s`
    either the utterances of its own speaker or those of everybody else, each with GRUs of their
    own:

    .. math::

        q_i &= \tanh(W x_i), \qquad
        M^s = \mathrm{GRU}^s_2(\tanh(\mathrm{drop}(\mathrm{GRU}^s_1(x^s)))) \\
        p^s_i &= \mathrm{softmax}_j \tanh(q_i \cdot M^s_j), \qquad i - \mathrm{window} \le j < i \\
        q_i &\leftarrow \tanh\Big(q_i + \sum_s \sum_j \mathrm{drop}(p^s_{ij}) M^s_j\Big)
            \quad \text{hops times}

    The prediction is linear in the last :math:`q_i`, so no later utterance can change it. As in the
    authors' code, a memory stays what it is over the hops.

    Deviations: the authors start the GRUs anew for each utterance, at the first utterance of its
    window; here they pass once over the dialogue, and :math:`M^s_j` is made of all utterances of
    :math:`s` up to j. They pass over the places of the other kind too and let them share in
    :math:`p^s_i`; here these are left out. They drop with probability 0.7, penalise the weights,
    and know two speakers only.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of queries and memories. The authors have 100.
        dropout: Probability in [0, 1), of states and of attention weights.
        hops: How often the memories are read.
        window: How many utterances a memory reaches back, whoever spoke them.
        causal: Changes nothing: a memory holds earlier utterances only.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = CMN(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    stackable: ClassVar[bool] = False

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        dropout: float = 0.3,
        hops: int = 3,
        window: int = 40,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, hops=hops, window=window)
        self.hops, self.window = hops, window
        width = sum(shape.features.values())
        self.query = nn.Linear(width, hidden)
        self.own = _Memory(width, hidden, dropout)
        self.others = _Memory(width, hidden, dropout)
        self.read = Reading(dropout)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = concatenated(batch, self.shape)
        speaking = by_role(batch, self.shape.speakers)
        own, others = own_and_others(speaking, heard(batch))
        memories = [
            (self.own(rows, own), slots(speaking, own, self.window)),
            (self.others(rows, others), slots(speaking, others, self.window)),
        ]
        query = torch.tanh(self.query(rows))
        for _ in range(self.hops):
            found = [self.read(query, memory, visible) for memory, visible in memories]
            query = torch.tanh(query + sum(found))
        return NetworkOutput(logits=self.head(query), embeddings={"fused": query})


class _Memory(nn.Module):
    """The states that one kind of history leaves behind, for every role at once."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.local = nn.GRU(width, hidden, batch_first=True)
        self.memory = nn.GRU(hidden, hidden, batch_first=True)
        self.dropout = Dropout(dropout)

    def forward(self, rows: Tensor, members: Tensor) -> Tensor:
        """``(B, R, L, d)`` from rows ``(B, L, D)`` and members ``(B, R, L)``."""
        seen = rows[:, None].expand(-1, members.shape[1], -1, -1)
        local = torch.tanh(self.dropout(along(self.local, seen, members)))
        return along(self.memory, local, members)
