"""The book as one PDF: what is asked for, what is printed, and what is said when it cannot be."""

import errno
import shutil

import pytest

from pixeldefend import pages, pdf
from pixeldefend.pages import BookError

PAGE = """<html><head><title>x</title></head><body>
<a class="a" href="#here">x</a><a href="intro.html#here">x</a><a href="../_downloads/1/cell.json">x</a>
<a href="https://x.org/">x</a><a href="mailto:a@x.org">x</a><p id="here">y</p></body></html>"""


def note_published(root):
    note = pages._published(root)
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(pages.digest_pages(root))


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout whose book has been built, and a Sphinx that writes `PAGE`."""
    (tmp_path / "book").mkdir()
    (tmp_path / "book" / "execution.md").write_text("# x\n")
    note_published(tmp_path)

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


def test_a_book_that_was_built_in_part_is_not_printed(checkout, browser):
    browser('echo "%PDF-1.4" > "$pdf"')
    (checkout / "book" / "notebooks").mkdir()
    (checkout / "book" / "notebooks" / "01_a.ipynb").write_text("{}")
    with pytest.raises(BookError, match="not those of a finished build: build the book again"):
        pdf.make_pdf(checkout)
    note_published(checkout)
    assert pdf.make_pdf(checkout).is_file()


def test_nothing_is_printed_while_a_build_runs(checkout, browser):
    browser('echo "%PDF-1.4" > "$pdf"')
    with pages.alone(checkout), pytest.raises(BookError, match="another build is running here"):
        pdf.make_pdf(checkout)


def test_it_may_be_put_on_another_file_system(checkout, browser, monkeypatch):
    browser('echo "%PDF-1.4" > "$pdf"')
    elsewhere, rename = checkout / "elsewhere", pdf.os.rename

    def across(source, destination, **options):
        if (elsewhere in pdf.Path(source).parents) != (elsewhere in pdf.Path(destination).parents):
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        rename(source, destination, **options)

    monkeypatch.setattr(pdf.os, "rename", across)
    monkeypatch.setattr(pdf.os, "replace", across)
    printed = pdf.make_pdf(checkout, destination=elsewhere / "book.pdf")
    assert printed.read_text() == "%PDF-1.4\n" and list(elsewhere.iterdir()) == [printed]


def test_the_command_shows_no_traceback_of_a_machines_faults(monkeypatch, capsys):
    def fail(**options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pdf, "make_pdf", fail)
    assert pdf.main([]) == 1
    assert capsys.readouterr().err == "no PDF was made: [Errno 28] No space left on device\n"


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
