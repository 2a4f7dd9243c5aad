"""Sweep files: what is read, and what is refused before anything runs."""

from pathlib import Path

import pytest
import yaml

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.sweep.file import SweepFile, read

ROOT = Path(__file__).parent.parent.parent
GOOD = {
    "program": "fedmer",
    "method": "grid",
    "metric": {"name": "val_weighted_f1", "goal": "maximize"},
    "parameters": {"aggregator.mu": {"values": [0.0, 0.1]}, "seed_everything": {"values": [0, 1]}},
    "command": ["fedmer", "fit", "${args}"],
}


def written(path: Path, **changes: object) -> Path:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_file_is_read_in_its_order(here: Path) -> None:
    sweep = read(written(here / "mine.yaml", name="my sweep", run_cap=3))
    assert isinstance(sweep, SweepFile)
    assert [p.name for p in sweep.parameters] == ["aggregator.mu", "seed_everything"]
    assert (sweep.name, sweep.method, sweep.run_cap) == ("my sweep", "grid", 3)
    assert read(written(here / "mine.yaml")).name == "mine"


def test_without_a_command_it_is_the_program(here: Path) -> None:
    sweep = read(written(here / "mine.yaml", command=None, program="train.py"))
    assert sweep.command == ("${env}", "${interpreter}", "${program}", "${args}")


def only(**settings: object) -> dict[str, object]:
    return {"parameters": {"mu": settings}}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": None}, "has no method; add 'method: grid' or 'method: random'."),
        ({"method": "bayes"}, "method bayes needs the server of W&B"),
        ({"method": "bayes"}, "grid and random work here."),
        ({"method": "gird"}, "unknown method 'gird'; did you mean 'grid'?"),
        ({"method": "random"}, "method random has no end; add run_cap: 20"),
        ({"run_cap": 0}, "run_cap is 0; expected at least 1."),
        ({"early_terminate": {"type": "hyperband"}}, "'early_terminate' needs the server of W&B"),
        ({"paramters": {}}, "unknown key 'paramters'; did you mean 'parameters'?"),
        ({"parameters": None}, "has no parameters"),
        ({"parameters": {}}, "has no parameters"),
        ({"parameters": {"a b": {"value": 1}}}, "parameter 'a b' is not a name"),
        ({"metric": {"name": "loss", "goal": "down"}}, "metric.goal is 'down'"),
        ({"metric": {"name": "loss", "target": 1}}, "metric.target needs the server"),
        ({"metric": "loss"}, "metric is 'loss'; expected a name and a goal."),
        ({"command": "fedmer fit"}, "command is 'fedmer fit'; expected a list of words."),
        ({"command": ["fedmer", "fit"]}, 'command has no "${args}"'),
        ({"command": ["fedmer", "${arg}", "${args}"]}, "did you mean '${args}'?"),
        ({"command": ["${envvar:FEDMER_NOT_SET}", "${args}"]}, "FEDMER_NOT_SET is not set"),
        ({"command": None, "program": None}, "but the file has no program; add one."),
        (only(values=[]), "parameter 'mu': values is []; expected a list"),
        (only(values=[1, None]), "one of values is null, which W&B passes on as the word None"),
        (only(value=""), "parameter 'mu': '' is not a text"),
        (only(value={"a": 1}), "{'a': 1} is a mapping; write each of its entries"),
        (only(parameters={"lr": {"value": 1}}), "such as 'mu.lr'"),
        (only(), "parameter 'mu' has neither value, values, min and max"),
        (only(min=1), "parameter 'mu' has no max, which int_uniform needs."),
        (only(min=0.5, max=1), "parameter 'mu' is uniform, and a grid needs values to list"),
        (only(distribution="unifrom", min=0, max=1), "did you mean 'uniform'?"),
        (only(values=[1], vaules=[2]), "unknown setting of categorical 'vaules'"),
        (only(values=[1, 2], probabilities=[0.5, 0.6]), "expected fractions that sum to 1."),
        (only(values=[1, 2], probabilities=[1.0]), "expected a number for each value."),
        (only(distribution="uniform", min="1e-5", max=1.0), "only with a point, as in 1.0e-3"),
        (only(distribution="uniform", min=2, max=1), "min is 2 and max is 1"),
        (only(distribution="int_uniform", min=0.5, max=1), "int_uniform takes integers."),
        (only(distribution="log_uniform_values", min=0, max=1), "needs it above 0."),
        (only(distribution="log_uniform", min=1, max=5000), "use log_uniform_values."),
        (only(distribution="normal", mu=10**400), "expected a number."),
        (only(distribution="q_normal", q=0), "q is 0; expected a number above 0."),
        ({"parameters": {"mu": 3}}, "parameter 'mu' is 3; expected a mapping"),
    ],
)
def test_what_cannot_run_is_a_sentence_that_names_the_file(
    here: Path, changes: dict[str, object], said: str
) -> None:
    path = written(here / "bad.yaml", **changes)
    with pytest.raises(InputError) as error:
        read(path)
    assert str(error.value).startswith(f"{path}: ")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"method: [grid", "bad.yaml, line . is not YAML"),
        (b"\xff\xfe\xfa", "bad.yaml is not UTF-8 text"),
        (b"a: !!python/name:os.system", "the tag !!python/name:os.system is not allowed"),
        (b"a: &a [1, 2]\nb: &b [*a, *a]\n" + b"c: [" + b"*b, " * 20_000 + b"]", "more than"),
        (b"- grid", "holds no sweep"),
        (b"", "holds no sweep"),
    ],
)
def test_what_is_no_sweep_is_a_sentence(here: Path, content: bytes, said: str) -> None:
    (here / "bad.yaml").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read(here / "bad.yaml")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mine.yaml", "--jobs", "0"], "--jobs is 0; expected at least 1."),
        (["mine.yaml", "--jobs", "two"], "--jobs is 'two'; expected a whole number."),
        (["nowhere.yaml"], "nowhere.yaml does not exist; expected a YAML file."),
        (["mine.yaml", "--data.path", "x"], "options of the trials stand behind --."),
        ([], "FILE is missing; see 'fedmer sweep --help'."),
    ],
)
def test_what_is_typed_wrongly_is_a_sentence_and_changes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    written(here / "mine.yaml")
    assert main(["sweep", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("fedmer: error: ")
    assert said in error
    assert [path.name for path in here.iterdir()] == ["mine.yaml"]


def test_help_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "--help"]) == 0
    assert "usage: fedmer sweep FILE" in capsys.readouterr().out


@pytest.mark.parametrize("path", sorted((ROOT / "experiments/sweeps").glob("*.yaml")), ids=str)
def test_shipped_sweeps_are_sweeps(path: Path) -> None:
    sweep = read(path)
    assert sweep.name == path.stem
    for parameter in sweep.parameters:
        for value in parameter.listed or []:
            if parameter.name == "config":
                assert (ROOT / value).is_file()
