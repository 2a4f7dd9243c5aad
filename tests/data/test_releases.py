"""Folders of IEMOCAP's and MELD's releases, in look-alikes made after their descriptions."""

from pathlib import Path

import numpy as np
import pytest

from fedmer.__main__ import main
from fedmer.data.formats import read_corpus
from fedmer.errors import InputError
from fedmer.extraction.sources import read_source
from tests.recordings import record, tone

LINES = (
    ("F000", 0.2, 0.9, "ang", "Excuse me."),
    ("M000", 0.8, 1.7, "neu", "Do you have your forms?"),
    ("F001", 1.8, 2.6, "xxx", "Yeah."),
)
"""Utterance, start, end, emotion and words of every dialogue."""


def iemocap(folder: Path, sound: bool = False) -> Path:
    """Two sessions of a dialogue each; annotations out of order, as they can be."""
    for session, name in ((1, "Ses01F_impro01"), (5, "Ses05M_script01_1")):
        dialog = folder / f"Session{session}" / "dialog"
        for part in ("EmoEvaluation", "transcriptions", "wav"):
            (dialog / part).mkdir(parents=True)
        evaluation = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for turn, start, end, emotion, _ in reversed(LINES):
            evaluation += [
                f"[{start:.4f} - {end:.4f}]\t{name}_{turn}\t{emotion}\t[2.5000, 2.5000, 2.5000]",
                "C-E2:\tNeutral;\t()",
                "A-E3:\tval 3; act 2; dom  2;\t()",
                "",
            ]
        (dialog / "EmoEvaluation" / f"{name}.txt").write_text("\n".join(evaluation))
        words = [f"{name}_{t} [{s:08.4f}-{e:08.4f}]: {w}" for t, s, e, _, w in LINES]
        words.append(f"{name}_MXX0 [003.0000-003.5000]: (LAUGHTER)")
        (dialog / "transcriptions" / f"{name}.txt").write_text("\n".join(words))
        if sound:
            record(dialog / "wav" / f"{name}.wav", tone(3, 16_000), 16_000)
    return folder


def meld(folder: Path, films: bool = False) -> Path:
    """A table a part, and films in folders that are called as in the release."""
    header = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season,Episode,"
    folder.mkdir(exist_ok=True)
    places = ("train/train_splits", "dev/dev_splits_complete", "test/output_repeated_splits_test")
    for part, place in zip(("train", "dev", "test"), places, strict=True):
        rows = [header + "StartTime,EndTime"]
        rows.append('1,"Oh, really?",Ross,surprise,positive,0,0,8,21,"00:16:16,059","00:16:21,731"')
        rows.append('2,Yes.,Rachel,joy,positive,0,1,8,21,"00:16:21,940","00:16:23,442"')
        (folder / f"{part}_sent_emo.csv").write_text("\n".join(rows) + "\n")
        if films:
            (folder / place).mkdir(parents=True)
            for turn in range(2):
                frames = [np.zeros((64, 64, 3), dtype=np.uint8)] * 6
                path = folder / place / f"dia0_utt{turn}.mp4"
                record(path, tone(0.6, 16_000, 120 + 40 * turn), 16_000, frames)
    return folder


def test_iemocap_is_read_by_dialogue_time_and_gender(tmp_path: Path) -> None:
    table = read_source(iemocap(tmp_path))
    assert table.label_names == ["happy", "sad", "neutral", "angry", "excited", "frustrated"]
    assert [(u.dialogue, u.turn, u.speaker, u.label, u.split) for u in table.utterances] == [
        ("Ses01F_impro01", 0, "Ses01F", "angry", "train"),
        ("Ses01F_impro01", 1, "Ses01M", "neutral", "train"),
        ("Ses01F_impro01", 2, "Ses01F", "", "train"),
        ("Ses05M_script01_1", 0, "Ses05F", "angry", "test"),
        ("Ses05M_script01_1", 1, "Ses05M", "neutral", "test"),
        ("Ses05M_script01_1", 2, "Ses05F", "", "test"),
    ]
    second = table.utterances[1]
    assert (second.text, second.start, second.end) == ("Do you have your forms?", 0.8, 1.7)
    assert second.audio == tmp_path / "Session1" / "dialog" / "wav" / "Ses01F_impro01.wav"
    assert second.session == "Ses01"


def test_meld_is_read_by_part(tmp_path: Path) -> None:
    table = read_source(meld(tmp_path / "MELD"))
    assert "video" not in table.fields
    first = table.utterances[0]
    assert (first.dialogue, first.turn, first.speaker) == ("train0", 0, "Ross")
    assert (first.label, first.text, first.start) == ("surprise", "Oh, really?", None)
    assert [u.split for u in table.utterances] == ["train", "train", "val", "val", "test", "test"]


@pytest.mark.parametrize("release", [iemocap, meld])
def test_a_release_becomes_a_corpus(tmp_path: Path, release: object) -> None:
    for module in ("av", "opensmile", "wordllama"):
        pytest.importorskip(module, reason="needs pip install 'fedmer[extract]'")
    made = release(tmp_path / "release", True)  # type: ignore[operator]
    words = ["--text", "Words", "--audio", "OpenSmile", "--audio.features", "eGeMAPSv02"]
    assert main(["extract", str(made), f"{tmp_path}/x.npz", *words]) == 0
    corpus = read_corpus(tmp_path / "x.npz")
    assert corpus.shape.features == {"text": 256, "audio": 88}
    assert all(c.present["audio"].all() and c.present["text"].all() for c in corpus.conversations)
    assert corpus.part("train")
    assert corpus.part("test")


def test_what_is_wrong_with_a_release_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, but of no release: expected IEMOCAP with"):
        read_source(tmp_path)
    broken = iemocap(tmp_path / "a")
    (broken / "Session1/dialog/transcriptions/Ses01F_impro01.txt").write_text("")
    with pytest.raises(InputError, match="utterance Ses01F_impro01_F000 has no words"):
        read_source(broken)
    with pytest.raises(InputError, match="no table, so --columns means nothing"):
        read_source(broken, {"speaker": "Who"})
    other = meld(tmp_path / "b")
    table = (other / "dev_sent_emo.csv").read_text()
    (other / "dev_sent_emo.csv").write_text(table.replace("joy", "bliss"))
    with pytest.raises(InputError, match="row 3, column 'Emotion' is 'bliss'; expected one of neu"):
        read_source(other)
    (other / "dev_sent_emo.csv").write_text(table.replace("Emotion", "Feeling"))
    with pytest.raises(InputError, match="lacks the column 'Emotion'"):
        read_source(other)
