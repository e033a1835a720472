"""The book that was last built: every figure and table of the paper is on a page, and is not empty there.

Not among what ``make test`` runs, as there may be no book, or an old one: ``make book``, then ``make test ARGS="-m built"``.
"""

import re
from pathlib import Path
from urllib.parse import urldefrag

import pytest
from bs4 import BeautifulSoup
from test_paper_coverage import ALL, NAMED, NOT_YET

from pixeldefend.paths import ROOT
from pixeldefend.study.conditions import UPPER_ROWS

PAGES = ROOT / "_build" / "html" / "notebooks"

pytestmark = pytest.mark.built


@pytest.fixture(scope="module")
def pages() -> dict[str, BeautifulSoup]:
    found = sorted(PAGES.glob("*.html"))
    assert found, "no book has been built"
    return {path.name: BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser") for path in found}


def is_filled(target) -> bool:
    """Whether a figure has a picture, or a table has numbers."""
    if target.name != "table" and (picture := target.find("img")):
        return (PAGES / picture["src"]).stat().st_size > 1_000 and len(picture.get("alt", "")) > 20
    return any(character.isdigit() for cell in target.find_all("td") for character in cell.get_text())


def counterparts(pages: dict[str, BeautifulSoup]) -> set[tuple[str, int]]:
    """What a paragraph sets a figure or a table of the book beside that is really there."""
    found = set()
    for name, page in pages.items():
        for paragraph in page.select("article p"):
            links = [urldefrag(link["href"]) for link in paragraph.find_all("a", href=True)]
            named = [(pages.get(Path(where).name or name), anchor) for where, anchor in links if anchor]
            there = [target for on, anchor in named if on and (target := on.find(["figure", "table"], id=anchor))]
            if there and all(map(is_filled, there)):
                text = " ".join(paragraph.get_text().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
                for kind, listed in NAMED.findall(text):
                    found |= {(kind, int(number)) for number in re.findall(r"\d+", listed)}
    return found


def tables(pages: dict[str, BeautifulSoup]) -> set[tuple[str, int]]:
    """The paper's tables that have a section of their own, and in it a table of all baselines."""
    found = set()
    for page in pages.values():
        for section in page.select("article section"):
            headed = re.search(r"\bTable (\d+)", section.find(["h1", "h2", "h3", "h4"]).get_text())
            if headed and any(len(table.find_all("tr")) > len(UPPER_ROWS) for table in section.find_all("table")):
                found.add(("Table", int(headed[1])))
    return found


def test_each_figure_and_table_of_the_paper_is_on_a_built_page(pages):
    assert ALL - NOT_YET <= counterparts(pages) | tables(pages)


def test_an_empty_figure_or_table_would_be_noticed(pages):
    assert not is_filled(BeautifulSoup("<table><tr><td>none</td></tr></table>", "html.parser").table)
    assert not is_filled(BeautifulSoup("<figure><p>text</p></figure>", "html.parser").figure)


def test_every_picture_says_what_it_shows(pages):
    silent = [f"{name}: {picture['src']}" for name, page in pages.items() for picture in page.select("article img")
              if len(picture.get("alt", "")) <= 20]  # fmt: skip
    assert not silent
