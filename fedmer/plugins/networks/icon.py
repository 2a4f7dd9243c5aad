"""ICON, the Interactive Conversational Memory Network."""

from typing import ClassVar

import torch
from torch import nn

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


class ICON(Network):
    r"""Interactive Conversational Memory Network: what both sides said, as one rewritten memory.

    D. Hazarika et al., "ICON: Interactive Conversational Memory Network for Multimodal Emotion
    Detection", EMNLP 2018. With :math:`x_i` the concatenated modalities of utterance i, o the
    utterances of its own speaker and e those of everybody else:

    .. math::

        q_i &= \tanh(W x_i), \qquad
        S_j = \begin{cases}
            \tanh(\mathrm{drop}(\mathrm{GRU}^o(x^o)_j)) & j \in o \\
            \tanh(\mathrm{drop}(\mathrm{GRU}^e(x^e)_j)) & j \in e
        \end{cases} \\
        M^1 &= \mathrm{GRU}^g(S), \qquad M^{h+1} = \mathrm{GRU}^m(M^h) \\
        p_i &= \mathrm{softmax}_j \tanh(q_i \cdot M^h_j), \qquad i - \mathrm{window} \le j < i \\
        q_i &\leftarrow \tanh\Big(q_i + \sum_j \mathrm{drop}(p_{ij}) M^h_j\Big)
            \quad \text{at hop } h

    The prediction is linear in the last :math:`q_i`, so no later utterance can change it. What is
    an own utterance depends on who asks, hence there is one memory for each role.

    Deviations: the authors start the GRUs anew for each utterance, at the first utterance of its
    window; here they pass once over the dialogue, and :math:`M^h_j` is made of all utterances up to
    j. They drop with probability 0.7, penalise the weights, and know two speakers only.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of queries and memories. The authors have 100.
        dropout: Probability in [0, 1), of states and of attention weights.
        hops: How often the memory is read; it is rewritten between two readings.
        window: How many utterances the memory reaches back.
        causal: Changes nothing: a memory holds earlier utterances only.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = ICON(corpus.shape, hidden=8)(batch)
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
        self.own = nn.GRU(width, hidden, batch_first=True)
        self.others = nn.GRU(width, hidden, batch_first=True)
        # The first makes the memory, the second rewrites it between any two hops.
        self.memories = nn.ModuleList(
            nn.GRU(hidden, hidden, batch_first=True) for _ in range(min(hops, 2))
        )
        self.dropout = Dropout(dropout)
        self.read = Reading(dropout)
        self.head = nn.Linear(hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = concatenated(batch, self.shape)
        speaking = by_role(batch, self.shape.speakers)
        own, others = own_and_others(speaking, heard(batch))
        members = own | others
        visible = slots(speaking, members, self.window)
        seen = rows[:, None].expand(-1, self.shape.speakers, -1, -1)
        local = along(self.own, seen, own) + along(self.others, seen, others)
        memory = torch.tanh(self.dropout(local))
        query = torch.tanh(self.query(rows))
        for hop in range(self.hops):
            memory = along(self.memories[min(hop, 1)], memory, members)
            query = torch.tanh(query + self.read(query, memory, visible))
        return NetworkOutput(logits=self.head(query), embeddings={"fused": query})
