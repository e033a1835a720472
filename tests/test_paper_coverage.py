"""Every figure and every table of the paper is somewhere in the book, under its number."""

import re

import jupytext
import pytest

from pixeldefend.paths import ROOT

ALL = {*(("Figure", number) for number in range(1, 12)), ("Table", 1), ("Table", 2)}
NOT_YET: set[tuple[str, int]] = set()  # whoever takes one out of the book has to say so here
NAMED = re.compile(r"paper's (Figure|Table)s? (\d+[a-c]?(?:(?:, | and |, and )\d+[a-c]?)*)")
COUNTERPART = re.compile(r"\{numref\}`|:name: ")  # a figure or table of the book in the same passage
HEADED = re.compile(r"^#+ (Table) (\d+)", re.MULTILINE)


def numbers(text: str) -> set[tuple[str, int]]:
    """The figures and tables of the paper that a chapter's text sets one of its own beside, or heads a section with."""
    found = {(kind, int(number)) for kind, number in HEADED.findall(text)}
    for passage in re.split(r"\n\s*\n", text):
        passage = " ".join(passage.split())
        if COUNTERPART.search(passage):
            for kind, listed in NAMED.findall(passage):
                found |= {(kind, int(number)) for number in re.findall(r"\d+", listed)}
    return found


def in_the_book() -> set[tuple[str, int]]:
    found = set()
    for source in sorted((ROOT / "notebooks").glob("*.py")):
        text = "\n\n".join(cell.source for cell in jupytext.read(source).cells if cell.cell_type == "markdown")
        found |= numbers(text)
    return found


@pytest.mark.parametrize(
    "text, expected",
    [
        ("{numref}`fig-a` is the\npaper's Figure 2a.", {("Figure", 2)}),
        ("{numref}`fig-a`: the paper's Figures 3, 10 and 11", {("Figure", 3), ("Figure", 10), ("Figure", 11)}),
        ("The paper's Figure 3 differs.", set()),
        ("{numref}`fig-a` shows it.\n\nSo does the paper's Figure 3.", set()),
        ("# Table 2: CIFAR-10\n\ntext", {("Table", 2)}),
        ("{numref}`fig-a` is our Figure 3.", set()),
    ],
)
def test_what_counts_as_being_there(text, expected):
    assert numbers(text) == expected


def test_each_figure_and_table_of_the_paper_is_in_the_book():
    found = in_the_book()
    missing = ALL - found
    assert missing - NOT_YET == set(), "these are gone"
    assert NOT_YET - missing == set(), "these are there now: take them out of NOT_YET"
    assert found <= ALL, "the paper has no such figure or table"
