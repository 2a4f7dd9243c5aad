"""Random batches of dialogues in which given people speak."""

import torch

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape


def batch_of_talks(shape: CorpusShape, talks: list[list[int]], seed: int) -> Batch:
    """Dialogues with the given roles; a quarter of the rows of each modality is missing."""
    random = torch.Generator().manual_seed(seed)
    longest = max(map(len, talks))
    context = torch.arange(longest) < torch.tensor([[len(talk)] for talk in talks])
    present = {
        name: (torch.rand(context.shape, generator=random) > 0.25) & context
        for name in shape.features
    }
    return Batch(
        features={
            name: torch.randn(*context.shape, width, generator=random) * present[name][..., None]
            for name, width in shape.features.items()
        },
        present=present,
        context=context,
        labelled=context.clone(),
        labels=torch.zeros(context.shape, dtype=torch.int64),
        roles=torch.tensor([talk + [0] * (longest - len(talk)) for talk in talks]),
        positions=torch.arange(longest).expand_as(context) * context,
    )
