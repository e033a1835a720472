"""A tiny book, really built twice: the same pages each time, whole, with nothing loaded from outside."""

import json
import re
import shutil
from html import unescape
from urllib.parse import unquote

import pytest
import yaml

from pixeldefend import book, pages, stamps
from pixeldefend.paths import ROOT
from pixeldefend.study.records import write_signed

CHAPTER = '''\
# %% [markdown]
# # A chapter
#
# {numref}`fig-a` is a figure, $x^2$ a formula, and {glue:text}`share:.2f` a number from a record.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from pathlib import Path

import matplotlib.pyplot as plt
from myst_nb import glue

from pixeldefend.study.records import read_signed

found = read_signed(Path("data/records/laptop/fashion-mnist-cell.json").resolve())["results"]
glue("share", found["share"], display=False)

# %% mystnb={"figure": {"name": "fig-a", "caption": "A figure."}, "image": {"alt": "A line."}} tags=["hide-input"]
plt.plot([0, found["share"]]);
'''
TOC = """\
format: jb-book
root: intro
chapters:
  - file: notebooks/01_a
  - file: models
    sections:
      - glob: models/*
  - file: execution
"""
REPOSITORY = "someone/copy"
CHANGES = {"execution.html", "execution.md", "searchindex.js"}  # times stand in them; the search index holds their words


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A checkout with one chapter, this book's configuration, one density's card and one record."""
    root = tmp_path_factory.mktemp("checkout")
    for name in ("book/_ext", "book/_static", "vendor"):
        shutil.copytree(ROOT / name, root / name)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    (root / "_config.yml").write_text(config, encoding="utf-8")
    (root / "book" / "references.bib").write_text("")
    (root / "book" / "_toc.yml").write_text(TOC)
    (root / "book" / "intro.md").write_text("# A book\n\n{doc}`execution` says how it was made.\n")
    (root / "notebooks").mkdir()
    (root / "notebooks" / "01_a.py").write_text(CHAPTER)
    (root / "notebooks" / "params.yml").write_text("laptop:\n  common: {profile: laptop}\n")
    for kind, name in (("pixelcnn", "fashion-mnist"), ("classifiers", "fashion-mnist-resnet-normal")):
        shutil.copytree(ROOT / "data" / "weights" / kind / name, root / "data" / "weights" / kind / name)
    made = {"seconds": 2.5, "device": "cpu", "threads": 1, "torch": "2.0"}
    record = {"config": {"density": "none"}, "results": {"share": 0.25}, "made": made}
    write_signed(record, root / "data" / "records" / "laptop" / "fashion-mnist-cell.json")
    return root


@pytest.fixture(scope="module")
def builds(project):
    """The folders of two builds, the second from scratch but for the records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GITHUB_REPOSITORY", REPOSITORY)
        first = book.build("laptop", root=project, destination=project / "first").parent
        shutil.rmtree(project / "book" / "notebooks")
        return first, book.build("laptop", root=project, destination=project / "second").parent


def files(folder):
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def test_two_builds_from_the_same_records_give_the_same_pages(builds):
    first, second = map(files, builds)
    assert set(first) == set(second) and "notebooks/01_a.html" in first
    different = {name for name in first if first[name].read_bytes() != second[name].read_bytes()}
    notebook = "_sources/notebooks/01_a.ipynb"  # how long it ran is in its metadata
    assert {name for name in different if name.rpartition("/")[2] not in CHANGES} <= {notebook}
    one, two = ({**stamps.read_stamp(found[notebook]), "seconds": 0} for found in (first, second))
    assert one == two


def test_no_page_asks_another_host_or_leads_nowhere(builds):
    assert pages.check_pages(builds[0]) == []


def test_buttons_lead_to_files_that_exist(builds, project):
    """Links into the repository, for reading, editing and launching, name files that git would hold."""
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    host, branch = f"https://github.com/{REPOSITORY}", config["repository"]["branch"]
    led = set()
    for page in builds[0].rglob("*.html"):
        html = unescape(page.read_text(encoding="utf-8"))
        assert config["repository"]["url"] not in html
        led |= set(re.findall(rf"{re.escape(host)}/(?:blob|edit)/{branch}/([^\"'?#]+)", html))
        for address in re.findall(r"https://mybinder.org/v2/[^\"']+", html):
            assert address.startswith(f"https://mybinder.org/v2/gh/{REPOSITORY}/{branch}?")
            led |= set(re.findall(r"urlpath=(?:lab/)?tree/([^\"'&]+)", unquote(address)))
    assert "notebooks/01_a.py" in led and "book/intro.md" in led
    written = ("book/notebooks", "book/models", "book/execution")
    assert not {path for path in led if not (project / path).is_file() or path.startswith(written)}


def test_a_built_book_is_known_as_one(builds, project):
    """So that the next build may replace it, and so that it can be printed."""
    pages.check_destination(builds[0])
    assert pages.is_published(project)


def test_the_pages_show_what_was_run(builds):
    chapter = (builds[0] / "notebooks" / "01_a.html").read_text(encoding="utf-8")
    assert "0.25" in chapter and "A figure." in chapter and 'alt="A line."' in chapter
    record = (builds[0] / "execution.html").read_text(encoding="utf-8")
    assert "fashion-mnist-cell" in record and "<details" in record


def test_the_models_have_their_pages_with_pictures(builds):
    page = (builds[0] / "models" / "fashion-mnist.html").read_text(encoding="utf-8")
    assert "PixelCNN++ for Fashion-MNIST" in page and "license:" not in page
    assert any(name.startswith("_images/") and name.endswith(".png") for name in files(builds[0]))
    scores = json.loads((ROOT / "data/weights/pixelcnn/fashion-mnist/scores.json").read_text())
    models = (builds[0] / "models.html").read_text(encoding="utf-8")
    assert 'href="models/fashion-mnist.html"' in models and scores["fingerprint"] in models
