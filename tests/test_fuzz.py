"""Mangled files, as many as are stated: every one is read, or is a sentence."""

import random
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmer.errors import InputError
from tests.fuzz import TARGETS, Reader, Sound

INPUTS = 10_000
"""Of the slow test: the same changes as ``python -m tests.fuzz`` makes by hand."""

QUICK = ("npz", "pickle", "run", "table", "configuration")
"""What is read in milliseconds."""


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("fuzz")
    reader = Reader(Sound(folder / "sound"), folder)
    yield reader
    reader.close()


@given(st.sampled_from(QUICK), st.integers(0, 2**60))
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_a_mangled_file_is_read_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, name: str, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzz-quick"
    sound = Sound.once(folder / "sound")
    try:
        TARGETS[name][0](random.Random(seed), sound, folder / "mangled")()
    except InputError as error:
        assert str(error).strip()  # noqa: PT017 - some changes do no harm


@pytest.mark.slow
@pytest.mark.timeout(7200)
@given(
    st.sampled_from([name for name in TARGETS for _ in range(round(200 * TARGETS[name][1]))]),
    st.integers(0, 2**60),
)
@settings(max_examples=INPUTS, suppress_health_check=list(HealthCheck), database=None)
def test_ten_thousand_mangled_files_are_read_or_sentences_in_bounded_memory_and_time(
    reader: Reader, name: str, seed: int
) -> None:
    assert reader.ask(name, seed) in ("read", "refused")


@pytest.mark.slow
def test_a_reader_that_takes_too_much_or_dies_is_noticed(reader: Reader) -> None:
    assert "KeyError" in reader.ask("no such target", 0)
    assert reader._child is not None
    reader._child.kill()
    assert "died with exit code" in reader.ask("npz", 0)
    assert reader.ask("npz", 0) in ("read", "refused")
