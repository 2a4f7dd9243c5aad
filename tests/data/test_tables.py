"""A table is the corpus that was written as it, and every refusal names row and column."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import TableOptions, read_corpus
from fedmer.data.formats.tables.cells import seconds
from fedmer.data.formats.tables.read import read_table
from fedmer.data.formats.tables.splitting import split_dialogues
from fedmer.data.formats.tables.write import SUFFIXES, write
from fedmer.errors import InputError
from tests.data import test_native
from tests.data.typed import main

EMOTIONS = ["calm", "glad", "cross"]


def installed() -> bool:
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


needs_pyarrow = pytest.mark.skipif(not installed(), reason="pyarrow (extra 'tables') is not here")
WRITTEN = [
    pytest.param(suffix, marks=needs_pyarrow if suffix == ".parquet" else ()) for suffix in SUFFIXES
]


@pytest.mark.parametrize("suffix", WRITTEN)
@given(corpus=test_native.corpora())
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_corpus_that_is_written_as_a_table_is_read_as_the_same(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, corpus: ConversationCorpus
) -> None:
    path = tmp_path_factory.mktemp("table") / f"made{suffix}"
    write(corpus, path)
    again = read_corpus(path, table=TableOptions(labels=EMOTIONS))
    assert again.fingerprint == corpus.fingerprint
    assert again.name == "made"
    assert not again.notes


@given(
    st.lists(
        st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3), min_size=1, max_size=30
    ),
    st.integers(0, 99),
)
def test_a_split_by_seed_is_by_dialogue_and_says_whether_speakers_are_apart(
    people: list[list[str]], seed: int
) -> None:
    parts, apart = split_dialogues(people, seed)
    assert (parts, apart) == split_dialogues(people, seed)
    assert "train" in parts
    assert ("test" in parts) == (len(people) > 1)
    assert parts.count("test") <= max(1, round(0.2 * len(people)))
    homes = {(person, part) for own, part in zip(people, parts, strict=True) for person in own}
    assert apart == (len(homes) == len({person for person, _ in homes}))


def test_speakers_are_apart_where_everybody_has_few_dialogues() -> None:
    people = [[f"speaker {i // 2}"] for i in range(40)]
    parts, apart = split_dialogues(people, 3)
    assert apart
    assert (parts.count("test"), parts.count("val")) == (8, 4)
    assert parts != split_dialogues(people, 4)[0]


def csv_of(folder: Path, text: str, name: str = "made.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


GOOD = """dialogue,turn,speaker,label,split,text,audio,start,text_0,text_1
a,1,ann,glad,train,"Well, no",a1.wav,0:01.5,1,2
a,0,ben,,train,Hello,a0.wav,0,3,4
b,0,ann,calm,test,Yes,,,,
"""


def test_a_table_is_rows_and_features(tmp_path: Path) -> None:
    table = read_table(csv_of(tmp_path, GOOD))
    first = table.utterances[0]
    assert (first.row, first.dialogue, first.turn, first.text) == (2, "a", 1, "Well, no")
    assert (first.audio, first.start, first.end) == (tmp_path / "a1.wav", 1.5, None)
    assert table.features["text"].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert table.present["text"].tolist() == [True, True, False]
    corpus = read_corpus(tmp_path / "made.csv")
    assert list(corpus.label_names) == ["calm", "glad"]
    assert corpus.conversations[0].utterances == ["Hello", "Well, no"]
    assert corpus.conversations[0].labels.tolist() == [-1, 1]


def test_columns_of_other_names_are_mapped_and_unused_ones_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The columns of MELD's own files, beside features of another name."""
    path = csv_of(
        tmp_path,
        "Sr No.;Utterance;Speaker;Emotion;Dialogue_ID;Utterance_ID;StartTime;face_1;face_2\n"
        "1;Oh!;Chandler;joy;0;0;00:16:05,500;1;2\n"
        "2;What?;Joey;anger;1;0;00:16:07,100;3;4\n",
    )
    words = ["--columns.visual", "face", "--labels", "[joy, anger]", "--seed", "1"]
    assert main(["convert", str(path), str(tmp_path / "made.npz"), *words]) == 0
    said = capsys.readouterr().out
    assert "columns that are not used: Sr No." in said
    assert "split by seed 1: 1 train, 0 val, 1 test; no speaker is in two parts" in said
    corpus = read_corpus(tmp_path / "made.npz")
    assert list(corpus.label_names) == ["joy", "anger"]
    assert corpus.modalities == ["visual"]
    assert corpus.conversations[0].utterances == ["Oh!"]
    assert main(["describe", str(path), "--data.columns", "{visual: face}"]) == 0
    assert "no column 'split'" in capsys.readouterr().out


def test_features_may_lie_beside_a_table(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "dialogue,turn,speaker,label,split,face\na,0,x,1,train,f/a.npy\n"
                            "a,1,y,0,train,\n")  # fmt: skip
    (tmp_path / "f").mkdir()
    np.save(tmp_path / "f" / "a.npy", np.array([5.0, 6.0]))
    np.save(tmp_path / "made.text.npy", np.array([[1.0], [np.nan]]))
    table = read_table(path)
    assert table.features["face"].tolist() == [[5, 6], [0, 0]]
    assert table.features["text"].tolist() == [[1], [0]]
    assert table.present["text"].tolist() == [True, False]
    np.save(tmp_path / "made.text.npy", np.zeros((3, 1)))
    with pytest.raises(InputError, match=r"made\.text\.npy has the shape \(3, 1\); expected 2"):
        read_table(path)


def test_numbers_are_labels_and_their_own_names(tmp_path: Path) -> None:
    path = csv_of(tmp_path, "dialogue,turn,speaker,label,split,x_0\n"
                            "a,0,x,2.0,train,1\na,1,y,-1,train,1\nb,0,x,0,test,2\n")  # fmt: skip
    corpus = read_corpus(path)
    assert list(corpus.label_names) == ["0", "1", "2"]
    assert [dialogue.labels.tolist() for dialogue in corpus.conversations] == [[2, -1], [0]]


HEADER = "dialogue,turn,speaker,label,split,t_0,t_1\n"
WRONG: dict[str, tuple[str | bytes, str]] = {
    "missing": ("dialogue,turn,label\na,0,x\n", "lacks the column 'speaker'; it has 'dialogue'"),
    "no label": ("dialogue,turn,speaker,t_0\na,0,x,1\n", "lacks the column 'label'"),
    "no features": ("dialogue,turn,speaker,label\na,0,x,1\n", "made.csv has no features"),
    "duplicate": (HEADER + "a,0,x,1,train,1,2\na,0,y,0,train,1,2\n", "row 3, column 'turn': dia"),
    "turn": (HEADER + "a,one,x,1,train,1,2\n", "row 2, column 'turn' is 'one'; expected a whole"),
    "speaker": (HEADER + "a,0,,1,train,1,2\n", "row 2, column 'speaker' is empty"),
    "split": (HEADER + "a,0,x,1,eval,1,2\n", "row 2, column 'split' is 'eval'; expected train,"),
    "two splits": (
        HEADER + "a,0,x,1,train,1,2\na,1,x,1,dev,1,2\n",
        "row 3, column 'split' is 'val', but 'train' in row 2 of the same dialogue 'a'",
    ),
    "cells": (HEADER + "a,0,x,1,train,1\n", "row 2 has 6 cells but the header has 7"),
    "no number": (HEADER + "a,0,x,1,train,1,b\n", "row 2, column 't_1' is \"b\"; expected a n"),
    "nan": (HEADER + "a,0,x,1,train,nan,2\n", "row 2, column 't_0' is empty or NaN"),
    "half": (HEADER + "a,0,x,1,train,1,\n", "row 2, column 't_1' is empty or NaN"),
    "infinite": (HEADER + "a,0,x,1,train,1,-inf\n", "row 2, column 't_1' is infinite"),
    "huge": (HEADER + "a,0,x,1,train,1,1e39\n", "row 2, column 't_0' holds 1e+39"),
    "gap": ("dialogue,turn,speaker,label,t_0,t_2\na,0,x,1,1,2\n", "but no 't_1'"),
    "twice": ("dialogue,turn,turn,speaker\na,0,0,x\n", "has the column 'turn' twice"),
    "ragged": (
        "dialogue\tturn\tspeaker\tlabel\tt\na\t0\tx\t1\t[1 2]\na\t1\tx\t1\t[1]\n",
        "row 3, column 't' has 1 numbers, but row 2 has 2",
    ),
    "number": (HEADER + "a,0,x,4000,train,1,2\n", "row 2, column 'label' is 4000"),
    "one label": (HEADER + "a,0,x,calm,train,1,2\n", "names 1 emotion(s)"),
    "no rows": (HEADER, "has no rows; expected a row an utterance"),
    "empty": ("", "is empty; expected"),
    "latin1": ((HEADER + "a,0,J\xfcrgen,1,train,1,2\n").encode("latin1"), "not UTF-8: line 2 hol"),
    "quotes": (HEADER + 'a,0,"x"y,1,train,1,2\n', "row 2 cannot be read"),
    "json": ('{"dialogue": 1}\n{"dialogue"\n', "lacks the column"),
    "cut": (
        '{"dialogue": 1, "turn": 0, "speaker": "x"}\n{"dialogue"\n',
        "row 2 is not JSON",
    ),
    "key": (
        '{"dialogue": 1, "turn": 0, "speaker": "x"}\n{"dialogue": 1, "turns": 1}\n',
        "row 2 has 'turns', which the first row lacks",
    ),
    "object": (
        '{"dialogue": {}, "turn": 0, "speaker": "x"}\n',
        "row 1, column 'dialogue' holds a dict; expected a word",
    ),
    "parquet": (b"PAR1....PAR1", "made.csv"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named_with_its_row_and_column(
    tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    content, sentence = WRONG[name]
    path = tmp_path / "made.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    assert main(["describe", str(path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"fedmer: error: {path}")
    assert said.count("\n") == 1
    assert sentence in said


@given(content=st.binary(max_size=60), suffix=st.sampled_from([b"", b"\n", b'{"dialogue": ']))
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_bytes_behind_a_header_are_a_corpus_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, suffix: bytes
) -> None:
    path = tmp_path_factory.mktemp("table") / "made.csv"
    path.write_bytes(GOOD.encode() + content + suffix)
    try:
        read_corpus(path)
    except InputError as error:
        assert str(path) in str(error)  # noqa: PT017 - some bytes do no harm


def test_options_of_tables_are_refused_for_what_is_none(tmp_path: Path, corpus_file: Path) -> None:
    with pytest.raises(InputError, match="is no table, so --data"):
        read_corpus(corpus_file, table=TableOptions(labels=EMOTIONS))
    path = csv_of(tmp_path, GOOD)
    with pytest.raises(InputError, match="has no column 'Who', which"):
        read_corpus(path, table=TableOptions(columns={"speaker": "Who"}))
    with pytest.raises(
        InputError, match="row 2, column 'label' is 'glad'; expected one of calm, x"
    ):
        read_corpus(path, table=TableOptions(labels=["calm", "x"]))


@pytest.mark.parametrize(("text", "found"), [("1:02:03.5", 3723.5), ("02:03", 123), ("7", 7)])
def test_times(text: str, found: float) -> None:
    assert seconds(text, "") == found
    with pytest.raises(InputError, match="expected seconds"):
        seconds(f"-{text}", "row 2")


def saved_dataset(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> None:
    """A folder as ``DatasetDict.save_to_disk`` writes it."""
    import pyarrow

    folder.mkdir()
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(parts)}))
    for name, rows in parts.items():
        own = folder / name
        own.mkdir()
        table = pyarrow.Table.from_pylist(rows)
        with (
            pyarrow.OSFile(str(own / "data-00000-of-00001.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table)
        features: dict[str, Any] = {column: {"_type": "Value"} for column in table.column_names}
        features["label"] = {"names": EMOTIONS, "_type": "ClassLabel"}
        (own / "dataset_info.json").write_text(json.dumps({"features": features}))
        files = [{"filename": "data-00000-of-00001.arrow"}]
        (own / "state.json").write_text(json.dumps({"_data_files": files}))


@needs_pyarrow
def test_a_folder_of_datasets_is_a_table_whose_parts_are_splits(tmp_path: Path) -> None:
    row = {"dialogue": 0, "turn": 0, "speaker": "x", "label": 2, "text": [0.5, 1.5]}
    saved_dataset(tmp_path / "d", {"train": [row], "validation": [row | {"dialogue": 1}]})
    corpus = read_corpus(tmp_path / "d")
    assert list(corpus.label_names) == EMOTIONS
    assert [dialogue.split for dialogue in corpus.conversations] == ["train", "val"]
    assert corpus.conversations[0].features["text"].tolist() == [[0.5, 1.5]]
    state = tmp_path / "d" / "train" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "../../x.arrow"}]}))
    with pytest.raises(InputError, match=r"state\.json names no data files"):
        read_corpus(tmp_path / "d")


@pytest.mark.skipif(installed(), reason="pyarrow is here")
def test_without_pyarrow_a_sentence_names_the_extra(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"pip install 'fedmer\[tables\]', or write the table as"):
        read_corpus(tmp_path / "a.parquet")
