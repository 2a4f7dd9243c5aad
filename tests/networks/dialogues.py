"""Random batches of dialogues in which given people speak."""

import torch

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape


def batch_of_dialogues(shape: CorpusShape, dialogues: list[list[int]], seed: int) -> Batch:
    """Dialogues with the given roles; a quarter of the rows of each modality is missing."""
    random = torch.Generator().manual_seed(seed)
    longest = max(map(len, dialogues))
    context = torch.arange(longest) < torch.tensor([[len(dialogue)] for dialogue in dialogues])
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
        roles=torch.tensor([dialogue + [0] * (longest - len(dialogue)) for dialogue in dialogues]),
        positions=torch.arange(longest).expand_as(context) * context,
    )
