"""Who speaks when, and what they feel: the labels of the synthetic corpus.

The figures are aggregate facts of six-way IEMOCAP; no utterance of it is in here.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmer.seeds import generator

CLASSES = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
SESSIONS = ("Ses01", "Ses02", "Ses03", "Ses04", "Ses05")
GENDERS = ("F", "M")
DIALOGUES = (28, 30, 32, 30, 31)
"""Dialogues a session; the last one is the test part."""

COUNTS = np.array(
    [
        *([75, 78, 171, 147, 63, 107], [68, 116, 213, 82, 80, 173]),
        *([78, 113, 135, 67, 96, 165], [47, 84, 227, 70, 114, 160]),
        *([91, 172, 130, 92, 48, 199], [80, 133, 190, 148, 103, 183]),
        *([31, 62, 76, 205, 154, 188], [34, 81, 182, 122, 84, 293]),
        *([77, 132, 221, 78, 82, 161], [67, 113, 163, 92, 217, 220]),
    ],
    dtype=np.float64,
)
"""``(10, 6)`` labels per speaker, in the order Ses01F, Ses01M, Ses02F, ..."""

INERTIA = np.array(
    [
        [0.688, 0.049, 0.080, 0.002, 0.167, 0.014],
        [0.041, 0.810, 0.050, 0.015, 0.007, 0.077],
        [0.035, 0.030, 0.696, 0.037, 0.043, 0.159],
        [0.001, 0.026, 0.048, 0.702, 0.003, 0.221],
        [0.113, 0.010, 0.072, 0.001, 0.776, 0.028],
        [0.003, 0.046, 0.122, 0.150, 0.012, 0.667],
    ]
)
"""P(label | the same speaker's last label)."""

CONTAGION = np.array(
    [
        [0.532, 0.026, 0.170, 0.005, 0.252, 0.014],
        [0.034, 0.646, 0.172, 0.034, 0.017, 0.095],
        [0.063, 0.103, 0.286, 0.160, 0.084, 0.303],
        [0.001, 0.018, 0.210, 0.428, 0.006, 0.337],
        [0.186, 0.020, 0.178, 0.016, 0.561, 0.039],
        [0.003, 0.051, 0.268, 0.187, 0.016, 0.475],
    ]
)
"""P(label | the previous utterance's label), where the speaker has changed."""

SWITCH = 0.68
"""How often the next utterance is somebody else's."""

LENGTH_SHARES = np.array([0.0, 0.10, 0.25, 0.50, 0.75, 0.90, 1.0])
LENGTHS = np.array([8.0, 28.0, 37.5, 47.0, 59.0, 69.0, 110.0])

# A speaker's last label, the partner's and the mood are not independent, so the plain product
# makes all ties too strong; these exponents bring the measured tables back, in order for a speaker
# after somebody else, for the partner, and for a speaker who goes on.
INERTIA_POWER, CONTAGION_POWER, ALONE_POWER = 0.65, 0.5, 0.75
PASSES = 16

MOOD = 0.8
"""How much a dialogue leans towards some emotions throughout, in log-odds."""


@dataclass(frozen=True)
class Script:
    """Dialogues without features, padded to the longest, ``T`` utterances.

    Args:
        sessions: ``(dialogues,)`` index into :data:`SESSIONS`.
        lengths: ``(dialogues,)`` utterances.
        speakers: ``(dialogues, T)`` row of :data:`COUNTS`.
        labels: ``(dialogues, T)`` index into :data:`CLASSES`.
    """

    sessions: NDArray[np.int64]
    lengths: NDArray[np.int64]
    speakers: NDArray[np.int64]
    labels: NDArray[np.int64]


def script(seed: int, dialogues: int) -> Script:
    """Draw the utterances and labels of a corpus.

    The label of an utterance follows ``mood * I[own last]^a K[previous]^b`` over the marginal,
    tilted for every speaker until the speaker's class counts come close to the published ones. The
    mood
    belongs to the dialogue: in real conversations, too, part of the inertia is what they are about.

    Args:
        seed: The draw is a pure function of it and of ``dialogues``.
        dialogues: At least 5, one a session. 151 gives exactly 5810 and 1623 utterances.

    >>> drawn = script(0, 151)
    >>> int(drawn.lengths[drawn.sessions < 4].sum()), int(drawn.lengths[drawn.sessions == 4].sum())
    (5810, 1623)
    """
    random = generator(seed, "synthetic", "script")
    per_session = apportion(dialogues, np.array(DIALOGUES), least=1)
    sessions = np.repeat(np.arange(len(SESSIONS)), per_session)
    lengths = _lengths(per_session, random)
    sides = _sides(sessions, int(lengths.max()), random)
    speakers = 2 * sessions[:, None] + sides
    mood = MOOD * random.standard_normal((dialogues, len(CLASSES)))
    labels = _labels(speakers, sides, lengths, mood, random)
    return Script(sessions, lengths, speakers, labels)


def apportion(total: int, sizes: NDArray[np.int64], least: int) -> NDArray[np.int64]:
    """Divide ``total`` in proportion to ``sizes``, in whole numbers of at least ``least``.

    >>> apportion(10, np.array([28, 30, 32, 30, 31]), least=1).tolist()
    [2, 2, 2, 2, 2]
    """
    exact = total * sizes / sizes.sum()
    parts: NDArray[np.int64] = np.maximum(np.floor(exact).astype(np.int64), least)
    while parts.sum() != total:
        step = 1 if parts.sum() < total else -1
        gap = step * (exact - parts)
        gap[(step < 0) & (parts <= least)] = -np.inf
        parts[int(np.argmax(gap))] += step
    return parts


def _lengths(per_session: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
    """Lengths from the published quantiles, with the published number of utterances a session."""
    turns = COUNTS.sum(axis=1).reshape(-1, 2).sum(axis=1)
    everything = []
    for dialogues, whole, turns_whole in zip(per_session, DIALOGUES, turns, strict=True):
        # One draw from every equal slice keeps the quantiles even when there are few dialogues.
        places = (random.permutation(int(dialogues)) + random.random(int(dialogues))) / dialogues
        lengths = np.interp(places, LENGTH_SHARES, LENGTHS)
        wanted = round(turns_whole * int(dialogues) / whole)
        for _ in range(8):
            lengths = np.clip(lengths * wanted / lengths.sum(), LENGTHS[0], LENGTHS[-1])
        rounded = np.clip(np.round(lengths), LENGTHS[0], LENGTHS[-1]).astype(np.int64)
        while (gap := wanted - int(rounded.sum())) != 0:
            inside = (rounded > LENGTHS[0]) & (rounded < LENGTHS[-1])
            candidates = np.flatnonzero(inside) if inside.any() else np.arange(len(rounded))
            rounded[random.choice(candidates)] += np.sign(gap)
        everything.append(rounded)
    return np.concatenate(everything)


def _sides(
    sessions: NDArray[np.int64], turns: int, random: np.random.Generator
) -> NDArray[np.int64]:
    """``(dialogues, utterances)``: which of the session's two people speaks."""
    fraction = (
        COUNTS.sum(axis=1).reshape(-1, 2) / COUNTS.sum(axis=1).reshape(-1, 2).sum(1)[:, None]
    )[sessions]
    rows = np.arange(len(sessions))
    sides = np.empty((len(sessions), turns), dtype=np.int64)
    sides[:, 0] = random.random(len(sessions)) > fraction[:, 0]
    for turn in range(1, turns):
        # Leaving at a rate inverse to one's fraction keeps these stationary, and SWITCH the mean.
        leave = SWITCH / 2 / fraction[rows, sides[:, turn - 1]]
        switched = random.random(len(sessions)) < leave
        sides[:, turn] = np.where(switched, 1 - sides[:, turn - 1], sides[:, turn - 1])
    return sides


def _labels(
    speakers: NDArray[np.int64],
    sides: NDArray[np.int64],
    lengths: NDArray[np.int64],
    mood: NDArray[np.float64],
    random: np.random.Generator,
) -> NDArray[np.int64]:
    spoken = np.arange(speakers.shape[1]) < lengths[:, None]
    chance = random.random(speakers.shape)
    turns = np.bincount(speakers[spoken], minlength=len(COUNTS))
    wanted = COUNTS / COUNTS.sum(axis=1, keepdims=True) * turns[:, None]
    tilt = np.zeros_like(COUNTS)
    best, least = np.zeros_like(speakers), np.inf
    for _ in range(PASSES):
        labels = _walk(speakers, sides, chance, mood, tilt)
        counts = np.zeros_like(COUNTS)
        np.add.at(counts, (speakers[spoken], labels[spoken]), 1)
        off = float(np.abs(counts.sum(0) - wanted.sum(0)).sum() + np.abs(counts - wanted).sum() / 4)
        if off < least:
            best, least = labels, off
        tilt += 0.35 * np.log((wanted + 3) / (counts + 3))
    return best


def _walk(
    speakers: NDArray[np.int64],
    sides: NDArray[np.int64],
    chance: NDArray[np.float64],
    mood: NDArray[np.float64],
    tilt: NDArray[np.float64],
) -> NDArray[np.int64]:
    """One pass over all dialogues at once, an utterance at a time."""
    marginal = np.log(COUNTS.sum(axis=0) / COUNTS.sum())
    nothing = np.zeros((1, len(CLASSES)))
    # The last row, reached by index -1, stands for "has not spoken yet".
    inertia = np.concatenate([np.log(INERTIA) - marginal, nothing])
    other = np.concatenate([np.log(CONTAGION) - marginal, nothing])
    rows = np.arange(len(speakers))
    last = np.full((len(speakers), 2), -1)
    labels = np.empty_like(speakers)
    for turn in range(speakers.shape[1]):
        side = sides[:, turn]
        changed = sides[:, turn - 1] != side if turn else np.zeros(len(rows), dtype=np.bool_)
        before = np.where(changed, labels[:, turn - 1], -1)
        power = np.where(changed, INERTIA_POWER, ALONE_POWER)[:, None]
        score = marginal + mood + tilt[speakers[:, turn]]
        score = score + power * inertia[last[rows, side]] + CONTAGION_POWER * other[before]
        total = np.exp(score).cumsum(axis=1)
        labels[:, turn] = (chance[:, turn, None] * total[:, -1:] > total).sum(axis=1)
        last[rows, side] = labels[:, turn]
    return labels
