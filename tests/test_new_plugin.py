"""A new plugin of every kind: written, tested by its test, installed by pip, used for a round."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.data.formats import native
from fedmer.data.synthetic import synthetic_corpus
from fedmer.plugins import registry

ROOT = Path(__file__).parent.parent
NAMES = {
    "aggregator": "MyRule",
    "network": "MyNet",
    "partitioner": "MySplit",
    "selector": "MyChoice",
    "executor": "MyPlace2",
    "privacy": "MyShield",
    "condition": "MyTrouble",
    "extractor": "HTTPLength",
}
FIT = (
    *("--trainer.max_epochs", "1", "--trainer.accelerator", "cpu", "--data.path", "tiny.npz"),
    *("--aggregator.most", "9", "--network.hidden", "4", "--partitioner.clients", "3"),
    *("--selector.count", "2", "--privacy.step", "0.01", "--name", "all"),
)


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a package of each kind."""
    folder = tmp_path_factory.mktemp("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for part, name in NAMES.items():
            assert main(["plugins", "new", part, name]) == 0
    return folder


@pytest.fixture(scope="module")
def installed(packages: Path) -> Path:
    """The same folder, when pip has installed all of them, with no way to the network."""
    written = [str(path) for path in sorted(packages.glob("fedmer-*"))]
    command = [
        *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
        *("--no-index", "--no-deps", "--no-build-isolation", "--target", "installed", *written),
    ]
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return packages


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python with what was installed."""
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder / "installed"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        },
    )


def test_there_is_a_template_of_every_kind() -> None:
    assert set(NAMES) == {registry.singular(kind) for kind in registry.KINDS}


def test_each_passes_the_test_that_was_written_with_it(packages: Path) -> None:
    folders = [str(path) for path in packages.glob("fedmer-*")]
    # pytest puts the folder of each test on the path, so that nothing has to be installed.
    done = run(packages, "pytest", "-q", "--doctest-modules", "-p", "no:cacheprovider", *folders)
    assert done.returncode == 0, done.stdout
    for folder in packages.glob("fedmer-*"):
        (test,) = folder.glob("test_*.py")
        assert "def test_" in test.read_text()


@pytest.mark.slow
def test_all_train_a_round_together(installed: Path) -> None:
    corpus = synthetic_corpus(dialogues=10, features={"text": 4, "audio": 3})
    native.write(corpus, installed / "tiny.npz")
    parts = [w for p, name in NAMES.items() if p != "extractor" for w in (f"--{p}", name)]
    done = run(installed, "fedmer", "fit", *parts, *FIT)
    assert done.returncode == 0, done.stderr
    config = (installed / "runs" / "all" / "config.yaml").read_text()
    assert "fedmer_my_rule.MyRule" in config
    assert "fedmer_my_place2.MyPlace2" in config
    assert done.stderr.count(" s\n") >= 2  # the executor's lines, of two clients


@pytest.mark.slow
def test_an_extractor_makes_features(installed: Path) -> None:
    rows = ["dialogue,turn,speaker,label,utterance", "a,0,x,sad,So it is.", "a,1,y,glad,Oh?!"]
    rows += [f"{d},0,x,sad,Well then." for d in "bcdefg"]
    (installed / "table.csv").write_text("\n".join(rows) + "\n")
    done = run(installed, "fedmer", "extract", "table.csv", "c.npz", "--text", "HTTPLength")
    assert done.returncode == 0, done.stderr
    assert native.read(installed / "c.npz").shape.features == {"text": 4}


def test_what_was_written_is_in_the_house_style(packages: Path) -> None:
    done = run(packages, "ruff", "check", "-q", "--select", "E,F,W,N,UP,B", "--line-length=100")
    assert done.returncode == 0, done.stdout


def test_it_says_how_to_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plugins", "new", "aggregators", "MyRule", "--folder", "mine"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "Wrote mine: pyproject.toml, fedmer_my_rule.py, test_my_rule.py",
        "  pip install -e mine",
        "  pytest mine",
        "  fedmer fit --aggregator MyRule --aggregator.most 50",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("agregator MyRule", "unknown kind of plugin 'agregator'; did you mean 'aggregator'?"),
        ("aggregator my-rule", "'my-rule' is no name for a plugin; expected that of a class"),
        ("aggregator myrule", "'myrule' is no name for a plugin"),
        ("aggregator ../Rule", "'../Rule' is no name for a plugin"),
        ("aggregator None", "'None' is no name for a plugin"),
        ("network Network", "'Network' is the class that every network extends"),
        ("aggregator FedAvg", "there is aggregator 'FedAvg' of fedmer already"),
        ("aggregator MyRule --folder full", "full exists and is no empty folder"),
        ("aggregator MyRule --folder full/file", "full/file exists and is no empty folder"),
        ("aggregator MyRule --folder full/file/x", "full/file"),
        ("aggregator", "NAME is missing; see 'fedmer plugins new --help'."),
        ("aggregator MyRule --foldr x", "unknown option '--foldr'; did you mean '--folder'?"),
    ],
)
def test_what_cannot_be_written_is_a_sentence(
    words: str, said: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "full").mkdir()
    (here / "full" / "file").touch()
    assert main(["plugins", "new", *words.split()]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert said in error
    assert [path.name for path in here.rglob("*")] == ["full", "file"]
