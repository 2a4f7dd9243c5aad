"""Pictures: a network of the user's, faces, and what a film without a face gives."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.formats.tables.utterance import Utterance
from fedmer.data.media.clip import Clip
from fedmer.errors import InputError
from fedmer.plugins.extractors._pictures import fitted
from fedmer.plugins.extractors.onnx_visual import OnnxVisual
from tests.extraction.onnx_file import write_means
from tests.recordings import face, record

pytest.importorskip("av", reason="needs pip install 'fedmer[extract]'")
pytest.importorskip("onnxruntime", reason="needs pip install 'fedmer[extract]'")

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def clip(path: Path, start: float | None = None, end: float | None = None) -> Clip:
    return Clip(Utterance(2, "a", 0, "ann", video=path, start=start, end=end))


@given(
    old=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    new=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    value=st.integers(0, 255),
)
@settings(max_examples=60, deadline=None)
def test_a_picture_of_one_colour_stays_so_in_any_size(
    old: tuple[int, int], new: tuple[int, int], value: int
) -> None:
    found = fitted(np.full((*old, 3), value, dtype=np.uint8), *new)
    assert found.shape == (*new, 3)
    np.testing.assert_allclose(found, value, atol=1e-3)


def test_the_middle_of_a_picture_is_kept_in_proportion() -> None:
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    picture[:, 20:40] = 200
    np.testing.assert_allclose(fitted(picture, 10, 10), 200, atol=1e-3)


def test_features_are_means_over_frames_of_the_network(tmp_path: Path) -> None:
    colours = [(200, 40, 90)] * 10 + [(40, 120, 210)] * 10
    frames = [np.full((64, 96, 3), colour, dtype=np.uint8) for colour in colours]
    film = record(tmp_path / "a.mp4", None, frames=frames)
    model = str(write_means(tmp_path / "means.onnx"))
    extractor = OnnxVisual(model, **PLAIN)
    for times, expected in (
        ((None, None), np.mean([colours[0], colours[-1]], axis=0)),
        ((1.0, 2.0), colours[-1]),
    ):
        found = extractor.extract(clip(film, *times))
        np.testing.assert_allclose(found, np.array(expected) / 255, atol=0.03)
    twice = OnnxVisual(model, output="doubled", **PLAIN).extract(clip(film))
    np.testing.assert_allclose(twice, 2 * extractor.extract(clip(film)), rtol=1e-6)
    scaled = OnnxVisual(model, mean=(0.5, 0.5, 0.5), std=(2.0, 2.0, 2.0)).extract(clip(film))
    np.testing.assert_allclose(scaled, (extractor.extract(clip(film)) - 0.5) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "gone.onnx"}, "there is no file gone.onnx"),
        ({"model": "words.onnx"}, "words.onnx is no ONNX network"),
        ({"model": "means.onnx", "output": "mean"}, "has no output 'mean'; it has means, doubled"),
        ({"model": "means.onnx", "per_second": 0.0}, "per_second is 0.0; expected a number above"),
        ({"model": "means.onnx", "std": (1.0, 0.0, 1.0)}, "expected numbers above 0"),
    ],
)
def test_what_is_wrong_with_a_network_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_means(Path("means.onnx"))
    Path("words.onnx").write_text("these are words")
    with pytest.raises(InputError, match=said):
        OnnxVisual(**options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Films of a drawn face, of a frowning one, and of a wall."""
    folder = tmp_path_factory.mktemp("films")
    for name, smile in (("smile", 1.5), ("frown", -1.5)):
        frames = [face(smile, x=3.0 * place) for place in range(10)]
        record(folder / f"{name}.mp4", None, frames=frames)
    wall = np.random.default_rng(0).integers(90, 140, (240, 320, 3), dtype=np.uint8)
    record(folder / "wall.mp4", None, frames=[wall] * 10)
    return folder


def test_only_faces_are_looked_at_where_asked(films: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs pip install 'fedmer[extract]'")
    model = str(write_means(tmp_path / "means.onnx"))
    whole, cut = OnnxVisual(model, **PLAIN), OnnxVisual(model, faces=True, **PLAIN)
    film = clip(films / "smile.mp4")
    # Skin is brighter than the wall behind it.
    assert (cut.extract(film) > whole.extract(film) + 0.05).all()
    np.testing.assert_array_equal(cut.extract(film), cut.extract(film))
    with pytest.raises(InputError, match="no face is seen there"):
        cut.extract(clip(films / "wall.mp4"))


def test_expressions_are_seen_and_do_not_change(films: Path) -> None:
    pytest.importorskip("cv2", reason="needs pip install 'fedmer[extract]'")
    pytest.importorskip("ai_edge_litert", reason="needs pip install 'fedmer[extract]'")
    from fedmer.plugins.extractors.expression import Expression

    try:
        first, second = Expression(), Expression()
    except InputError as error:
        pytest.skip(str(error))
    smile = first.extract(clip(films / "smile.mp4"))
    frown = first.extract(clip(films / "frown.mp4"))
    assert smile.shape == (15,)
    np.testing.assert_allclose([smile[:7].sum(), frown[:7].sum()], 1, atol=1e-4)
    assert smile[-1] == frown[-1] == 1
    np.testing.assert_array_equal(second.extract(clip(films / "smile.mp4")), smile)
    # Happy is the fourth.
    assert smile[3] > 2 * frown[3]
    with pytest.raises(InputError, match="no face is seen there"):
        first.extract(clip(films / "wall.mp4"))
