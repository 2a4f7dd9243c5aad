"""MMTr, cues of the dialogue and of each speaker, and attention to the main modality."""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Projections, check, main_modality, there


class MMTr(Network):
    r"""MMTr-style: cues of the dialogue and the speaker; weak modalities ask the main one.

    A reconstruction from the text of S. Zou et al., "Improving Multimodal Fusion with Main Modal
    Transformer for Emotion Recognition in Conversation", Knowledge-Based Systems 258, 2022; sizes
    and details are ours. The main modality :math:`t` is ``text``, or the first if there is no
    text. For every modality :math:`m`, and for the others :math:`w`:

    .. math::

        x_m &= \mathrm{drop}(W_m f_m) \\
        k_m &= C_m [\mathrm{BiLSTM}_m(x_m);\ \mathrm{BiLSTM}'_m(x_m \text{ of the same speaker})] \\
        \tilde k_w &= \mathrm{Transformer}_w(\text{queries } k_w, \text{ keys } k_t) \\
        h &= \mathrm{relu}(W\,\mathrm{drop}([k_t; \tilde k_w; \dots])), \qquad z = V h + c

    The main modality stays as it is, and the weak ones are enhanced by it. An utterance that lacks
    a modality gives that modality's LSTMs a zero, and nobody attends to an utterance that lacks the
    main one.

    Args:
        shape: The sizes of the corpus. Roles beyond its ``speakers`` count as the last.
        hidden: Width of every layer, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of each Transformer.
        causal: Read no later utterance; the LSTMs that run backward then run onward too.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MMTr(corpus.shape, hidden=8, heads=2)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    stackable: ClassVar[bool] = False

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        self.main = main_modality(shape)
        self.project = Projections(shape, hidden)
        self.cues = nn.ModuleDict(
            {name: _Cues(hidden, shape.speakers, causal) for name in shape.features}
        )
        self.enhance = nn.ModuleDict(
            {
                name: Transformer(layers, hidden, heads, dropout, causal)
                for name in shape.features
                if name != self.main
            }
        )
        self.fuse = nn.Linear(len(shape.features) * hidden, hidden)
        self.head = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        cues = {
            name: self.cues[name](self.dropout(rows), batch.roles, batch.context)
            for name, rows in self.project(batch).items()
        }
        keys, present = cues[self.main], there(batch)[self.main]
        for name, transformer in self.enhance.items():
            cues[name] = transformer(cues[name], present, keys=keys)
        together = self.dropout(torch.cat(list(cues.values()), dim=-1))
        fused = self.fuse(together).relu()
        return NetworkOutput(logits=self.head(fused), embeddings={**cues, "fused": fused})


class _Cues(nn.Module):
    """What one modality says over the dialogue, and over the utterances of one speaker."""

    def __init__(self, hidden: int, speakers: int, causal: bool = False) -> None:
        super().__init__()
        self.speakers = speakers
        half = (hidden + 1) // 2
        self.dialogue = _BiLSTM(hidden, half, causal)
        self.speaker = _BiLSTM(hidden, half, causal)
        self.join = nn.Linear(4 * half, hidden)

    def forward(self, rows: Tensor, roles: Tensor, context: Tensor) -> Tensor:
        """``(B, L, hidden)`` of such rows and ``(B, L)`` roles."""
        everybody = self.dialogue(rows, context.sum(dim=1))
        joined: Tensor = self.join(
            torch.cat([everybody, self.by_speaker(rows, roles, context)], dim=-1)
        )
        return joined

    def by_speaker(self, rows: Tensor, roles: Tensor, context: Tensor) -> Tensor:
        """The second LSTM, over each speaker's utterances as if there were no others.

        All speakers are read at once: their utterances are moved to the front of ``S`` copies of
        the dialogue, and what the LSTM says of them is moved back.
        """
        people = torch.arange(self.speakers, device=roles.device)[:, None]
        mine = (roles.clamp(max=self.speakers - 1)[:, None] == people) & context[:, None]
        order = (~mine).to(torch.uint8).argsort(dim=-1, stable=True)
        copies = rows[:, None].expand(-1, self.speakers, -1, -1)
        moved = _take(copies.flatten(0, 1), order.flatten(0, 1))
        said = self.speaker(moved, mine.sum(dim=-1).flatten())
        back = _take(said, order.argsort(dim=-1).flatten(0, 1)).view(*mine.shape, -1)
        return back.masked_fill(~mine[..., None], 0).sum(dim=1)


class _BiLSTM(nn.Module):
    """An LSTM in each direction over sequences of any length, without telling the CPU lengths.

    Args:
        width: Of the inputs.
        hidden: Of each LSTM.
        causal: Both run onward.
    """

    def __init__(self, width: int, hidden: int, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.onward = nn.LSTM(width, hidden, batch_first=True)
        self.reverse = nn.LSTM(width, hidden, batch_first=True)

    def forward(self, rows: Tensor, sizes: Tensor) -> Tensor:
        """``(N, L, 2 * hidden)`` of ``(N, L, width)``, of which the first ``(N,)`` sizes count."""
        if self.causal:
            return torch.cat([self.onward(rows)[0], self.reverse(rows)[0]], dim=-1)
        steps = torch.arange(rows.shape[1], device=rows.device)
        mirror = sizes[:, None] - 1 - steps
        mirror = torch.where(mirror < 0, steps, mirror)
        onward, _ = self.onward(rows)
        backward, _ = self.reverse(_take(rows, mirror))
        return torch.cat([onward, _take(backward, mirror)], dim=-1)


def _take(rows: Tensor, places: Tensor) -> Tensor:
    """``(N, L, D)`` rows in the order of ``(N, L)`` places."""
    return rows.gather(1, places[..., None].expand(-1, -1, rows.shape[-1]))
