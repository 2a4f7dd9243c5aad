"""The embedded corpus: made up, but as difficult as IEMOCAP and in the same way."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.emotion_process import CLASSES, COUNTS, GENDERS, SESSIONS, Script, script
from fedmer.data.formats.native import ordered
from fedmer.errors import InputError
from fedmer.seeds import generator

PRESETS: Mapping[str, Mapping[str, int]] = {
    "small": {"text": 96, "audio": 64, "visual": 48},
    "iemocap": {"text": 1024, "audio": 1582, "visual": 342},
}
"""Feature dimensions: small ones for a quick run, and those of the published pickles."""

DIALOGUES = 151
LATENT = 12
"""Dimensions in which anything happens, whatever the dimension of the features."""

# Where the six emotions lie: valence, arousal. Happy and excited, and angry and frustrated, are
# neighbours; each modality sees one axis better than the other, so that they complement each other.
AFFECT = np.array(
    [[1.0, 0.1], [-0.9, -1.1], [0.0, -0.5], [-1.0, 1.1], [1.0, 0.9], [-0.8, 0.2]], dtype=np.float64
)
VIEW = {"text": (1.25, 0.45, 0.85), "audio": (0.35, 1.2, 0.55), "visual": (0.85, 0.45, 0.4)}
"""Modality -> weight of valence, of arousal, and of what is peculiar to each emotion."""

SIGNAL = {"text": 0.70, "audio": 0.71, "visual": 0.68}
OTHER = "visual"
"""A modality of another name carries as much as this one."""

MUMBLED = 0.35
"""Sample of utterances whose words say little; their tone of voice then says more."""

TEXT_CLARITY = (1.3, 0.3)
VOICE_CLARITY = (0.65, 1.6)
CUE = 2.0
"""How far apart clear and mumbled utterances are, in a direction that says nothing of the
emotion."""

ACCENT = 0.2
"""Standard deviation of a speaker's offset, in units of the noise."""

AMBIENT = 0.05

# Real features come unscaled: text near unit norm, audio up to about a hundred.
SCALE = {"text": (0.0, 1.0), "audio": (4.0, 10.0)}


def synthetic_corpus(
    seed: int = 0,
    dialogues: int = DIALOGUES,
    features: Mapping[str, int] | None = None,
) -> ConversationCorpus:
    """Make a corpus that behaves like six-way IEMOCAP.

    Ten speakers in five sessions; sessions 1 to 4 are ``train``, session 5 is ``test``. Lengths,
    turn taking, class counts, emotion inertia and contagion follow IEMOCAP's aggregate statistics
    (:mod:`fedmer.data.emotion_process`). The features of an utterance are::

        x = clarity(utterance) * signal(emotion) + offset(speaker) + cue(utterance) + noise

    in a space of :data:`LATENT` dimensions that is rotated into the feature space, so the
    difficulty hardly depends on the feature dimensions. What one utterance alone does not show:
    which modality to trust (a cue tells, not linearly), the speaker's offset (the dialogue tells)
    and the emotions around it, to which each dialogue's mood and the ties between utterances bind
    it.

    Args:
        seed: The corpus is a pure function of the arguments.
        dialogues: At least 5. With 151 there are 120 + 31 dialogues of 5810 + 1623 utterances.
        features: Modality name -> dimension; ``PRESETS["small"]`` by default. Dropping a modality
            or changing one's dimension leaves labels and the other modalities as they were.

    Raises:
        InputError: Too few dialogues, no modality, or a dimension below 1.

    >>> corpus = synthetic_corpus(dialogues=10, features={"text": 8})
    >>> corpus.conversations[0].id, corpus.conversations[0].features["text"].shape[1]
    ('Ses01_0000', 8)
    """
    features = PRESETS["small"] if features is None else features
    if dialogues < len(SESSIONS):
        raise InputError(
            f"a synthetic corpus of {dialogues} dialogues is too small; it has five sessions, so "
            "ask for at least 5."
        )
    if not features or min(features.values()) < 1:
        raise InputError("a synthetic corpus needs at least one modality of dimension 1 or more.")
    drawn = script(seed, dialogues)
    spoken = np.arange(drawn.labels.shape[1]) < drawn.lengths[:, None]
    labels, speakers = drawn.labels[spoken], drawn.speakers[spoken]
    mumbled = generator(seed, "synthetic", "mumbled").random(len(labels)) < MUMBLED
    rows = {
        name: _modality(seed, name, features[name], labels, speakers, mumbled)
        for name in ordered(features)
    }
    return ConversationCorpus("synthetic", _conversations(drawn, rows), CLASSES)


def _conversations(drawn: Script, rows: Mapping[str, NDArray[np.float32]]) -> list[Conversation]:
    names = np.array([session + gender for session in SESSIONS for gender in GENDERS])
    ends = drawn.lengths.cumsum()
    conversations = []
    counter = dict.fromkeys(SESSIONS, 0)
    for index, (length, end) in enumerate(zip(drawn.lengths, ends, strict=True)):
        session = SESSIONS[drawn.sessions[index]]
        turns = slice(end - length, end)
        conversations.append(
            Conversation(
                id=f"{session}_{counter[session]:04d}",
                features={name: matrix[turns] for name, matrix in rows.items()},
                present={name: np.ones(length, dtype=np.bool_) for name in rows},
                speakers=names[drawn.speakers[index, :length]],
                labels=drawn.labels[index, :length],
                split="test" if session == SESSIONS[-1] else "train",
                session=session,
            )
        )
        counter[session] += 1
    return conversations


def _modality(
    seed: int,
    name: str,
    dimension: int,
    labels: NDArray[np.int64],
    speakers: NDArray[np.int64],
    mumbled: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """``(utterances, dimension)`` features of one modality."""
    random = generator(seed, "synthetic", "modality", name)
    valence, arousal, classes = VIEW.get(name, VIEW[OTHER])
    signal = np.zeros((len(CLASSES), LATENT))
    signal[:, :2] = AFFECT * (valence, arousal)
    signal[:, 2:8] = classes * np.eye(len(CLASSES))
    signal *= SIGNAL.get(name, SIGNAL[OTHER])
    clarity = np.ones(len(labels))
    if name == "text":
        clarity = np.where(mumbled, TEXT_CLARITY[1], TEXT_CLARITY[0])
    elif name == "audio":
        clarity = np.where(mumbled, VOICE_CLARITY[1], VOICE_CLARITY[0])
    offsets = ACCENT * random.standard_normal((len(COUNTS), LATENT))
    latent = random.standard_normal((len(labels), LATENT))
    latent += clarity[:, None] * signal[labels] + offsets[speakers]
    if name == "text":
        latent[:, 8] += CUE * mumbled
    # A rotation of at most LATENT dimensions into the feature space, elements of unit variance.
    turn, _ = np.linalg.qr(random.standard_normal((max(dimension, LATENT), LATENT)))
    rotation = turn[:dimension].T * np.sqrt(max(dimension, LATENT) / LATENT)
    values: NDArray[np.float32] = latent.astype(np.float32) @ rotation.astype(np.float32)
    values += AMBIENT * random.standard_normal(values.shape, dtype=np.float32)
    shift, spread = SCALE.get(name, (0.5, 0.5))
    if name == "text":
        values /= np.float32(np.sqrt(dimension))
        return values
    values *= (spread * np.exp(0.4 * random.standard_normal(dimension))).astype(np.float32)
    values += (shift * random.standard_normal(dimension)).astype(np.float32)
    return values
