"""Batches made once, where a client's dialogues fit into one."""

from collections.abc import Hashable, Iterator, Sequence

import torch

from fedmer.data.batch import Batch, Excerpt, collate

CAPACITY = 2**28
"""Bytes of batches that are kept at the most; clients beyond are collated every time."""


class BatchCache:
    """Cuts excerpts into batches on a device, and keeps a batch that holds all of a client's.

    A client's dialogues never change, so a batch of all of them needs to be padded and moved to the
    device once. Where there are several batches they are other ones in every epoch.

    Args:
        device: Where batches go.
        capacity: Bytes to keep.
    """

    def __init__(self, device: torch.device, capacity: int = CAPACITY) -> None:
        self.device, self.capacity = device, capacity
        self._kept: dict[Hashable, Batch] = {}

    def batches(
        self, excerpts: Sequence[Excerpt], order: Sequence[int], size: int, name: Hashable = None
    ) -> Iterator[Batch]:
        """Batches of ``size`` dialogues.

        Args:
            excerpts: At least one.
            order: Indices of all excerpts; ascending where they fit into one batch.
            size: Dialogues a batch.
            name: What identifies these excerpts, or None to keep nothing.
        """
        if name is None or len(order) > size:
            for start in range(0, len(order), size):
                batch = collate([excerpts[i] for i in order[start : start + size]])
                yield batch.to(self.device)
            return
        batch = self._kept.get(name) or collate([excerpts[i] for i in order]).to(self.device)
        if name not in self._kept and batch.nbytes <= self.capacity:
            self._kept[name] = batch
            self.capacity -= batch.nbytes
        yield batch
