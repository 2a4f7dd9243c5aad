"""SDT, the Self-Distillation Transformer."""

import warnings
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks._layers import Dropout, Linears, attend, sinusoid
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
        count = len(self.modalities)
        # What flows into a modality: from itself first, then from the others in their order.
        self.targets = [target for target in range(count) for _ in range(count)]
        self.sources = [
            source
            for target in range(count)
            for source in [target, *(other for other in range(count) if other != target)]
        ]
        self.project = nn.ModuleDict(
            {name: nn.Linear(width, hidden, bias=False) for name, width in shape.features.items()}
        )
        self.speaker = nn.Embedding(shape.speakers + 1, hidden, padding_idx=shape.speakers)
        self.encoders = _Encoders(count**2, hidden, heads, dropout)
        self.gates = (
            Linears(count**2, hidden, hidden, bias=False) if gates == "learned" else nn.Identity()
        )
        self.reduce = Linears(count, count * hidden, hidden)
        self.fuse = nn.Linear(hidden, hidden, bias=False)
        self.students = Linears(count, hidden, shape.classes)
        self.teacher = nn.Linear(hidden, shape.classes)
        self.dropout = Dropout(dropout)
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
        present = torch.stack([batch.present[name] for name in self.modalities]) & batch.context
        reduced = self._reduce(self._streams(batch, present), present)
        weighed, read = reduced, reduced
        if self.scores is not None:
            weighed = self._weigh(self.scores, reduced, present)
            read = weighed if self.scores.settings.students == "scaled" else reduced
        # An alias, so that gradients add up in one order and to the same bits without scores.
        fused = self._fuse(weighed.view_as(weighed), present)
        students = self.students(self.dropout(F.relu(read)))
        return NetworkOutput(
            logits=self.teacher(fused),
            students=dict(zip(self.modalities, students, strict=True)),
            embeddings={**dict(zip(self.modalities, read, strict=True)), "fused": fused},
        )

    def _streams(self, batch: Batch, present: Tensor) -> Tensor:
        """x_m + p + s of every modality, ``(M, B, L, d)``."""
        rows = [
            self.project[name](batch.features[name].masked_fill(~there[..., None], 0))
            for name, there in zip(self.modalities, present, strict=True)
        ]
        return torch.stack(rows) + self._place(batch)

    def _place(self, batch: Batch) -> Tensor:
        """Where in the dialogue a turn stands, and who speaks: ``(B, L, d)``."""
        nobody = self.shape.speakers
        roles = batch.roles.clamp(max=nobody - 1).masked_fill(~batch.context, nobody)
        speaker: Tensor = self.speaker(roles)
        return speaker + sinusoid(batch.positions, speaker.shape[-1]).to(speaker.dtype)

    def _reduce(self, streams: Tensor, present: Tensor) -> Tensor:
        """H'_m, all that flows into each modality, ``(M, B, L, d)``."""
        count = len(self.modalities)
        queries = self.dropout(streams[self.targets])
        keys = self.dropout(streams[self.sources])
        # A stream that attends to itself is dropped out once, not once on either side.
        keys = keys.unflatten(0, (count, count))
        own = queries.unflatten(0, (count, count))[:, :1]
        keys = torch.cat([own, keys[:, 1:]], dim=1).flatten(0, 1)
        heard = present[self.sources]
        hidden = self.encoders(queries, keys, heard)
        gated = torch.sigmoid(self.gates(hidden)) * hidden * heard.any(dim=-1)[..., None, None]
        flows = gated.unflatten(0, (count, count)).permute(0, 2, 3, 1, 4).flatten(-2)
        reduced: Tensor = self.reduce(flows)
        return reduced

    def _weigh(self, scores: ModalityScores, reduced: Tensor, present: Tensor) -> Tensor:
        """H'_m by how much modality m counts in its turn, ``(M, B, L, d)``."""
        weights = scores(
            dict(zip(self.modalities, reduced, strict=True)),
            dict(zip(self.modalities, present, strict=True)),
        )
        return torch.stack([weights[name] for name in self.modalities]) * reduced

    def _fuse(self, hidden: Tensor, present: Tensor) -> Tensor:
        """H': an elementwise softmax over the modalities that a turn has, ``(B, L, d)``."""
        missing = ~present[..., None]
        scores: Tensor = self.fuse(hidden)
        # A turn without any modality has no softmax; its scores stay finite, its sum is zeroed.
        scores = scores.masked_fill(missing, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=0).masked_fill(missing, 0.0)
        return (weights * hidden).sum(dim=0)


class _Encoders(nn.Module):
    """Transformer layers side by side, whose queries may come from another modality than the keys.

    Args:
        count: How many, ``P``. Their weights are stacked, so that a product serves all of them.
        hidden: Width, a multiple of ``heads``.
        heads: Attention heads of each.
        dropout: Probability in [0, 1).
    """

    def __init__(self, count: int, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out, self.widen, self.narrow = (
            Linears(count, hidden, hidden) for _ in range(6)
        )
        self.scale = nn.Parameter(torch.ones(count, 1, 1, hidden))
        self.shift = nn.Parameter(torch.zeros(count, 1, 1, hidden))
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        """``(P, B, L, d)`` of two such, and of the ``(P, B, L)`` keys that are there."""
        attended = queries + self.dropout(self._attend(queries, keys, present))
        normed = F.layer_norm(attended, attended.shape[-1:], eps=1e-6) * self.scale + self.shift
        inner = self.dropout(F.gelu(self.widen(normed), approximate="tanh"))
        output: Tensor = attended + self.dropout(self.narrow(inner))
        return output

    def _attend(self, queries: Tensor, keys: Tensor, present: Tensor) -> Tensor:
        def split(rows: Tensor) -> Tensor:
            flat = rows.flatten(0, 1)
            return flat.view(*flat.shape[:2], self.heads, -1).transpose(1, 2)

        # Rows without any key would be undefined; the caller drops what flows from them.
        some = (present | ~present.any(dim=-1, keepdim=True)).flatten(0, 1)
        mixed = attend(
            split(self.query(queries)),
            split(self.key(keys)),
            split(self.value(keys)),
            some,
            self.dropout,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(-2).view_as(queries))
        return out
