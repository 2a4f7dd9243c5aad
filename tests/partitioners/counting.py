"""What a training set holds, counted plainly."""

from collections import Counter

import numpy as np

from fedmer.data.corpus import UNLABELLED, ConversationCorpus


def training_labels(corpus: ConversationCorpus) -> Counter[int]:
    """Emotion -> labelled training utterances."""
    labels = np.concatenate([corpus.conversations[d].labels for d in corpus.part("train")])
    return Counter(labels[labels != UNLABELLED].tolist())


def n_way_fits(counts: Counter[int], clients: int, ways: int, spread: int) -> bool:
    """Can every client have few enough emotions and every emotion a client? By brute greed.

    Giving each client in turn the emotions with most utterances left is the classic way to build a
    bipartite graph of given degrees, and succeeds whenever anything does.
    """
    low, high = max(2, ways - spread), min(len(counts), ways + spread)
    if low > len(counts) or high * clients < len(counts):
        return False
    left = Counter(counts)
    for _ in range(clients):
        chosen = [label for label, count in left.most_common(low) if count > 0]
        if len(chosen) < low:
            return False
        left.subtract(chosen)
    return True
