"""How a model names sentences that a person wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from fedmer.bundle.model import Model
from fedmer.bundle.source import source_of_lines


@dataclass(frozen=True)
class Answer:
    """One sentence.

    Args:
        words: It.
        meant: The emotion that its writer meant.
        named: The one that the model names.
        probability: What the model gives it, 0 to 1.
    """

    words: str
    meant: str
    named: str
    probability: float

    @property
    def right(self) -> bool:
        return self.meant == self.named


def answers(model: Model, sentences: Mapping[str, Sequence[str]]) -> list[Answer]:
    """What a model says of sentences, each a dialogue of its own.

    Args:
        model: One of words.
        sentences: Emotion -> sentences of it.

    Raises:
        InputError: The model was not trained on words that can be made features of here.
    """
    asked = [(words, meant) for meant, group in sentences.items() for words in group]
    lines = [line for words, _ in asked for line in (f"A: {words}", "")]
    source = source_of_lines(lines, model.contents)
    found = []
    for (words, meant), said in zip(asked, model.predict_all(source.conversations), strict=True):
        found.append(Answer(words, meant, said.emotions[0], float(said.probabilities[0].max())))
    return found


def answer_table(found: Sequence[Answer], each: int) -> Table:
    """Some of them, to look at.

    Args:
        found: Of :func:`answers`.
        each: How many of every emotion, the first ones.
    """
    table = Table(title="Sentences that a person wrote")
    for name in ("sentence", "meant", "prediction"):
        table.add_column(name)
    table.add_column("probability", justify="right")
    seen: dict[str, int] = {}
    for answer in found:
        seen[answer.meant] = seen.get(answer.meant, 0) + 1
        if seen[answer.meant] <= each:
            named = answer.named if answer.right else f"{answer.named} (wrong)"
            table.add_row(answer.words, answer.meant, named, f"{answer.probability:.2f}")
    return table
