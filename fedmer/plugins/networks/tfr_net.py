"""TFRNet, the Transformer-based Feature Reconstruction Network."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.data.missing import kept
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, Transformer
from fedmer.plugins.networks._modalities import Place, Projections, check, check_rate, there


class TFRNet(Network):
    r"""TFR-Net: attention within and across modalities that learns to reconstruct what is hidden.

    Z. Yuan et al., "Transformer-based Feature Reconstruction Network for Robust Multimodal
    Sentiment Analysis", ACM MM 2021. With position encoding :math:`p` and speaker embedding
    :math:`s`:

    .. math::

        x_m &= \mathrm{drop}(W_m f_m + p + s), \qquad
        x_{n \to m} = \mathrm{Transformer}_{n \to m}(\text{queries } x_m, \text{ keys } x_n) \\
        h_m &= E_m [x_{m \to m}; x_{n \to m}; \dots], \qquad \hat f_m = R_m h_m \\
        u &= [h_1 \odot \tanh(G_1 h_1); \dots; h_M \odot \tanh(G_M h_M)] \\
        h &= u + W_2\,\mathrm{drop}(\mathrm{relu}(W_1 u)), \qquad z = V h + c

    In training each modality of an utterance is hidden with the probability ``missing_rate``, where
    the utterance has another one left, and every utterance adds to the loss, over its hidden
    modalities :math:`H`,

    .. math:: \lambda \sum_{m \in H} \frac{1}{D_m}
        \sum_d \mathrm{SmoothL1}(\hat f_{m,d}, f_{m,d})

    Nobody attends to an utterance that lacks the modality asked, hidden ones included. Where
    features are missing for good there is nothing to compare with, and nothing is added.

    Deviations: the authors hide single words, frames and samples of one utterance, at a rate that
    is fixed for a run in training and test; here a sequence is the dialogue, and a step of it has
    or lacks a modality. A gate has a convolution over the sequence, and the sequence's maximum
    predicts; here each utterance is gated and predicts by itself. Their factor is one for each
    modality.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of a modality, a multiple of the number of heads.
        heads: Attention heads.
        dropout: Probability in [0, 1).
        layers: Layers of every Transformer.
        missing_rate: Probability in [0, 1) that a modality of an utterance is hidden in training.
        reconstruction: The factor lambda of the reconstruction, 0 or more.
        causal: Read no later utterance.

    Raises:
        InputError: A hyperparameter is out of range.

    >>> from fedmer.data.batch import batch_of
    >>> from fedmer.data.synthetic import synthetic_corpus
    >>> corpus = synthetic_corpus(dialogues=5, features={"text": 6, "audio": 4})
    >>> batch = batch_of(corpus, [0, 1])
    >>> output = TFRNet(corpus.shape, hidden=8)(batch)
    >>> output.auxiliary.shape == batch.labels.shape
    True
    """

    def __init__(
        self,
        shape: CorpusShape,
        hidden: int = 64,
        heads: int = 4,
        dropout: float = 0.3,
        layers: int = 1,
        missing_rate: float = 0.2,
        reconstruction: float = 1.0,
        causal: bool = False,
    ) -> None:
        super().__init__(shape)
        check(hidden, dropout, heads, layers=layers)
        check_rate(missing_rate)
        if not 0 <= reconstruction < math.inf:
            raise InputError(f"reconstruction is {reconstruction}; expected 0 or more.")
        self.missing_rate, self.reconstruction = missing_rate, reconstruction
        names = list(shape.features)
        self.project = Projections(shape, hidden)
        self.place = Place(shape, hidden)
        self.attention = nn.ModuleDict(
            {
                f"{source}_to_{target}": Transformer(layers, hidden, heads, dropout, causal)
                for target in names
                for source in names
            }
        )
        self.enhance = nn.ModuleDict(
            {name: nn.Linear(len(names) * hidden, hidden) for name in names}
        )
        self.reconstruct = nn.ModuleDict(
            {name: nn.Linear(hidden, width) for name, width in shape.features.items()}
        )
        self.gates = nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in names})
        width = len(names) * hidden
        self.residual = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), Dropout(dropout), nn.Linear(width, width)
        )
        self.head = nn.Linear(width, shape.classes)
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> NetworkOutput:
        present = there(batch)
        left = kept(present, self.missing_rate) if self.training else present
        place = self.place(batch)
        streams = {
            name: self.dropout(rows.masked_fill(~left[name][..., None], 0) + place)
            for name, rows in self.project(batch).items()
        }
        hidden = {name: self._enhance(name, streams, left) for name in streams}
        gated = [rows * torch.tanh(self.gates[name](rows)) for name, rows in hidden.items()]
        together = torch.cat(gated, dim=-1)
        fused = together + self.residual(together)
        return NetworkOutput(
            logits=self.head(fused),
            embeddings={**hidden, "fused": fused},
            auxiliary=self._missed(batch, hidden, present, left) if self.training else None,
        )

    def _enhance(self, target: str, streams: dict[str, Tensor], left: dict[str, Tensor]) -> Tensor:
        """h of one modality, ``(B, L, d)``."""
        flows = [
            self.attention[f"{source}_to_{target}"](streams[target], left[source], keys=rows)
            for source, rows in streams.items()
        ]
        found: Tensor = self.enhance[target](torch.cat(flows, dim=-1))
        return found

    def _missed(
        self,
        batch: Batch,
        hidden: dict[str, Tensor],
        present: dict[str, Tensor],
        left: dict[str, Tensor],
    ) -> Tensor:
        """How far the reconstructions are from what was hidden, ``(B, L)``."""
        total = torch.zeros_like(batch.context, dtype=torch.float32)
        for name, rows in hidden.items():
            away = ~(present[name] & ~left[name])[..., None]
            wanted = batch.features[name].masked_fill(away, 0)
            found = self.reconstruct[name](rows).masked_fill(away, 0)
            total = total + F.smooth_l1_loss(found, wanted, reduction="none").mean(dim=-1)
        return self.reconstruction * total
