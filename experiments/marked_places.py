"""Pages of results whose tables stand between marks, so that the words around them stay."""

import re
from pathlib import Path


def replace(page: Path, text: str, name: str, block: str) -> str:
    """Put a block between the line ``<!-- table NAME -->`` and the next ``<!-- end -->``.

    Args:
        page: Where the text is from, for the sentence if the marks are missing.
        text: The page's.
        name: The table's.
        block: What is to stand there.
    """
    start, end = f"<!-- table {name} -->", "<!-- end -->"
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{page.name} has no line '{start}' with '{end}' after it; put it back.")
    return pattern.sub(lambda _: f"{start}\n{block}\n{end}", text)


def save(page: Path, text: str) -> None:
    """Write a page whose places were filled, and say so; leave it alone if nothing is new."""
    if text == page.read_text(encoding="utf-8"):
        print("Nothing changed: no runs were found, or the page has them already.")
        return
    page.write_text(text, encoding="utf-8")
    print(f"The tables are in {page.relative_to(page.parent.parent.parent)}.")
