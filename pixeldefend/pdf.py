"""The book as one PDF: Sphinx puts all pages on one, and Chromium, which runs the formulas' script, prints it.

``python -m pixeldefend.pdf`` prints the book as it was last built: build it first (``make book pdf`` does both).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pixeldefend.pages import BookError, alone, is_published, run_jupyter_book
from pixeldefend.paths import ROOT

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
IN_APPLICATIONS = ("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
                   "/Applications/Chromium.app/Contents/MacOS/Chromium")  # fmt: skip
PATIENCE = 60_000  # milliseconds of the page's own time: formulas are set in it, and it passes faster than ours
PRINT_STYLE = """<style media="print">
@page {size: A4; margin: 16mm 14mm}
.bd-header, .bd-header-article, .bd-sidebar-primary, .bd-sidebar-secondary, .prev-next-footer, .headerlink,
.copybtn, details.hide {display: none !important}
.bd-article-container, .bd-main, .bd-content {max-width: none !important; display: block !important}
figure, table tr, .admonition, .math {break-inside: avoid}
h1 {break-before: page}
pre {white-space: pre-wrap !important; overflow-wrap: anywhere}
h1, h2, h3, figcaption, caption {break-after: avoid} figcaption {break-after: auto}
.pst-scrollable-table-container, .cell_output {overflow: visible !important}
.sd-card, .sd-card-body {display: block !important; border: 0 !important; padding: 0 !important}
table.table {font-size: 7pt !important} table td {min-width: 0 !important}
table code {overflow-wrap: anywhere; white-space: normal}
</style></head>"""


def find_browser() -> str:
    """The command of a Chromium, or of a browser made from it; ``CHROMIUM`` names another one.

    Raises:
        BookError: there is none; the message says what to install.
    """
    named = os.environ.get("CHROMIUM")
    for name in [named] if named else [*BROWSERS, *IN_APPLICATIONS]:
        if found := shutil.which(name):
            return found
    raise BookError(f"there is no {named}, which CHROMIUM names" if named else
                    "a PDF needs Chromium or Chrome: install it (Debian, Ubuntu: apt install chromium; macOS: brew install "
                    "--cask chromium), or name one in the environment variable CHROMIUM")  # fmt: skip


def make_pdf(root: str | Path = ROOT, *, destination: str | Path | None = None) -> Path:
    """Print the book that was last built.

    Args:
        root: the checkout.
        destination: the PDF; ``_build/pixeldefend.pdf`` unless given.

    Returns:
        Its path.

    Raises:
        BookError: there is no Chromium, nothing to print, a chapter or page that is not as it was built, another build is
            running, Sphinx warned, or no PDF came out. An older PDF stays then.
    """
    browser, root = find_browser(), Path(root).resolve()
    destination = Path(destination).resolve() if destination else root / "_build" / "pixeldefend.pdf"
    with alone(root):
        _put(_printed(root, browser), destination)
    return destination


def _printed(root: Path, browser: str) -> Path:
    """A new PDF, in the stage."""
    if not (root / "book" / "execution.md").is_file():
        raise BookError("there is no book to print yet: build it first (make book)")
    if not is_published(root):
        raise BookError("the chapters and pages at hand are not those of a finished build: build the book again (make book)")
    stage = root / "_build" / "stage" / "pdf"
    shutil.rmtree(stage, ignore_errors=True)
    run_jupyter_book(root, stage, builder="singlehtml")
    (page,) = (stage / "_build" / "singlehtml").glob("intro.html")
    page.write_text(for_print(page.read_text(encoding="utf-8")), encoding="utf-8")
    printed = stage / "book.pdf"
    _print(browser, page, printed)
    return printed


def _put(printed: Path, destination: Path) -> None:
    """Move a file to its place, be it on another file system; it is never seen there half-written."""
    partial = destination.with_name(f".{destination.name}.partial")
    destination.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(printed, partial)
    os.replace(partial, destination)


def for_print(html: str) -> str:
    """The single page for paper: without what only a screen can use, and without links to files beside it.

    A browser would turn such a link into a path on this machine.
    """
    if html.count("</head>") != 1:
        raise BookError("the single page has no head, or several")
    html = re.sub(r'(<a\b[^>]*?)\shref="(?!#|[a-z]+:)[^"#]*(#[^"]*)?"', _inside, html)
    html = html.replace('<details class="sd-', '<details open class="sd-')  # nobody can unfold paper
    return html.replace("</head>", PRINT_STYLE)


def _inside(link: re.Match) -> str:
    return f'{link[1]} href="{link[2]}"' if link[2] else link[1]


def _print(browser: str, page: Path, output: Path) -> None:
    command = [browser, "--headless", "--disable-gpu", "--no-pdf-header-footer", f"--virtual-time-budget={PATIENCE}",
               f"--user-data-dir={output.parent / 'browser'}", f"--print-to-pdf={output}"]  # fmt: skip
    command += ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []  # Chromium refuses root otherwise
    try:
        done = subprocess.run([*command, page.as_uri()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              timeout=600)  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BookError(f"{Path(browser).name} did not finish within {error.timeout:.0f} s") from error
    if done.returncode or not output.is_file() or not output.read_bytes().startswith(b"%PDF"):
        last = (done.stdout.strip().splitlines() or ["it said nothing"])[-1]
        raise BookError(f"{Path(browser).name} made no PDF (exit code {done.returncode}): {last}")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line ``python -m pixeldefend.pdf``; returns 0, or 1 after one clear message."""
    parser = argparse.ArgumentParser(prog="python -m pixeldefend.pdf", description="Print the built book into one PDF.")
    parser.add_argument("--destination", type=Path, help="the file (default: _build/pixeldefend.pdf)")
    options = parser.parse_args(argv)
    try:
        printed = make_pdf(**vars(options))
    except (BookError, OSError, ImportError) as error:
        print(f"no PDF was made: {error}", file=sys.stderr)
        return 1
    print(f"the book is printed: {os.path.relpath(printed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
