"""What YAML from outside may be, and that what it may not be is refused quickly."""

import os
import threading
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from fedmer import safe_yaml
from fedmer.errors import InputError

# Not texts such as 1e3, which PyYAML writes without quotes, nor line ends that it folds to a space.
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="eE\x85\u2028\u2029"))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=30,
)


@given(PLAIN)
def test_what_was_written_is_read_as_it_was_meant(value: object) -> None:
    assert safe_yaml.parse(yaml.safe_dump(value, allow_unicode=True), "text") == value


@given(st.binary(max_size=60) | st.text(alphabet="&*a{}[]:,-?!|>'\"%#\n \t0.e_<", max_size=60))
def test_any_text_is_read_or_refused_in_a_sentence(content: bytes | str) -> None:
    said = "the text"
    try:
        safe_yaml.parse(content, "the text")
    except InputError as error:
        said = str(error)
    assert said.startswith("the text")
    assert "\n" not in said


def bomb(kind: str) -> str:
    """A short text that stands for ten times more with every line."""
    lines = ["x0: &x0 {k: 1}"]
    for i in range(1, 20):
        ten = ",".join([f"*x{i - 1}"] * 10)
        lines.append(f"x{i}: &x{i} " + ("[%s]" if kind == "list" else "{<<: [%s]}") % ten)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb("list"), "stands for more than 50000 values"),
        (bomb("merge"), "stands for more than 50000 values"),
        ("[" + "a," * 60_000 + "]", "stands for more than 50000 values"),
        ("[" * 200_000, "nested deeper than 64"),
        ("- " * 100_000, "nested deeper than 64"),
        ("a: &a " + "[" * 40 + "]" * 40 + "\nb: " + "[" * 40 + "*a" + "]" * 40, "nested deeper"),
        ("a: &a [*a]", "*a stands in what it stands for"),
        ("a: 1\nb: !!python/object/apply:os.system [x]", "line 2: the tag !!python/object/apply"),
        ("a: !own b", "line 1: the tag !own is not allowed"),
        ("%TAG !a! tag:yaml.org,2002:python/\n---\na: 1", "tags are declared"),
        ("a: 1\n---\nb: 1", "line 2: a second document begins"),
        ("a: 1\nb: ]", "line 2 is not YAML"),
        ("? [a]\n: b", "line 1 is not YAML: found unhashable key"),
        ("a: *b", "is not YAML: found undefined alias"),
        ("a: " + "9" * 5000, "cannot be read"),
        (b"a: \xff", "is not UTF-8 text; it goes wrong at byte 3"),
        ("a: b".encode("utf-16"), "is not UTF-8 text"),
        (b"a: \x00", "cannot be read"),
        (b" " * (safe_yaml.MAX_LENGTH + 1), "more than 262144 characters"),
    ],
)
def test_what_is_beyond_the_bounds_is_refused_at_once(text: bytes | str, said: str) -> None:
    began = time.perf_counter()
    with pytest.raises(InputError) as refused:
        safe_yaml.parse(text, "x.yaml")
    assert said in str(refused.value)
    assert time.perf_counter() - began < 5  # a twentieth of a second on an idle machine


def test_numbers_are_numbers_and_clocks_are_texts() -> None:
    text = "[1e-3, 3e-4, -.5, 1., 1_000, 0x1F, .inf, 12:30:00, 2024-01-01, =, 1.2.3, ~]"
    read = safe_yaml.parse(text, "text")
    texts = ["12:30:00", "2024-01-01", "=", "1.2.3"]
    assert read == [1e-3, 3e-4, -0.5, 1.0, 1000, 31, float("inf"), *texts, None]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder"):
        safe_yaml.read(tmp_path)
    with pytest.raises(InputError, match=r"gone\.yaml does not exist"):
        safe_yaml.read(tmp_path / "gone.yaml")
    with pytest.raises(InputError, match="is not a file"):
        safe_yaml.read(Path("/dev/zero"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match="is not a file"):
        safe_yaml.read(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("a: 1",))
    writer.start()
    assert safe_yaml.read(pipe, pipe=True) == {"a": 1}
    writer.join()
