"""Classes that a person types by their path: whatever is wrong with them is told as it is."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmer.__main__ import main

RULES = {
    "good_rules.py": "from fedmer.plugins.aggregators.fed_avg import FedAvg\n"
    "class Mine(FedAvg): pass\nclass NoRule: pass\ndef make(): pass\n",
    "bad_syntax.py": "class Mine(:\n",
    "bad_import.py": "raise ValueError('no luck')\n",
    "needy.py": "import not_installed_anywhere\n",
    "abstract.py": "from fedmer.contracts import Selector\nclass Half(Selector): pass\n",
}


@pytest.fixture
def rules(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Modules in the working folder, which Python forgets afterwards."""
    for name, text in RULES.items():
        (here / name).write_text(text)
    with monkeypatch.context() as patch:
        for name in RULES:
            patch.delitem("sys.modules", name.removesuffix(".py"), raising=False)
        yield here


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("--aggregator nowhere.Mine", "--aggregator nowhere.Mine: there is no module nowhere"),
        ("--aggregator bad_syntax.Mine", "bad_syntax.py, line 1: "),
        ("--aggregator bad_import.Mine", "importing bad_import failed with ValueError: no luck."),
        ("--aggregator needy.Mine", "since it needs not_installed_anywhere, which is not inst"),
        ("--aggregator good_rules.Mien", "good_rules has no 'Mien'; did you mean 'Mine'?"),
        ("--aggregator good_rules.NoRule", "good_rules.NoRule is no aggregator; its class has to"),
        ("--aggregator good_rules.make", "good_rules.make is a function; expected a class that"),
        ("--optimizer os.system", "os.system is a builtin_function_or_method; expected a class"),
        ("--selector abstract.Half", "abstract.Half is not whole; its class has to have the meth"),
        ("--config mine.yaml --trust", "good_rules.NoRule is no aggregator; its class has to"),
        ("--config mine.yaml", "names good_rules.NoRule, which is no part of fedmer"),
        ("--optimizer.lr nan", "lr is 'nan'; expected a finite number."),
        ("--trainer.logger CSVLogger", "needs save_dir, which has no default; give it behind"),
        ("--seed 1", "unknown option --seed; did you mean --conditions.seed or --seed_everything?"),
    ],
)
def test_what_is_wrong_is_one_sentence(
    rules: Path, capsys: pytest.CaptureFixture[str], typed: str, said: str
) -> None:
    (rules / "mine.yaml").write_text("aggregator: {class_path: good_rules.NoRule}\n")
    code = main(["fit", *typed.split()])
    error = capsys.readouterr().err
    assert code == 2
    assert said in error
    assert error.startswith("fedmer: error: ")
    assert error.count("\n") == 1
    assert not (rules / "runs").exists()
