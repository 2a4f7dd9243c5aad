import numpy as np

words = [
    # dialogue, turn, speaker, label, split
    ("call1", 0, "ann", 0, "train"),
    ("call1", 1, "ben", 1, "train"),
    ("call1", 2, "ann", -1, "train"),  # context only: no label
    ("call2", 0, "ann", 1, "train"),
    ("call2", 1, "ben", 0, "train"),
    ("call3", 0, "eve", 1, "test"),
    ("call3", 1, "joe", 0, "test"),
]
dialogue, turn, speaker, label, split = zip(*words, strict=True)
random = np.random.default_rng(0)
np.savez_compressed(
    "my_corpus.npz",
    dialogue=np.array(dialogue),
    turn=np.array(turn),
    speaker=np.array(speaker),
    label=np.array(label),
    split=np.array(split),
    label_names=np.array(["calm", "upset"]),
    text=random.normal(size=(7, 8)).astype(np.float32),
    audio=random.normal(size=(7, 5)).astype(np.float32),
    present_audio=np.array([True, True, False, True, True, True, True]),
)
