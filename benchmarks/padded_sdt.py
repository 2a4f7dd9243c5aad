"""SDT as one would write it first: an encoder after the other, on padded batches. The yardstick.

The same equations as :class:`fedmer.plugins.networks.sdt.SDT`, from torch's own layers: one
``nn.MultiheadAttention`` a pair of modalities, ``nn.Dropout``, every product over ``B * L`` places.
:func:`load` gives it the weights of an SDT, and a test holds the two equal, gradients included.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.plugins.networks._layers import Linears, sinusoid
from fedmer.plugins.networks.sdt import SDT


class PaddedEncoder(nn.Module):
    """What one modality hears from another."""

    def __init__(self, hidden: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(hidden, heads, dropout, batch_first=True)
        self.norm = nn.LayerNorm(hidden, eps=1e-6)
        self.widen, self.narrow = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, keys: Tensor, missing: Tensor) -> Tensor:
        mixed, _ = self.attention(query, keys, keys, key_padding_mask=missing, need_weights=False)
        attended = query + self.dropout(mixed)
        inner = self.dropout(F.gelu(self.widen(self.norm(attended)), approximate="tanh"))
        output: Tensor = attended + self.dropout(self.narrow(inner))
        return output


class PaddedSDT(Network):
    """SDT on padded batches.

    Args:
        like: The network whose sizes it has; its weights are copied.
    """

    def __init__(self, like: SDT) -> None:
        super().__init__(like.shape)
        hidden, heads, rate = like.fuse.in_features, like.encoders.heads, like.dropout.p
        names = self.modalities = like.modalities
        self.pairs = [(to, of) for to in names for of in [to, *(n for n in names if n != to)]]
        self.project = nn.ModuleDict(
            {n: nn.Linear(width, hidden, bias=False) for n, width in like.shape.features.items()}
        )
        nobody = like.shape.speakers
        self.speaker = nn.Embedding(nobody + 1, hidden, padding_idx=nobody)
        self.encoders = nn.ModuleList(PaddedEncoder(hidden, heads, rate) for _ in self.pairs)
        self.gates = nn.ModuleList(nn.Linear(hidden, hidden, bias=False) for _ in self.pairs)
        self.reduce = nn.ModuleDict({n: nn.Linear(len(names) * hidden, hidden) for n in names})
        self.fuse = nn.Linear(hidden, hidden, bias=False)
        self.students = nn.ModuleDict({n: nn.Linear(hidden, like.shape.classes) for n in names})
        self.teacher = nn.Linear(hidden, like.shape.classes)
        self.dropout = nn.Dropout(rate)
        self.scores = copy.deepcopy(like.scores)
        load(self, like)

    def forward(self, batch: Batch) -> NetworkOutput:
        nobody = self.shape.speakers
        roles = batch.roles.clamp(max=nobody - 1).masked_fill(~batch.context, nobody)
        place = self.speaker(roles) + sinusoid(batch.positions, self.fuse.in_features)
        streams = {n: self.project[n](batch.features[n]) + place for n in self.modalities}
        flows: dict[str, list[Tensor]] = {n: [] for n in self.modalities}
        for (to, of), encoder, gate in zip(self.pairs, self.encoders, self.gates, strict=True):
            query = self.dropout(streams[to])
            keys = query if of == to else self.dropout(streams[of])
            missing = ~batch.present[of]
            silent = missing.all(dim=1, keepdim=True)
            hidden = encoder(query, keys, missing & ~silent)
            flows[to].append(torch.sigmoid(gate(hidden)) * hidden * ~silent[..., None])
        reduced = {n: self.reduce[n](torch.cat(parts, dim=-1)) for n, parts in flows.items()}
        weighed = reduced
        if self.scores is not None:
            weights = self.scores(reduced, batch.present)
            weighed = {n: weights[n] * rows for n, rows in reduced.items()}
        rows = torch.stack(list(weighed.values()))
        missing = ~torch.stack([batch.present[n] for n in self.modalities])[..., None]
        gates = self.fuse(rows).masked_fill(missing, torch.finfo(rows.dtype).min).softmax(dim=0)
        fused = (gates.masked_fill(missing, 0) * rows).sum(dim=0)
        students = {n: self.students[n](self.dropout(F.relu(r))) for n, r in reduced.items()}
        return NetworkOutput(self.teacher(fused), students, {**reduced, "fused": fused})


@torch.no_grad()
def load(padded: PaddedSDT, like: SDT) -> None:
    """Copy the weights of an SDT with learned gates."""
    for part in ("project", "speaker", "fuse", "teacher"):
        getattr(padded, part).load_state_dict(getattr(like, part).state_dict())
    ours = like.encoders
    for i, (encoder, gate) in enumerate(zip(padded.encoders, padded.gates, strict=True)):
        asked = encoder.attention
        parts = (ours.query, ours.key, ours.value)
        asked.in_proj_weight.copy_(torch.cat([part.weight[i] for part in parts]))
        asked.in_proj_bias.copy_(torch.cat([_bias(part, i) for part in parts]))
        for one, many in (
            (asked.out_proj, ours.out), (encoder.widen, ours.widen), (encoder.narrow, ours.narrow)
        ):  # fmt: skip
            one.weight.copy_(many.weight[i])
            one.bias.copy_(_bias(many, i))
        encoder.norm.weight.copy_(ours.scale[i].flatten())
        encoder.norm.bias.copy_(ours.shift[i].flatten())
        assert isinstance(like.gates, Linears)
        gate.weight.copy_(like.gates.weight[i])
    for i, name in enumerate(like.modalities):
        for one, many in ((padded.reduce, like.reduce), (padded.students, like.students)):
            one[name].weight.copy_(many.weight[i])
            one[name].bias.copy_(_bias(many, i))


def _bias(layers: Linears, place: int) -> Tensor:
    assert layers.bias is not None
    return layers.bias[place, 0]
