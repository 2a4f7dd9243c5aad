"""A split for a table that has none: by dialogue, and by speaker where that is possible."""

from collections.abc import Sequence

from fedmer.seeds import generator

TEST, VAL = 0.2, 0.1
"""Fractions of the dialogues; the rest is for training."""


def split_dialogues(people: Sequence[Sequence[str]], seed: int) -> tuple[list[str], bool]:
    """Give every dialogue to train, val or test.

    Dialogues that share a speaker, directly or over others, stay together if a test part can be
    filled to half of what it should have without tearing any of them; else every dialogue is drawn
    by itself.

    Args:
        people: The speakers of each dialogue.
        seed: The split is a function of it and of the dialogues' order.

    Returns:
        A part for each dialogue, and whether no speaker is in two of them.

    >>> split_dialogues([["ann"], ["ben"], ["ann"], ["cleo"], ["dan"]], 0)[1]
    True
    >>> split_dialogues([["ann", "ben"]] * 5, 0)[1]
    False
    """
    size = len(people)
    test, val = max(1, round(TEST * size)) if size > 1 else 0, round(VAL * size)
    random = generator(seed, "table split")
    groups = _together(people)
    order = [groups[i] for i in random.permutation(len(groups))]
    parts = _fill(order, size, test, val)
    if parts.count("test") < test / 2 or "train" not in parts:
        parts = _fill([[i] for i in random.permutation(size).tolist()], size, test, val)
    homes: dict[str, set[str]] = {}
    for part, present in zip(parts, people, strict=True):
        for person in present:
            homes.setdefault(person, set()).add(part)
    return parts, all(len(home) == 1 for home in homes.values())


def _fill(groups: Sequence[Sequence[int]], size: int, test: int, val: int) -> list[str]:
    """Whole groups into test, then val, as long as they fit; the rest into train."""
    parts = ["train"] * size
    left = {"test": test, "val": val}
    for group in groups:
        for part, free in left.items():
            if len(group) <= free:
                left[part] -= len(group)
                for dialogue in group:
                    parts[dialogue] = part
                break
    return parts


def _together(people: Sequence[Sequence[str]]) -> list[list[int]]:
    """Dialogues that share speakers, directly or over others."""
    above: dict[str, str] = {}

    def root(person: str) -> str:
        while above.setdefault(person, person) != person:
            above[person] = above[above[person]]
            person = above[person]
        return person

    for present in people:
        for person in present:
            above[root(person)] = root(present[0])
    groups: dict[str, list[int]] = {}
    for dialogue, present in enumerate(people):
        groups.setdefault(root(present[0]), []).append(dialogue)
    return list(groups.values())
