"""Publishing the built pages, and the check that they are sound."""

import subprocess
import sys

import pytest

from pixeldefend import pages, paths

# -- publishing -------------------------------------------------------------------------------------------------------


def jupyter_book_that_writes(files):
    def run(root, output):
        for name, html in files.items():
            path = output / "_build" / "html" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(html)

    return run


@pytest.mark.parametrize(
    "files, message",
    [({"index.html": ""}, "did not write intro.html"),
     ({"index.html": "", "intro.html": "<a href='gone.html'>x</a>"}, "intro.html: gone.html leads nowhere")],
    ids=["missing", "dead-link"],
)  # fmt: skip
def test_last_good_book_stays_when_the_new_one_is_unsound(tmp_path, monkeypatch, files, message):
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "index.html").write_text("good")
    monkeypatch.setattr(pages, "run_jupyter_book", jupyter_book_that_writes(files))
    with pytest.raises(pages.BookError, match=message):
        pages.publish(tmp_path, tmp_path / "html")
    assert (tmp_path / "html" / "index.html").read_text() == "good"


def test_new_book_replaces_the_old_one_whole(tmp_path, monkeypatch):
    (tmp_path / "html").mkdir()
    (tmp_path / "html" / "gone.html").write_text("a chapter that is no more")
    monkeypatch.setattr(pages, "run_jupyter_book", jupyter_book_that_writes({"index.html": "", "intro.html": ""}))
    assert pages.publish(tmp_path, tmp_path / "html") == tmp_path / "html" / "index.html"
    assert sorted(path.name for path in (tmp_path / "html").iterdir()) == ["index.html", "intro.html"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_build", "html"]


def test_a_folder_that_cannot_be_moved_leaves_the_old_one(tmp_path, monkeypatch):
    def move(new, destination):
        destination.mkdir()
        (destination / "half").write_text("")
        raise OSError("no space left")

    for name in ("new", "book"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of.html").write_text(name)
    monkeypatch.setattr(paths.shutil, "move", move)
    with pytest.raises(OSError, match="no space left"):
        paths.replace_folder(tmp_path / "new", tmp_path / "book")
    assert (tmp_path / "book" / "of.html").read_text() == "book"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["book", "new"]


def test_what_others_call_old_is_left_alone(tmp_path):
    for name in ("new", "book", "book.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "of.html").write_text(name)
    paths.replace_folder(tmp_path / "new", tmp_path / "book")
    left = {path.name: (path / "of.html").read_text() for path in tmp_path.iterdir()}
    assert left == {"book": "new", "book.old": "book.old"}


def test_only_a_new_or_an_empty_folder_or_a_book_is_a_destination(tmp_path):
    pages.check_destination(tmp_path / "site")
    site = tmp_path / "site"
    site.mkdir()
    pages.check_destination(site)
    write(site, {"index.html": "somebody's own"})
    with pytest.raises(ValueError, match="site is no built book"):
        pages.check_destination(site)
    write(site, dict.fromkeys(pages.IN_EVERY_BOOK, ""))
    pages.check_destination(site)
    with pytest.raises(ValueError, match="intro.html is no built book"):
        pages.check_destination(site / "intro.html")


def test_a_book_that_changed_since_it_was_published_is_not_the_published_one(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "run_jupyter_book", jupyter_book_that_writes({"index.html": "", "intro.html": ""}))
    (tmp_path / "book" / "notebooks").mkdir(parents=True)
    chapter = tmp_path / "book" / "notebooks" / "01_a.ipynb"
    chapter.write_text("{}")
    assert not pages.is_published(tmp_path)
    pages.publish(tmp_path, tmp_path / "html")
    assert pages.is_published(tmp_path)
    chapter.write_text("{} ")
    assert not pages.is_published(tmp_path)
    pages.publish(tmp_path, tmp_path / "html")
    (tmp_path / "book" / "execution.md").write_text("# x")
    assert not pages.is_published(tmp_path)


def test_a_killed_build_keeps_nobody_out(tmp_path):
    holder = """if True:
        import sys, time
        from pathlib import Path
        from pixeldefend.pages import alone
        with alone(Path(sys.argv[1])):
            print("held", flush=True)
            time.sleep(600)"""
    command = [sys.executable, "-c", holder, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with pytest.raises(pages.BookError, match="another build is running here"), pages.alone(tmp_path):
            pass
        other.kill()
    for _ in range(2):
        with pages.alone(tmp_path):
            pass


def test_jupyter_book_failure_is_told_with_its_warnings(tmp_path):
    """A folder without a book: the real jupyter-book stops, and its own words are in the message."""
    (tmp_path / "book").mkdir()
    with pytest.raises(pages.BookError, match="jupyter-book stopped with exit code"):
        pages.run_jupyter_book(tmp_path, tmp_path / "out")


# -- the check of the pages -------------------------------------------------------------------------------------------

SOUND = {
    "index.html": "<meta http-equiv='Refresh' content='0; url=a/b.html'><link rel='canonical' href='https://x.org/'>",
    "a/b.html": "<h1 id='top-part'>x</h1><a href='#top-part'>x</a><a href='../index.html'>x</a><a href='#'>x</a>"
    "<a href='https://x.org/far'>x</a><a href='mailto:a@x.org'>x</a><img src='data:image/png;base64,AA=='>"
    "<img src='../_static/i.png' srcset='../_static/i.png 2x'><script src='../_static/s.js?v=1'></script>"
    "<script>const home = 'https://x.org/';</script><style>p {background: url(../_static/i.png)}</style>"
    "<a href='?q=1'>x</a><a href='../a/b.html#top-part'>x</a><a name='old%20x'></a>",
    "_static/i.png": "", "_static/s.js": "", "_static/c.css": "@import 'other.css'; p {background: url(data:image/x)}",
    "_static/macros.html": "<script src='https://x.org/ignored.js'></script>",
}  # fmt: skip


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_sound_pages_are_accepted(tmp_path):
    assert pages.check_pages(write(tmp_path, SOUND)) == []


@pytest.mark.parametrize(
    "html, problem",
    [
        ("<script src='https://x.org/s.js'></script>", "loads https://x.org/s.js"),
        ("<img src='//x.org/i.png'>", "loads //x.org/i.png"),
        ("<img srcset='a/b.html 1x, http://x.org/i.png 2x'>", "loads http://x.org/i.png"),
        ("<link rel='stylesheet' href='https://x.org/c.css'>", "loads https://x.org/c.css"),
        ("<link rel='preconnect' href='https://x.org'>", "loads https://x.org"),
        ("<iframe src='https://x.org/'></iframe>", "loads https://x.org/"),
        ("<meta http-equiv='refresh' content='0; URL=https://x.org/'>", "loads https://x.org/"),
        ("<style>@import 'https://x.org/c.css';</style>", "loads https://x.org/c.css"),
        ("<p style='background: url(https://x.org/i.png)'>", "loads https://x.org/i.png"),
        ("<script type='module'>import x from 'https://x.org/m.js'</script>", "loads https://x.org/m.js"),
        ("<script>fetch('https://x.org/d.json')</script>", "loads https://x.org/d.json"),
        ("<script>document.createElement('script').src = '//x.org/s.js'</script>", "loads //x.org/s.js"),
        ("<script src='_static/none.js'></script>", "_static/none.js leads nowhere"),
        ("<a href='gone.html'>x</a>", "gone.html leads nowhere"),
        ("<a href='/index.html'>x</a>", "/index.html starts at the host's root: a book in a folder has none"),
        ("<a href='../../outside.html'>x</a>", "../../outside.html leads out of the book"),
        ("<a href='#nothing'>x</a>", "#nothing names an anchor that is not there"),
        ("<a href='a/b.html#nothing'>x</a>", "a/b.html#nothing names an anchor that is not there"),
        ("<a href='a'>x</a>", "a leads nowhere"),
    ],
)  # fmt: skip
def test_unsound_page_is_refused(tmp_path, html, problem):
    write(tmp_path, SOUND | {"new.html": html})
    assert pages.check_pages(tmp_path) == [f"new.html: {problem}"]


def test_style_sheet_that_loads_from_outside_is_refused(tmp_path):
    write(tmp_path, SOUND | {"_static/f.css": "@font-face {src: url('https://x.org/f.woff2')}"})
    assert pages.check_pages(tmp_path) == ["_static/f.css: loads https://x.org/f.woff2"]


def test_folder_without_pages_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no HTML pages"):
        pages.check_pages(tmp_path)
