"""SDT, the Self-Distillation Transformer."""

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import sinusoid
from fedmer.plugins.networks._modalities import check
from fedmer.plugins.networks.attention_score import AttentionScore, ModalityScores
from fedmer.plugins.networks.base import Network, NetworkOutput


class SDT(Network):
    r"""Self-Distillation Transformer: intra- and cross-modal attention, two levels of gates.

    H. Ma et al., "A Transformer-based Model with Self-Distillation for Multimodal Emotion
    Recognition in Conversations", IEEE TMM 26:776-788, 2024 (arXiv 2310.20494). With modalities
    :math:`m, n`, position encoding :math:`p` and speaker embedding :math:`s`:

    .. math::

        x_m &= W_m f_m, \qquad \tilde x_m = \mathrm{drop}(x_m + p + s) \\
        o_{n \to m} &= \tilde x_m + \mathrm{drop}(\mathrm{MHA}(\tilde x_m, \tilde x_n, \tilde x_n))
            \\
        h_{n \to m} &= o + \mathrm{drop}(W_2\,\mathrm{drop}(\mathrm{gelu}(W_1\,\mathrm{LN}(o)))) \\
        g(h) &= \sigma(W h) \odot h, \qquad
        H'_m = W_r [g(h_{m \to m}); g(h_{n \to m}); \dots] \\
        H' &= \sum_m \mathrm{softmax}_m(W_f H'_m) \odot H'_m

    Each modality's student reads :math:`\mathrm{ReLU}(H'_m)`, the teacher reads :math:`H'`.
    ``M`` modalities make ``M * M`` encoders. Where a modality of a turn is missing, nobody attends
    to it, it has no weight in :math:`H'`, and what flows from a modality that a dialogue lacks
    altogether is zero.

    At ``hidden=1024`` and IEMOCAP's dimensions there are 79,669,272 parameters: the published
    79,687,704 less 18,432 of the nine LayerNorms before attention, which the authors' network
    creates and never uses.

    With ``attention_score`` each :math:`H'_m` is first scaled by how much the modality counts in
    its turn, the paper's addition to SDT; without, this is SDT. Where there is one modality there
    is nothing to weigh; a warning says so, and SDT goes without.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of every layer, a multiple of the number of heads. The paper has 1024.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        gates: Of each encoder's output h, 'learned' is sigmoid(W h) * h, and 'identity' is
            sigmoid(h) * h, which the authors use on MELD.
        attention_score: How modalities are weighed, or None for SDT as published.

    Raises:
        InputError: ``hidden`` is not a positive multiple of ``heads``, or ``dropout`` is out of
            range.
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        gates: Literal["learned", "identity"] = "learned",
        attention_score: AttentionScore | None = AttentionScore(),
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads)
        self.modalities = list(shape.features)
        self.project = nn.ModuleDict(
            {name: nn.Linear(width, hidden, bias=False) for name, width in shape.features.items()}
        )
        self.speaker = nn.Embedding(shape.speakers + 1, hidden, padding_idx=shape.speakers)
        pairs = [(source, target) for target in self.modalities for source in self.modalities]
        self.encoders = nn.ModuleDict(
            {_pair(*pair): _Encoder(hidden, heads, dropout) for pair in pairs}
        )
        self.gates = nn.ModuleDict(
            {_pair(*pair): nn.Linear(hidden, hidden, bias=False) for pair in pairs}
            if gates == "learned"
            else {}
        )
        self.reduce = nn.ModuleDict(
            {name: nn.Linear(len(self.modalities) * hidden, hidden) for name in self.modalities}
        )
        self.fuse = nn.Linear(hidden, hidden, bias=False)
        self.students = nn.ModuleDict(
            {name: nn.Linear(hidden, shape.classes) for name in self.modalities}
        )
        self.teacher = nn.Linear(hidden, shape.classes)
        self.dropout = nn.Dropout(dropout)
        self.scores: ModalityScores | None = None
        if attention_score is not None and len(self.modalities) == 1:
            warnings.warn(
                f"{self.modalities[0]} is the only modality, so that an attention score has "
                "nothing to weigh; SDT goes without.",
                stacklevel=2,
            )
        elif attention_score is not None:
            self.scores = ModalityScores(self.modalities, hidden, attention_score)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = {name: batch.present[name] & batch.context for name in self.modalities}
        place = self._place(batch)
        streams = {
            name: self.project[name](batch.features[name].masked_fill(~there[..., None], 0)) + place
            for name, there in present.items()
        }
        reduced = {name: self._reduce(name, streams, present) for name in self.modalities}
        weighed = reduced
        if self.scores is not None:
            weights = self.scores(reduced, present)
            weighed = {name: weights[name] * hidden for name, hidden in reduced.items()}
            if self.scores.settings.students == "scaled":
                reduced = weighed
        fused = self._fuse(weighed, present)
        return NetworkOutput(
            logits=self.teacher(fused),
            students={
                name: self.students[name](self.dropout(F.relu(hidden)))
                for name, hidden in reduced.items()
            },
            embeddings={**reduced, "fused": fused},
        )

    def _place(self, batch: Batch) -> Tensor:
        """Where in the dialogue a turn stands, and who speaks: ``(B, L, d)``."""
        nobody = self.shape.speakers
        roles = batch.roles.clamp(max=nobody - 1).masked_fill(~batch.context, nobody)
        speaker: Tensor = self.speaker(roles)
        return speaker + sinusoid(batch.positions, speaker.shape[-1]).to(speaker.dtype)

    def _reduce(
        self, target: str, streams: dict[str, Tensor], present: dict[str, Tensor]
    ) -> Tensor:
        """H'_m: all that flows into one modality, its own stream first, ``(B, L, d)``."""
        flows = []
        for source in [target, *(name for name in self.modalities if name != target)]:
            query = self.dropout(streams[target])
            keys = query if source == target else self.dropout(streams[source])
            hidden = self.encoders[_pair(source, target)](query, keys, present[source])
            gate = self.gates[_pair(source, target)](hidden) if self.gates else hidden
            anything = present[source].any(dim=1)[:, None, None]
            flows.append(torch.sigmoid(gate) * hidden * anything)
        reduced: Tensor = self.reduce[target](torch.cat(flows, dim=-1))
        return reduced

    def _fuse(self, reduced: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
        """H': an elementwise softmax over the modalities that a turn has, ``(B, L, d)``."""
        hidden = torch.stack([reduced[name] for name in self.modalities])
        missing = ~torch.stack([present[name] for name in self.modalities])[..., None]
        scores: Tensor = self.fuse(hidden)
        # A turn without any modality has no softmax; its scores stay finite, its sum is zeroed.
        scores = scores.masked_fill(missing, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=0).masked_fill(missing, 0.0)
        return (weights * hidden).sum(dim=0)


class _Encoder(nn.Module):
    """One transformer layer whose queries may come from another modality than its keys."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.widen = nn.Linear(hidden, hidden)
        self.narrow = nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        attended = query + self.dropout(self.attend(query, keys, present))
        inner = self.dropout(F.gelu(self.widen(self.norm(attended)), approximate="tanh"))
        output: Tensor = attended + self.dropout(self.narrow(inner))
        return output

    def attend(self, query: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        def split(rows: Tensor) -> Tensor:
            return rows.reshape(*rows.shape[:2], self.heads, -1).transpose(1, 2)

        # Rows without any key would be undefined; the caller drops what flows from them.
        mask = (present | ~present.any(dim=1, keepdim=True))[:, None, None, :]
        mixed = F.scaled_dot_product_attention(
            split(self.query(query)),
            split(self.key(keys)),
            split(self.value(keys)),
            attn_mask=mask,
            dropout_p=self.dropout.p if self.training else 0.0,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2))
        return out


def _pair(source: str, target: str) -> str:
    return f"{source}_to_{target}"
