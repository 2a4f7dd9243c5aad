"""Recordings: cut at exact times from any container and rate; what is wrong with one is said."""

from pathlib import Path

import numpy as np
import pytest

from fedmer.data.formats.tables.utterance import Utterance
from fedmer.data.media import audio, video
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from tests.recordings import record, tone

pytest.importorskip("av", reason="needs pip install 'fedmer[extract]'")

RATES = (8_000, 44_100)


def noise(seconds: float, rate: int) -> np.ndarray:
    """Sound without a period, so that every shift shows."""
    random = np.random.default_rng(0)
    smooth = np.convolve(random.standard_normal(round(seconds * rate)), np.ones(8) / 8, "same")
    return (0.3 * smooth).astype(np.float32)


def lag(found: np.ndarray, expected: np.ndarray) -> int:
    """By how many samples one is behind the other."""
    size = 2 * len(expected)
    spectrum = np.fft.rfft(found, size) * np.conj(np.fft.rfft(expected, size))
    place = int(np.argmax(np.fft.irfft(spectrum, size)))
    return place - size if place > len(expected) else place


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_a_cut_is_exact_to_the_sample(tmp_path: Path, suffix: str, rate: int) -> None:
    sound = noise(4, rate)
    path = record(tmp_path / f"a{suffix}", sound, rate)
    for start, end in ((0.0, None), (0.5, 1.25), (2.1234, 3.3)):
        found = audio.read(path, rate, start, end)
        last = None if end is None else round(end * rate)
        np.testing.assert_allclose(found, sound[round(start * rate) : last], atol=1e-4)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("suffix", [".mp3", ".mp4", ".mkv"])
def test_a_cut_of_compressed_sound_is_not_shifted(tmp_path: Path, suffix: str, rate: int) -> None:
    sound = noise(4, rate)
    path = record(tmp_path / f"a{suffix}", sound, rate)
    for start, end in ((0.5, 1.25), (2.1234, 3.3)):
        found = audio.read(path, rate, start, end)
        expected = sound[round(start * rate) : round(end * rate)]
        assert len(found) == len(expected)
        assert lag(found, expected) == 0


def test_resampling_keeps_time_and_pitch(tmp_path: Path) -> None:
    sound = np.sin(2 * np.pi * 440 * np.arange(44_100) / 44_100).astype(np.float32) / 2
    found = audio.read(record(tmp_path / "a.wav", sound, 44_100), 16_000)
    assert abs(len(found) - 16_000) <= 1
    expected = np.sin(2 * np.pi * 440 * np.arange(len(found)) / 16_000) / 2
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=2e-3)


def test_channels_are_averaged(tmp_path: Path) -> None:
    left, right = tone(1, 8_000, 100), tone(1, 8_000, 170)
    path = record(tmp_path / "a.wav", np.stack([left, right], axis=1), 8_000)
    np.testing.assert_allclose(audio.read(path, 8_000), (left + right) / 2, atol=1e-4)


def test_frames_are_those_at_their_times(tmp_path: Path) -> None:
    pictures = [np.full((64, 64, 3), 10 + 4 * i, dtype=np.uint8) for i in range(50)]
    path = record(tmp_path / "a.mp4", None, frames=pictures)

    def seen(per_second: float, start: float, end: float | None) -> list[int]:
        frames = video.read(path, per_second, start, end)
        return [round((float(frame.mean()) - 10) / 4) for frame in frames]

    assert seen(10, 0, None) == list(range(50))
    assert seen(5, 0, 1) == [0, 2, 4, 6, 8]
    assert seen(10, 2.05, 3.0) == list(range(21, 30))
    assert seen(5, 1.23, 1.27) == [12]
    assert seen(3, 4.95, None) == [49]


def clip(path: Path | None, start: float | None = None, end: float | None = None) -> Clip:
    return Clip(Utterance(2, "a", 0, "ann", audio=path, start=start, end=end))


@pytest.mark.parametrize(
    ("name", "times", "said"),
    [
        ("missing.wav", (None, None), "there is no file"),
        ("silent.wav", (None, None), "silent.wav is silent there"),
        ("damaged.mp4", (None, None), "damaged.mp4 cannot be read as a recording"),
        ("words.wav", (None, None), "words.wav cannot be read as a recording"),
        ("norate.wav", (None, None), "claims 3 samples a second; expected 4000 to 384000"),
        ("film.mp4", (None, None), "film.mp4 has no sound"),
        ("good.wav", (2.0, 1.5), "the end, 1.5 s, is not after the start, 2 s"),
        ("good.wav", (1.0, 1.0), "the end, 1 s, is not after the start, 1 s"),
        ("good.wav", (9.0, None), "good.wav has no sound after 9 s"),
        ("good.wav", (1.0, 9.0), "good.wav is 2.00 s long, so nothing ends at 9 s"),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, name: str, times: tuple[float | None, float | None], said: str
) -> None:
    record(tmp_path / "good.wav", tone(2, 8_000), 8_000)
    record(tmp_path / "silent.wav", np.zeros(8_000, dtype=np.float32), 8_000)
    record(tmp_path / "film.mp4", None, frames=[np.zeros((64, 64, 3), dtype=np.uint8)] * 5)
    whole = record(tmp_path / "whole.mp4", tone(2, 8_000), 8_000).read_bytes()
    (tmp_path / "damaged.mp4").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "words.wav").write_text("these are words")
    header = bytearray((tmp_path / "good.wav").read_bytes())
    header[24:28] = (3).to_bytes(4, "little")
    (tmp_path / "norate.wav").write_bytes(header)
    with pytest.raises(InputError, match=said):
        clip(tmp_path / name, *times).samples(16_000)


def test_sound_of_a_film_is_read_where_no_audio_file_is_named(tmp_path: Path) -> None:
    film = record(tmp_path / "a.mp4", tone(1, 16_000), frames=[np.zeros((64, 64, 3), np.uint8)] * 9)
    said = Clip(Utterance(2, "a", 0, "ann", video=film))
    assert len(said.samples(16_000)) >= 16_000
    with pytest.raises(InputError, match="no audio file is named"):
        clip(None).samples(16_000)
