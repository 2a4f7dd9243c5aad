"""What networks share: checked hyperparameters, projected modalities, speaker and place."""

import torch
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._layers import Dropout, sinusoid


def check(hidden: int, dropout: float, heads: int = 1, **counts: int) -> None:
    """Refuse widths, probabilities and numbers of layers that no network can have.

    Args:
        hidden: Width of the layers, a positive multiple of ``heads``.
        dropout: Probability in [0, 1).
        heads: Attention heads; leave it out where there is no attention.
        counts: Other hyperparameters that are whole numbers, 1 or more, by their names.

    Raises:
        InputError: A value is out of range.

    >>> check(hidden=64, dropout=0.3, heads=4, layers=0)
    Traceback (most recent call last):
    fedmer.errors.InputError: layers is 0; expected a whole number, 1 or more.
    """
    if hidden < 1 or heads < 1 or hidden % heads:
        with_heads = f" and heads is {heads}" if heads != 1 else ""
        what = "a positive multiple of heads" if with_heads else "1 or more"
        raise InputError(f"hidden is {hidden}{with_heads}; expected hidden to be {what}.")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout is {dropout}; expected a number in [0, 1).")
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} is {count}; expected a whole number, 1 or more.")


def main_modality(shape: CorpusShape) -> str:
    """The modality that the others support: ``text`` if there is one, else the first.

    >>> main_modality(CorpusShape({"audio": 2, "text": 3}, classes=4, speakers=2))
    'text'
    >>> main_modality(CorpusShape({"audio": 2, "visual": 3}, classes=4, speakers=2))
    'audio'
    """
    return "text" if "text" in shape.features else next(iter(shape.features))


def there(batch: Batch) -> dict[str, Tensor]:
    """Modality name -> ``(B, L)`` bool: the utterances that may be read and have this modality."""
    return {name: present & batch.context for name, present in batch.present.items()}


class Projections(nn.Module):
    """A linear layer for each modality, zero where an utterance lacks it.

    The features of a missing modality are overwritten before the layer and its output after it, so
    whatever a file holds there, NaN included, reaches neither an output nor a gradient.

    Args:
        shape: The sizes of the corpus.
        hidden: Width of every output.
        bias: Whether the layers have a bias. It too is zero where an utterance lacks the modality.
    """

    def __init__(self, shape: CorpusShape, hidden: int, bias: bool = True) -> None:
        super().__init__()
        self.layers = nn.ModuleDict(
            {name: nn.Linear(width, hidden, bias=bias) for name, width in shape.features.items()}
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Modality name -> ``(B, L, hidden)``, in the order of the corpus."""
        missing = {name: ~present[..., None] for name, present in there(batch).items()}
        return {
            name: layer(batch.features[name].masked_fill(missing[name], 0)).masked_fill(
                missing[name], 0
            )
            for name, layer in self.layers.items()
        }


class Place(nn.Module):
    """Where in the dialogue an utterance stands, and who speaks: sinusoid plus speaker embedding.

    Args:
        shape: The sizes of the corpus. Roles beyond its ``speakers`` share the last embedding.
        hidden: Width of the sum.
    """

    def __init__(self, shape: CorpusShape, hidden: int) -> None:
        super().__init__()
        self.speaker = nn.Embedding(shape.speakers + 1, hidden, padding_idx=shape.speakers)

    def forward(self, batch: Batch) -> Tensor:
        """``(B, L, hidden)``."""
        nobody = self.speaker.num_embeddings - 1
        roles = batch.roles.clamp(max=nobody - 1).masked_fill(~batch.context, nobody)
        speaker: Tensor = self.speaker(roles)
        return speaker + sinusoid(batch.positions, speaker.shape[-1]).to(speaker.dtype)


def mean_over(rows: dict[str, Tensor], present: dict[str, Tensor]) -> Tensor:
    """The mean of the modalities that an utterance has, or of all of them if it has none.

    Args:
        rows: Modality name -> ``(B, L, D)``.
        present: Modality name -> ``(B, L)`` bool.

    Returns:
        ``(B, L, D)``.
    """
    counted = torch.stack([present[name] for name in rows])
    counted = (counted | ~counted.any(dim=0))[..., None]
    stacked = torch.stack(list(rows.values()))
    return stacked.masked_fill(~counted, 0).sum(dim=0) / counted.sum(dim=0)


class Subnetworks(nn.Module):
    r"""A small network for each modality that reads one utterance, zero where an utterance lacks
    it.

    .. math:: h_m = \mathrm{drop}(\mathrm{relu}(B_m\,\mathrm{drop}(\mathrm{relu}(A_m f_m))))

    Args:
        shape: The sizes of the corpus.
        width: Width of both layers.
        dropout: Probability in [0, 1).
    """

    def __init__(self, shape: CorpusShape, width: int, dropout: float) -> None:
        super().__init__()
        self.project = Projections(shape, width)
        self.second = nn.ModuleDict({name: nn.Linear(width, width) for name in shape.features})
        self.dropout = Dropout(dropout)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Modality name -> ``(B, L, width)``, in the order of the corpus."""
        present = there(batch)
        vectors = {}
        for name, rows in self.project(batch).items():
            inner = self.dropout(rows.relu())
            outer = self.dropout(self.second[name](inner).relu())
            vectors[name] = outer.masked_fill(~present[name][..., None], 0)
        return vectors


def check_rate(missing_rate: float) -> None:
    """Refuse what is no probability below 1.

    Raises:
        InputError: ``missing_rate`` is out of range.
    """
    if not 0 <= missing_rate < 1:
        raise InputError(f"missing_rate is {missing_rate}; expected a number in [0, 1).")
