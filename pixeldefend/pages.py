"""From executed notebooks to checked HTML: run jupyter-book aside, check its pages, then swap the new book in.

The book must open from a folder without a network, so :func:`check_pages` refuses any page that loads something from
another host, links to a file that is not there, or links to an anchor that its target does not have.
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from filelock import FileLock, Timeout

from pixeldefend.paths import replace_folder
from pixeldefend.stamps import digest_pages

LOADING = {  # attributes that make a browser fetch something without a click
    "script": ("src",), "img": ("src", "srcset"), "iframe": ("src",), "source": ("src", "srcset"), "embed": ("src",),
    "video": ("src", "poster"), "audio": ("src",), "track": ("src",), "object": ("data",), "input": ("src",),
    "image": ("href", "xlink:href"), "use": ("href", "xlink:href"),
}  # fmt: skip
NOT_LOADED = {"canonical", "next", "prev", "search", "author", "license", "alternate", "help", "index"}  # of <link rel>
IN_STYLE = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")
IN_SCRIPT = re.compile(r"""(?:\bfrom\s*|\bimport\s*\(?\s*|\bfetch\(\s*|\.src\s*=\s*)["'`]((?:https?:)?//[^"'`]+)""")
COLOUR = re.compile(r"\x1b\[[\d;]*m")  # jupyter-book colours its warnings even into a pipe
REFRESH = re.compile(r"url\s*=\s*['\"]?([^'\"]+)", re.IGNORECASE)
IN_EVERY_BOOK = ("index.html", "intro.html", ".buildinfo")


class BookError(RuntimeError):
    """The book cannot be built; the message says where and why, and the last good book is still in place."""


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep other builds in the checkout ``root`` out: they would write the same files. The lock ends with the process.

    Raises:
        BookError: one is running already.
    """
    (root / "_build").mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(root / "_build" / "lock").acquire(timeout=0)
    except Timeout:
        raise BookError("another build is running here: wait until it is finished, or stop it") from None
    with held:
        yield


def check_destination(folder: Path) -> None:
    """Refuse a folder for pages that holds anything but a built book: `publish` replaces all that is in it.

    Raises ``ValueError``.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not all((folder / name).is_file() for name in IN_EVERY_BOOK):
        raise ValueError(f"{folder} is no built book, and all in it would be replaced; choose a new folder or an empty one")


class _Page(HTMLParser):
    """What one page loads by itself, what it links to, and the anchors it offers."""

    def __init__(self, html: str):
        super().__init__()
        self.loads, self.links, self.anchors = [], [], set()
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attributes):
        values = {name: value for name, value in attributes if value}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        for name in LOADING.get(tag, ()):
            if name in values:
                self.loads += _addresses(values[name], is_set=name == "srcset")
        if tag == "link" and "href" in values and not NOT_LOADED & set(values.get("rel", "").lower().split()):
            self.loads.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        if tag == "meta" and values.get("http-equiv", "").lower() == "refresh":
            self.loads += REFRESH.findall(values.get("content", ""))
        self.loads += IN_STYLE.findall(values.get("style", ""))
        self._inside = tag

    def handle_endtag(self, tag):
        self._inside = ""

    def handle_data(self, data):
        if self._inside == "style":
            self.loads += IN_STYLE.findall(data)
        elif self._inside == "script":
            self.loads += IN_SCRIPT.findall(data)


def _addresses(value: str, *, is_set: bool) -> list[str]:
    if not is_set:
        return [value]
    return [candidate.split()[0] for candidate in value.split(",") if candidate.strip()]


def check_pages(folder: str | Path) -> list[str]:
    """Look for outside loads, dead relative links and missing anchors in a folder of HTML pages.

    Links that a reader must click may lead to other hosts; scripts, images, styles, frames and fonts may not. The
    style sheets in the folder are read too.

    Args:
        folder: where the pages lie; everything below it is checked, except HTML inside ``_static``.

    Returns:
        One line for each problem, sorted; an empty list for a sound book.

    Raises:
        FileNotFoundError: the folder holds no page at all.
    """
    folder = Path(folder).resolve()
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.html"))
             if "_static" not in path.relative_to(folder).parts}  # fmt: skip
    if not pages:
        raise FileNotFoundError(f"no HTML pages in {folder.name}/")
    problems = set()
    for path, page in pages.items():
        found = [_problem(address, path, folder, pages, loaded=True) for address in page.loads]
        found += [_problem(address, path, folder, pages, loaded=False) for address in page.links]
        problems |= {f"{path.relative_to(folder)}: {problem}" for problem in found if problem}
    for path in folder.rglob("*.css"):
        outside = [address for address in IN_STYLE.findall(path.read_text(encoding="utf-8")) if _is_outside(address)]
        problems |= {f"{path.relative_to(folder)}: loads {address}" for address in outside}
    return sorted(problems)


def _is_outside(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in ("http", "https", "ws", "wss", "ftp")


def _problem(address: str, page: Path, folder: Path, pages: dict[Path, _Page], *, loaded: bool) -> str | None:
    """What is wrong with one address on one page, or None."""
    if _is_outside(address):
        return f"loads {address}" if loaded else None
    parts = urlsplit(address)
    if parts.scheme:  # data:, mailto:, javascript: and the like ask nobody
        return None
    if parts.path.startswith("/"):
        return f"{address} starts at the host's root: a book in a folder has none"
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(folder):
        return f"{address} leads out of the book"
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return f"{address} leads nowhere"
    anchor = unquote(parts.fragment)
    if anchor and anchor != "top" and target in pages and anchor not in pages[target].anchors:
        return f"{address} names an anchor that is not there"
    return None


def publish(root: Path, destination: Path) -> Path:
    """Turn ``root/book`` into HTML in ``destination``, which changes only when every check passed.

    What the book was made of is noted, so that `is_published` knows it again.

    Returns:
        The ``index.html`` of the new book.

    Raises:
        BookError: jupyter-book warned or failed, a page it should have written is missing, or a page is unsound.
    """
    stage = root / "_build" / "stage" / "html"
    made_of = digest_pages(root)
    shutil.rmtree(stage, ignore_errors=True)  # jupyter-book never deletes the page of a chapter that is gone
    run_jupyter_book(root, stage)
    pages = stage / "_build" / "html"
    missing = [name for name in ("index.html", "intro.html") if not (pages / name).is_file()]
    if missing:
        raise BookError(f"jupyter-book reported success but did not write {' and '.join(missing)}")
    problems = check_pages(pages)
    if problems:
        raise BookError(f"{len(problems)} problem(s) in the built pages:\n  " + "\n  ".join(problems))
    replace_folder(pages, destination)
    _published(root).write_text(made_of, encoding="utf-8")
    return destination / "index.html"


def is_published(root: Path) -> bool:
    """Whether what lies in ``root/book`` is what the last good build published: since then one may have stopped half-way."""
    return _published(root).is_file() and _published(root).read_text(encoding="utf-8") == digest_pages(root)


def _published(root: Path) -> Path:
    return root / "_build" / "stage" / "published"


def run_jupyter_book(root: Path, output: Path, *, builder: str = "html") -> None:
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main(prog_name='jupyter-book')",
               "build", "book", "--path-output", str(output), "--builder", builder, "--all", "-W", "--keep-going",
               "-q"]  # fmt: skip
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        lines = COLOUR.sub("", done.stdout).splitlines()
        warnings = [line for line in lines if re.search(r"\b(WARNING|ERROR|CRITICAL)\b", line)]
        details = "\n  ".join(warnings or lines[-20:]).replace(f"{root}{os.sep}", "")
        raise BookError(f"jupyter-book stopped with exit code {done.returncode}:\n  {details}")
