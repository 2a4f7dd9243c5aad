"""The image, continuous integration and the hooks: every file, option and program in them is there.

No machine of the project has a Docker daemon, so that the image is read and not built here;
``tests/test_wheel.py`` installs what it installs.
"""

import re
import shlex
import tomllib
from fnmatch import fnmatch
from typing import Any

import pytest
import yaml

from fedmer.commands import deploy
from fedmer.sweep.check import FitParser, fit_parser
from tests.documented import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
_OF_DOCKER = {"-v", "-p", "--name", "--restart", "--health-cmd", "--tmpfs", "--cap-drop"}
_OF_DOCKER |= {"--security-opt"}
"""Options of ``docker run`` that take a word."""


def instructions() -> list[tuple[str, str]]:
    """Name and the rest of each line of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in whole]


def copied() -> list[str]:
    """What the image is built of."""
    copies = [rest.split() for name, rest in instructions() if name == "COPY"]
    return [word for words in copies if words[0][0] != "-" for word in words[:-1]]


def first(name: str) -> str:
    return next(rest for each, rest in instructions() if each == name)


def test_everything_that_the_image_is_built_of_is_there_and_not_left_out() -> None:
    rules = (ROOT / ".dockerignore").read_text().split()
    for name in copied():
        assert (ROOT / name).exists(), name
        verdicts = [rule for rule in rules if fnmatch(name, rule.removeprefix("!"))]
        assert verdicts[-1] == f"!{name}"
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"]}
    needed |= {*PROJECT["project"]["license-files"], *wheel["packages"], *wheel["force-include"]}
    assert set(copied()) == needed


def test_the_image_installs_the_pins_and_extras_that_there_are() -> None:
    (install,) = (
        rest
        for name, rest in instructions()
        if name == "RUN" and "install -" in rest and "pip" in rest
    )
    assert "-c constraints.txt" in install
    extras = next(r for n, r in instructions() if n == "ARG" and r.startswith("EXTRAS="))
    offered = set(PROJECT["project"]["optional-dependencies"])
    assert set(extras.partition("=")[2].split(",")) <= offered
    assert set(re.findall(r"EXTRAS=([\w,]+)", OPERATIONS)[0].split(",")) <= offered


def test_python_is_one_that_the_pins_are_for() -> None:
    images = [rest.split()[0] for name, rest in instructions() if name == "FROM"]
    assert len(set(images)) == 1
    found = re.fullmatch(r"python:3\.(\d+)-slim", images[0])
    least = re.fullmatch(r">=3\.(\d+)", PROJECT["project"]["requires-python"])
    assert found is not None
    assert least is not None
    assert int(found[1]) >= int(least[1])
    job = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["run"]
    (python,) = (s["with"] for s in job["steps"] if "setup-python" in s.get("uses", ""))
    assert python["python-version"] == f"3.{found[1]}"


def test_the_image_starts_fedmer_as_nobody_in_particular() -> None:
    assert first("ENTRYPOINT") == '["fedmer"]'
    assert "fedmer" in PROJECT["project"]["scripts"]
    assert first("USER") == "fedmer"
    assert [rest for name, rest in instructions() if name == "WORKDIR"][-1] == "/srv/fedmer"
    made = [rest for name, rest in instructions() if name == "RUN"][-1]
    assert "useradd --uid 10001" in made
    assert instructions()[-1] == ("CMD", '["--help"]')


def test_the_port_is_the_one_that_init_takes() -> None:
    port = deploy.parser().parse_args(["init", "x", "--nodes", "1"]).init.port
    assert first("EXPOSE") == str(port)
    assert f"-p {port}:{port}" in OPERATIONS


def test_no_file_names_a_place_to_download_from() -> None:
    for name in ("Dockerfile", ".github/workflows/ci.yml", ".pre-commit-config.yaml", "Makefile"):
        assert not re.search(r"https?://|index-url\s*[= ]\s*\w", (ROOT / name).read_text()), name


@pytest.fixture(scope="module")
def fit() -> FitParser:
    return fit_parser()


def dockers() -> list[list[str]]:
    """What follows the name of the image or of the container in the manual's commands."""
    text = OPERATIONS.replace("\\\n", " ")
    found = []
    for line in re.findall(r"^docker (?:run|exec) .*$", text, re.MULTILINE):
        words = iter(shlex.split(line)[2:])
        for word in words:
            if word in _OF_DOCKER:
                next(words)
            elif not word.startswith("-"):
                break
        found.append([word for word in words if word != "fedmer"])
    return found


def test_commands_of_the_manual_are_understood_in_a_container(fit: FitParser) -> None:
    assert len(dockers()) >= 4
    for kind, *more in dockers():
        if kind == "deploy":
            deploy.parser().parse_args(more)
        else:
            assert kind == "fit"
            fit.parse(["fit", *more])


def test_integration_calls_what_is_run_here() -> None:
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    (job,) = workflow["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert workflow["permissions"] == {"contents": "read"}
    files = job["steps"][1]["with"]["cache-dependency-path"].split()
    assert all((ROOT / name).is_file() for name in files)


def test_hooks_are_what_make_lint_runs_at_the_pinned_versions() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    entries = {hook["entry"].replace(" --force-exclude", "") for hook in local["hooks"]}
    makefile = (ROOT / "Makefile").read_text()
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert lint is not None
    assert entries == {line.strip().replace("$(BIN)", ".venv/bin") for line in lint[1].splitlines()}
    assert {hook["language"] for hook in local["hooks"]} == {"system"}
    pins = (ROOT / "constraints.txt").read_text()
    for tool in ("ruff", "mypy", "import-linter"):
        assert re.search(rf"^{tool}==", pins, re.MULTILINE)
