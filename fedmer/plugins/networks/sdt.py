"""SDT, the Self-Distillation Transformer."""

import warnings
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._dialogue_attention import attend_in_dialogues
from fedmer.plugins.networks._layers import Dropout, Linears, sinusoid
from fedmer.plugins.networks._modalities import check
from fedmer.plugins.networks._packing import Packing
from fedmer.plugins.networks.attention_score import AttentionScore, ModalityScores


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
    ``M`` modalities make ``M * M`` encoders. Where a modality of an utterance is missing, nobody
    attends to it, it has no weight in :math:`H'`, and what flows from a modality that a dialogue
    lacks altogether is zero.

    At ``hidden=1024`` and IEMOCAP's dimensions there are 79,669,272 parameters: the published
    79,687,704 less 18,432 of the nine LayerNorms before attention, which the authors' network
    creates and never uses.

    With ``attention_score`` each :math:`H'_m` is first scaled by how much the modality counts in
    its utterance, the paper's addition to SDT; without, this is SDT. Where there is one modality
    there is nothing to weigh; a warning says so, and SDT goes without.

    Args:
        shape: The sizes of the corpus.
        hidden: Width d of every layer, a multiple of the number of heads. The paper has 1024.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        gates: Of each encoder's output h, 'learned' is sigmoid(W h) * h, and 'identity' is
            sigmoid(h) * h, which the authors use on MELD.
        attention_score: How modalities are weighed, or None for SDT as published.
        causal: Read no later utterance.

    Raises:
        InputError: ``hidden`` is not a positive multiple of ``heads``, ``dropout`` is out of range,
            or a causal network would weigh an utterance by all utterances of its dialogue.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = SDT(corpus.shape, hidden=8, heads=2)(batch)
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
        gates: Literal["learned", "identity"] = "learned",
        attention_score: AttentionScore | None = AttentionScore(),
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads)
        if causal and attention_score is not None and attention_score.axis == "utterance":
            raise InputError(
                "attention_score.axis is utterance, which weighs an utterance by all utterances "
                "of its "
                "dialogue, and causal is true; use the axis modality."
            )
        self.causal = causal
        self.modalities = list(shape.features)
        count = len(self.modalities)
        # What flows into a modality: from itself first, then from the others in their order.
        targets = [target for target in range(count) for _ in range(count)]
        sources = [
            source
            for target in range(count)
            for source in [target, *(other for other in range(count) if other != target)]
        ]
        self._targets: Tensor
        self._sources: Tensor
        self.register_buffer("_targets", torch.tensor(targets), persistent=False)
        self.register_buffer("_sources", torch.tensor(sources), persistent=False)
        self.project = nn.ModuleDict(
            {name: nn.Linear(width, hidden, bias=False) for name, width in shape.features.items()}
        )
        self.speaker = nn.Embedding(shape.speakers + 1, hidden, padding_idx=shape.speakers)
        self.encoders = _Encoders(count**2, hidden, heads, dropout, causal)
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

    @property
    def class_parameters(self) -> dict[str, int]:
        return {"students.weight": 1, "students.bias": 2, "teacher.weight": 0, "teacher.bias": 0}

    @property
    def linear_head(self) -> nn.Linear:
        return self.teacher

    def forward(self, batch: Batch) -> NetworkOutput:
        # From here to the heads nothing but turns: no padding is worked on.
        packing = Packing.of(batch)
        present = packing.pack(torch.stack([batch.present[m] for m in self.modalities]), dim=1)
        reduced = self._reduce(self._streams(batch, present, packing), present, packing)
        weighed, read = reduced, reduced
        if self.scores is not None:
            weighed = self._weigh(self.scores, reduced, present, packing)
            read = weighed if self.scores.settings.students == "scaled" else reduced
        # An alias, so that gradients add up in one order and to the same bits without scores.
        fused, gates = self._fuse(weighed.view_as(weighed), present)
        counts = {} if self.training else self._counts(gates, weighed, reduced, packing)
        students = packing.unpack(self.students(self.dropout(F.relu(read))), dim=1)
        embeddings = packing.unpack(read, dim=1)
        return NetworkOutput(
            logits=packing.unpack(self.teacher(fused)),
            students=dict(zip(self.modalities, students, strict=True)),
            embeddings={
                **dict(zip(self.modalities, embeddings, strict=True)),
                "fused": packing.unpack(fused),
            },
            modality_weights=counts,
        )

    def _streams(self, batch: Batch, present: Tensor, packing: Packing) -> Tensor:
        """x_m + p + s of every modality, ``(M, N, d)``."""
        rows = [
            self.project[name](packing.pack(batch.features[name]) * there[:, None])
            for name, there in zip(self.modalities, present, strict=True)
        ]
        return torch.stack(rows) + self._place(batch, packing)

    def _place(self, batch: Batch, packing: Packing) -> Tensor:
        """Where in the dialogue an utterance stands, and who speaks: ``(N, d)``."""
        roles = packing.pack(batch.roles).clamp(max=self.shape.speakers - 1)
        speaker: Tensor = self.speaker(roles)
        positions = packing.pack(batch.positions)
        return speaker + sinusoid(positions, speaker.shape[-1]).to(speaker.dtype)

    def _reduce(self, streams: Tensor, present: Tensor, packing: Packing) -> Tensor:
        """H'_m, all that flows into each modality, ``(M, N, d)``."""
        count = len(self.modalities)
        queries = self.dropout(streams.index_select(0, self._targets))
        keys = self.dropout(streams.index_select(0, self._sources))
        # A stream that attends to itself is dropped out once, not once on either side.
        keys = keys.view(count, count, *keys.shape[1:])
        own = queries.view(count, count, *queries.shape[1:])[:, :1]
        keys = torch.cat([own, keys[:, 1:]], dim=1).flatten(0, 1)
        heard = present.index_select(0, self._sources)
        hidden = self.encoders(queries, keys, heard, packing)
        gated = torch.sigmoid(self.gates(hidden)) * hidden
        any_heard = packing.any_so_far(heard) if self.causal else packing.any(heard)
        gated = gated * any_heard[..., None]
        flows = gated.view(count, count, *gated.shape[1:]).transpose(1, 2).flatten(-2)
        reduced: Tensor = self.reduce(flows)
        return reduced

    def _weigh(
        self, scores: ModalityScores, reduced: Tensor, present: Tensor, packing: Packing
    ) -> Tensor:
        """H'_m by how much modality m counts in its utterance, ``(M, N, d)``."""
        dialogues = scores.settings.axis == "utterance"
        rows, there = (
            packing.unpack(part, dim=1) if dialogues else part[:, None]
            for part in (reduced, present)
        )
        found = scores(
            dict(zip(self.modalities, rows, strict=True)),
            dict(zip(self.modalities, there, strict=True)),
        )
        weights = torch.stack([found[name] for name in self.modalities])
        return (packing.pack(weights, dim=1) if dialogues else weights[:, 0]) * reduced

    def _fuse(self, hidden: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """H', ``(N, d)``, by an elementwise softmax over the modalities that an utterance has.

        Returns:
            H' and the softmax, ``(M, N, d)``.
        """
        missing = ~present[..., None]
        scores: Tensor = self.fuse(hidden)
        # An utterance without any modality has no softmax; its scores stay finite, its sum is
        # zeroed.
        scores = scores.masked_fill(missing, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=0).masked_fill(missing, 0.0)
        return (weights * hidden).sum(dim=0), weights

    def _counts(
        self, gates: Tensor, weighed: Tensor, reduced: Tensor, packing: Packing
    ) -> dict[str, Tensor]:
        """What H'_m is multiplied by on its way into H', by modality: ``(B, L)``, sum 1."""
        scale = weighed.norm(dim=-1) / reduced.norm(dim=-1).clamp(min=1e-12)
        found = gates.mean(dim=-1) * scale
        found = found / found.sum(dim=0).clamp(min=1e-12)
        return dict(zip(self.modalities, packing.unpack(found, dim=1), strict=True))


class _Encoders(nn.Module):
    """Transformer layers side by side, whose queries may come from another modality than the keys.

    Args:
        count: How many, ``P``. Their weights are stacked, so that a product serves all of them.
        hidden: Width, a multiple of ``heads``.
        heads: Attention heads of each.
        dropout: Probability in [0, 1).
        causal: No query attends to a later utterance.
    """

    def __init__(
        self, count: int, hidden: int, heads: int, dropout: float, causal: bool = False
    ) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.query, self.key, self.value, self.out, self.widen, self.narrow = (
            Linears(count, hidden, hidden) for _ in range(6)
        )
        self.scale = nn.Parameter(torch.ones(count, 1, 1, hidden))
        self.shift = nn.Parameter(torch.zeros(count, 1, 1, hidden))
        self.dropout = Dropout(dropout)

    def forward(self, queries: Tensor, keys: Tensor, present: Tensor, packing: Packing) -> Tensor:
        """``(P, N, d)`` of two such, and of the ``(P, N)`` keys that are there."""
        mixed = attend_in_dialogues(
            self.query(queries), self.key(keys), self.value(keys),
            self.heads, present, packing, self.dropout, self.causal,
        )  # fmt: skip
        attended = queries + self.dropout(self.out(mixed))
        normed = F.layer_norm(attended, attended.shape[-1:], eps=1e-6)
        normed = torch.addcmul(self.shift[:, 0], normed, self.scale[:, 0])
        inner = self.dropout(F.gelu(self.widen(normed), approximate="tanh"))
        output: Tensor = attended + self.dropout(self.narrow(inner))
        return output
