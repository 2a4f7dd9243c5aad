"""MFN, the Memory Fusion Network."""

import torch
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Linears
from fedmer.plugins.networks._modalities import Projections, check, there


class MFN(Network):
    r"""Memory Fusion Network: an LSTM for each modality, and a memory of how their states change.

    A. Zadeh et al., "Memory Fusion Network for Multi-view Sequential Learning", AAAI 2018 (arXiv
    1802.00927). With utterance t of the dialogue, an LSTM for each modality m, and networks
    :math:`D` of one hidden layer:

    .. math::

        h_m^t, c_m^t &= \mathrm{LSTM}_m(f_m^t, h_m^{t-1}, c_m^{t-1}), \qquad
        c = [c_1^{t-1}; \dots; c_M^{t-1}; c_1^t; \dots; c_M^t] \\
        \hat c &= \mathrm{softmax}(D_a(c)) \odot c \\
        u^t &= \sigma(D_1(\hat c)) \odot u^{t-1} + \sigma(D_2(\hat c)) \odot \tanh(D_u(\hat c)) \\
        z^t &= V\,\mathrm{drop}([h_1^t; \dots; h_M^t; u^t]) + b

    :math:`\hat c` is the paper's delta-memory attention, over two neighbouring states of all
    modalities, and u its multi-view gated memory.

    Deviations: the authors' sequence is the words of one utterance, whose last step predicts. Here
    it is the dialogue, and every utterance predicts. Where an utterance lacks a modality, that
    LSTM keeps its state, and u stays where it lacks all. The authors put one more layer before the
    logits, and give each LSTM and each D a width of its own.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of each LSTM, of u, and of the hidden layers of D.
        dropout: Probability in [0, 1), in each D and before the logits.
        causal: Changes nothing: the recurrences run onward only.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = MFN(corpus.shape, hidden=8)(batch)
    >>> output.logits.shape == (*batch.labels.shape, 6)
    True
    """

    def __init__(
        self, shape: CorpusShape, hidden: int = 64, dropout: float = 0.3, causal: bool = False
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout)
        count = len(shape.features)
        self.lstms = _LSTMs(shape, hidden)
        self.attention = _two_layers(2 * count * hidden, hidden, 2 * count * hidden, dropout)
        self.retain, self.update, self.propose = (
            _two_layers(2 * count * hidden, hidden, hidden, dropout) for _ in range(3)
        )
        self.dropout = Dropout(dropout)
        self.head = nn.Linear((count + 1) * hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        states, cells = self.lstms(batch)
        before = torch.cat([torch.zeros_like(cells[:, :1]), cells[:, :-1]], dim=1)
        delta = torch.cat([before, cells], dim=2).flatten(2)
        attended = self.attention(delta).softmax(dim=-1) * delta
        memory = self._remember(attended, torch.stack(list(there(batch).values())).any(dim=0))
        fused = torch.cat([states.flatten(2), memory], dim=-1)
        each = dict(zip(self.shape.features, states.unbind(dim=2), strict=True))
        logits = self.head(self.dropout(fused))
        return NetworkOutput(logits=logits, embeddings={**each, "memory": memory, "fused": fused})

    def _remember(self, attended: Tensor, heard: Tensor) -> Tensor:
        """u of every utterance, ``(B, L, d)``."""
        silent = ~heard[..., None]
        kept = torch.sigmoid(self.retain(attended)).masked_fill(silent, 1)
        added = torch.sigmoid(self.update(attended)) * torch.tanh(self.propose(attended))
        added = added.masked_fill(silent, 0)
        found: Tensor = _accumulate(kept, added)
        return found


class _LSTMs(nn.Module):
    """An LSTM for each modality side by side, which keeps its state where the modality is missing.

    Unlike torch's it gives the cell of every utterance, and steps for all modalities at once.
    """

    def __init__(self, shape: CorpusShape, hidden: int) -> None:
        super().__init__()
        self.enter = Projections(shape, 4 * hidden)
        self.recur = Linears(len(shape.features), hidden, 4 * hidden, bias=False)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Outputs h and cells c of every utterance, ``(B, L, M, d)`` each."""
        entered = torch.stack(list(self.enter(batch).values()))
        known = torch.stack(list(there(batch).values()))[..., None]
        states, cells = _step(entered, known, self.recur.weight)
        return states.movedim(0, 2), cells.movedim(0, 2)


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _step(entered: Tensor, known: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The recurrence of all LSTMs; compiled in a trace, which would know one length else.

    Args:
        entered: ``(M, B, L, 4 d)``, what comes from the features.
        known: ``(M, B, L, 1)`` bool.
        weight: ``(M, 4 d, d)``.

    Returns:
        Outputs and cells, ``(M, B, L, d)`` each.
    """
    turned = weight.transpose(1, 2)
    state = torch.zeros_like(entered[:, :, 0, : weight.shape[2]])
    cell = state
    states, cells = [state], [cell]
    for t in range(entered.shape[2]):
        has = known[:, :, t]
        let_in, forget, new, out = (entered[:, :, t] + state @ turned).chunk(4, dim=-1)
        moved = torch.sigmoid(forget) * cell + torch.sigmoid(let_in) * torch.tanh(new)
        cell = torch.where(has, moved, cell)
        state = torch.where(has, torch.sigmoid(out) * torch.tanh(moved), state)
        states.append(state)
        cells.append(cell)
    return torch.stack(states[1:], dim=2), torch.stack(cells[1:], dim=2)


@torch.jit.script_if_tracing  # type: ignore[untyped-decorator]
def _accumulate(kept: Tensor, added: Tensor) -> Tensor:
    """The memory of every utterance, ``(B, L, d)``, of what is kept and added at each."""
    memory = torch.zeros_like(added[:, 0])
    found = [memory]
    for t in range(kept.shape[1]):
        memory = kept[:, t] * memory + added[:, t]
        found.append(memory)
    return torch.stack(found[1:], dim=1)


def _two_layers(wide: int, hidden: int, narrow: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(wide, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, narrow)
    )
