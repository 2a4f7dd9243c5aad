"""Class prototypes by site: what clients send, what the server joins and sends back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmer.losses.prototype import nearest

_MEANS, _COUNTS, _KNOWN = "prototypes.", "counts.", "known."


@dataclass(frozen=True, eq=False)
class Prototypes:
    """A mean embedding of every class at one site of a network.

    Args:
        means: ``(C, D)``; without meaning where a class is not known.
        known: ``(C,)`` bool.
        counts: ``(C,)`` int64, the labelled utterances behind each mean of a client; None for those
            of the server, and of a client that does not say.
    """

    means: Tensor
    known: Tensor
    counts: Tensor | None = None

    def joined_by(self, means: Tensor, held: Tensor) -> "Prototypes":
        """These with new means where a class is held; every other class stays as it is.

        Args:
            means: ``(C, D)``.
            held: ``(C,)`` bool, the classes that some client of the cohort holds.
        """
        return Prototypes(torch.where(held[:, None], means, self.means), self.known | held)

    def predict(self, embeddings: Tensor) -> Tensor:
        """``(B, L, C)`` logits of ``(B, L, D)`` embeddings, by which the nearest prototype wins."""
        return nearest(embeddings, self.means, self.known)


class PrototypeSet(Mapping[str, Prototypes]):
    """The prototypes of one client, or of the server, by site.

    A site is a place in the network at which it has embeddings, such as ``fused`` or a modality.
    In a message every site is two tensors: the means, and the counts of a client or which classes
    are known.

    >>> means, counts = torch.ones(2, 3), torch.tensor([4, 0])
    >>> sent = PrototypeSet({"fused": Prototypes(means, counts > 0, counts)}).pack()
    >>> list(sent)
    ['prototypes.fused', 'counts.fused']
    >>> PrototypeSet.unpack(sent)["fused"].known
    tensor([ True, False])
    """

    def __init__(self, sites: Mapping[str, Prototypes]) -> None:
        self._sites = dict(sites)

    def __getitem__(self, site: str) -> Prototypes:
        return self._sites[site]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def pack(self) -> dict[str, Tensor]:
        """As tensors of a message or of the server's state."""
        tensors = {}
        for site, prototypes in self.items():
            tensors[_MEANS + site] = prototypes.means
            if prototypes.counts is None:
                tensors[_KNOWN + site] = prototypes.known
            else:
                tensors[_COUNTS + site] = prototypes.counts
        return tensors

    def pack_sums(self) -> dict[str, Tensor]:
        """As parts of a weighted mean: name of the means -> ``(C, D + 1)``.

        The last column is 1 where a class is known. So the mean says which classes anybody had
        a weight in, and whose rows the sum was allowed to have.
        """
        return {
            _MEANS + site: torch.cat(
                [one.means.float() * one.known[:, None], one.known[:, None].float()], dim=1
            )
            for site, one in self.items()
        }

    @classmethod
    def unpack_sums(cls, mean: Mapping[str, Tensor]) -> "PrototypeSet":
        """Those of a weighted mean of what :meth:`pack_sums` gives; the rest is left alone.

        >>> known = torch.tensor([True, False])
        >>> mean = PrototypeSet({"fused": Prototypes(torch.ones(2, 3), known)}).pack_sums()
        >>> PrototypeSet.unpack_sums(mean)["fused"].known
        tensor([ True, False])
        """
        return cls(
            {
                name.removeprefix(_MEANS): Prototypes(rows[:, :-1], rows[:, -1] > 0.5)
                for name, rows in mean.items()
                if name.startswith(_MEANS)
            }
        )

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor]) -> "PrototypeSet":
        """The inverse of :meth:`pack`; other tensors beside them are left alone."""
        found = {}
        for name, means in tensors.items():
            if name.startswith(_MEANS):
                site = name.removeprefix(_MEANS)
                counts = tensors.get(_COUNTS + site)
                found[site] = Prototypes(means, held_classes(tensors, site), counts)
        return cls(found)


def held_classes(tensors: Mapping[str, Tensor], site: str) -> Tensor:
    """``(C,)`` bool: the classes that there is a mean of at a site, of a message's tensors."""
    counts = tensors.get(_COUNTS + site)
    return tensors[_KNOWN + site] if counts is None else counts > 0


def names_of(sites: Sequence[str]) -> tuple[str, ...]:
    """What the means of some sites are called in a message.

    >>> names_of(["fused"])
    ('prototypes.fused',)
    """
    return tuple(_MEANS + site for site in sites)


def stack_clients(cohort: Sequence[PrototypeSet], site: str) -> tuple[Tensor, Tensor]:
    """``(I, C, D)`` means and ``(I, C)`` bool of ``I`` clients at a site: the classes they hold."""
    return (
        torch.stack([client[site].means for client in cohort]),
        torch.stack([client[site].known for client in cohort]),
    )


def stack_counts(cohort: Sequence[Mapping[str, Tensor]], site: str) -> Tensor:
    """``(I, C)`` counts at a site, of the tensors that ``I`` clients sent."""
    return torch.stack([tensors[_COUNTS + site] for tensors in cohort])
