"""The book as one PDF: what is asked for, what is printed, and what is said when it cannot be."""

import shutil

import pytest

from pixeldefend import pdf
from pixeldefend.pages import BookError

PAGE = """<html><head><title>x</title></head><body>
<a class="a" href="#here">x</a><a href="intro.html#here">x</a><a href="../_downloads/1/cell.json">x</a>
<a href="https://x.org/">x</a><a href="mailto:a@x.org">x</a><p id="here">y</p></body></html>"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose book has been built, and a Sphinx that writes `PAGE`."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "execution.md").write_text("# x\n")

    def run(root, output, *, builder):
        assert (root, builder) == (tmp_path, "singlehtml")
        folder = output / "_build" / "singlehtml"
        folder.mkdir(parents=True)
        (folder / "intro.html").write_text(PAGE)

    monkeypatch.setattr(pdf, "run_jupyter_book", run)
    return tmp_path


@pytest.fixture
def browser(tmp_path, monkeypatch):
    """Makes a browser of a shell script's lines; it finds its arguments in $@ and the PDF's path in $pdf."""

    def make(script):
        path = tmp_path / "browser"
        path.write_text('#!/bin/sh\nfor a in "$@"; do case $a in --print-to-pdf=*) pdf=${a#*=};; esac; done\n' + script)
        path.chmod(0o755)
        monkeypatch.setenv("CHROMIUM", str(path))

    return make


def test_without_a_browser_it_says_what_to_install(checkout, monkeypatch, capsys):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(pdf.shutil, "which", lambda name: None)
    monkeypatch.setattr(pdf, "ROOT", checkout)
    assert pdf.main([]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("no PDF was made: a PDF needs Chromium or Chrome: install it (Debian, Ubuntu: apt")
    monkeypatch.setenv("CHROMIUM", "lynx")
    with pytest.raises(BookError, match="there is no lynx, which CHROMIUM names"):
        pdf.find_browser()


def test_a_book_that_was_not_built_is_not_printed(checkout, browser):
    browser("exit 0")
    (checkout / "book" / "execution.md").unlink()
    with pytest.raises(BookError, match="build it first"):
        pdf.make_pdf(checkout)


def test_what_the_browser_prints_is_put_in_place(checkout, browser):
    browser('echo "%PDF-1.4" > "$pdf"; for a in "$@"; do echo "$a" >> "$pdf"; done')
    printed = pdf.make_pdf(checkout)
    assert printed == checkout / "_build" / "pixeldefend.pdf"
    arguments = printed.read_text().splitlines()
    assert arguments[-1].startswith("file://") and arguments[-1].endswith("/singlehtml/intro.html")
    assert "--headless" in arguments


@pytest.mark.parametrize(
    "script, message",
    [('echo "starting"; echo "cannot open display"; exit 3', r"made no PDF \(exit code 3\): cannot open display"),
     ("exit 0", r"made no PDF \(exit code 0\): it said nothing"),
     ('echo "<html>" > "$pdf"', "made no PDF")],
    ids=["fails", "writes nothing", "writes another thing"],
)  # fmt: skip
def test_a_browser_that_fails_leaves_the_older_pdf(checkout, browser, script, message):
    browser(script)
    older = checkout / "_build" / "pixeldefend.pdf"
    older.parent.mkdir()
    older.write_text("older")
    with pytest.raises(BookError, match=message):
        pdf.make_pdf(checkout)
    assert older.read_text() == "older"


def test_links_to_files_beside_the_page_are_taken_out():
    html = pdf.for_print(PAGE)
    assert html.count('href="#here"') == 2 and "_downloads" not in html and "intro.html" not in html
    assert 'href="https://x.org/"' in html and 'href="mailto:a@x.org"' in html
    assert html.count("</head>") == 1 and "@page" in html
    folded = '<details class="sd-card x"></details><details class="hide"></details>'
    assert pdf.for_print(PAGE + folded).count("<details open") == 1
    with pytest.raises(BookError, match="no head"):
        pdf.for_print("<html></html>")


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="there is no Chromium")
def test_chromium_prints_a_page(checkout, monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    content = pdf.make_pdf(checkout).read_bytes()
    assert content.startswith(b"%PDF") and b"x.org" in content and str(checkout).encode() not in content
