"""Build the book: text notebooks -> executed notebooks -> checked HTML, so that every number on a page has been run.

A notebook is run again only when something it depends on changed: an interrupted build goes on where it stopped.
"""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from pixeldefend.backmatter import write_pages
from pixeldefend.execution import Project, checked_parameters, run_notebook
from pixeldefend.pages import BookError, alone, check_destination, check_pages, publish
from pixeldefend.paths import ROOT
from pixeldefend.stamps import digest_package, read_stamp
from pixeldefend.study.compare import Compared, compare, set_aside
from pixeldefend.study.store import RECOMPUTE, STALE
from pixeldefend.study.verify import Disagreement, Verified, verify

__all__ = ["BookError", "Project", "build", "check_pages", "main", "run_notebook"]

VERIFIED = {"laptop": ("laptop", "paper"), "paper": ("paper",)}  # a build's profile: those whose records it shows and checks
ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, never one that lies in the home folder
    "PYTHONHASHSEED": "0",  # sets and dictionaries print in the same order every time
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger otherwise warns about frozen modules
}


def build(profile: str = "laptop", *, notebooks: Sequence[str] | None = None, recompute: bool | str = False,
          check: bool = True, seed: int | None = None, destination: str | Path | None = None,
          root: str | Path = ROOT) -> Path:  # fmt: skip
    """Run the notebooks that need it and build the HTML book.

    Args:
        profile: a profile of ``notebooks/params.yml``: ``"smoke"``, ``"laptop"`` or ``"paper"``.
        notebooks: names without suffix of the only notebooks to run; the others are taken as they were last executed.
        recompute: ``True``: run every notebook; ``PIXELDEFEND_RECOMPUTE`` tells them to load no record older than this
            build. Of all notebooks it goes on, where it is interrupted, when it is asked for again with the same code, and
            in the end says by how much the results differ from those that were there at first. "stale": only make those
            anew that were made with other weights or settings; without it they stop the build.
        check: first compute a random sample of the committed records again (see `study.verify`), also of those of all
            test images, which the laptop's book shows beside its own. Not done for profile "smoke", which uses none, for
            records that ``recompute`` is to compute anyway, nor for chosen ``notebooks``.
        seed: of that sample; by default the time.
        destination: folder for the pages, ``_build/html`` unless given: a new or an empty one, or one with a built book,
            which is replaced.
        root: the checkout whose book is built.

    Returns:
        The path of the book's ``index.html``.

    Raises:
        ValueError: an unknown profile, notebook, parameter, or thing to recompute, or a destination that holds other things.
        BookError: another build is running, a record does not hold what its configuration gives, a cell failed, or the pages
            have warnings, dead links or outside loads. The pages of the last good build stay as they were.
    """
    if recompute not in (False, True, STALE):
        raise ValueError(f"recompute must be True, False or {STALE!r}, not {recompute!r}")
    project = Project(Path(root).resolve())
    pages = Path(destination).resolve() if destination else project.root / "_build" / "html"
    if destination:  # the other folder is nobody's but a build's
        check_destination(pages)
    with alone(project.root):
        return _build(project, profile, notebooks, recompute, check, seed, pages)


def _build(project: Project, profile: str, notebooks: Sequence[str] | None, recompute: bool | str, check: bool,
           seed: int | None, pages: Path) -> Path:  # fmt: skip
    chosen = _choose(project, notebooks)
    parameters = {name: checked_parameters(project, name, profile) for name in chosen}
    wanted = VERIFIED.get(profile, ()) if check and notebooks is None else ()
    checked: list[Verified | Compared] = [
        _check_records(project, name, seed) for name in wanted if recompute is not True or name != profile
    ]
    everything = recompute is True and notebooks is None
    begun, replaced = project.stage / f"recomputing-{profile}", project.stage / f"replaced-{profile}"
    since = time.time() if recompute is True else None  # of chosen notebooks; what was begun with them never goes on
    if everything:
        since = _begin(begun, digest_package(project.root), project.records(profile), replaced)
    with _environment(recompute if since is None else str(since)):
        for name in chosen:
            run_notebook(project, name, parameters[name], since=since)
    _remove_stale(project)
    if everything:
        checked.append(compare(replaced, project.records(profile), profile, since=since))
        print(f"stored records: {checked[-1]}", flush=True)
    stamps = {name: read_stamp(project.executed / f"{name}.ipynb") for name in project.names()}
    write_pages(project.root, stamps, checked=checked)
    index = publish(project.root, pages)
    if everything:
        begun.unlink(missing_ok=True)
        shutil.rmtree(replaced, ignore_errors=True)
    return index


def _begin(begun: Path, code: str, records: Path, replaced: Path) -> float:
    """When this computing of everything began (seconds since 1970): now, or when one did that was not finished.

    That one goes on only where the digest of the package is still ``code``: results of other code are not to count. What is
    in ``records`` is kept in ``replaced``, to be compared with in the end; not again where other code had begun, because
    what that has made by now was never finished and interests nobody.
    """
    if begun.exists():
        then, _, made_with = begun.read_text(encoding="utf-8").partition(" ")
        at = time.strftime("%Y-%m-%d %H:%M", time.localtime(float(then)))
        if made_with == code:
            print(f"going on with what was begun at {at}; to begin again, remove {begun.parent.name}/{begun.name} in _build",
                  flush=True)  # fmt: skip
            return float(then)
        print(f"the code has changed since {at}, when everything began to be computed: beginning again", flush=True)
    else:
        set_aside(records, replaced)
    since, partial = time.time(), begun.with_suffix(".partial")
    partial.write_text(f"{since} {code}", encoding="utf-8")
    os.replace(partial, begun)
    return since


def _choose(project: Project, notebooks: Sequence[str] | None) -> list[str]:
    names = project.names()
    chosen = names if notebooks is None else list(notebooks)
    unknown = sorted(set(chosen) - set(names))
    if unknown:
        raise ValueError(f"no such notebook: {', '.join(unknown)}; there are: {', '.join(names) or 'none'}")
    return chosen


def _check_records(project: Project, profile: str, seed: int | None) -> Verified:
    print(f"stored records of profile {profile}: computing a few images of each again ...", flush=True)
    try:
        verified = verify(project.records(profile), profile, seed=seed)
    except (Disagreement, ValueError) as error:
        raise BookError(str(error)) from error
    print(f"stored records: {verified}", flush=True)
    return verified


@contextlib.contextmanager
def _environment(recompute: str | bool) -> Iterator[None]:
    """The environment variables the kernels inherit, put back afterwards; ``recompute``: of what `Lab` is to make anew."""
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT | ({RECOMPUTE: recompute} if recompute else {}))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _remove_stale(project: Project) -> None:
    for path in project.executed.glob("*.ipynb"):
        if path.stem not in project.names():
            path.unlink()


def add_recompute(parser: argparse.ArgumentParser) -> None:
    """``--recompute [stale]``, as `build` takes it."""
    parser.add_argument("--recompute", nargs="?", const=True, default=False, choices=[True, STALE], metavar=STALE,
                        help="run everything again, or make anew what was made with other weights or settings")  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """The command line ``python -m pixeldefend.book``; returns 0, or 1 after one clear message."""
    parser = argparse.ArgumentParser(prog="python -m pixeldefend.book", description="Build the book into _build/html.")
    parser.add_argument("--profile", default="laptop", help="a profile of notebooks/params.yml (default: laptop)")
    parser.add_argument("--notebooks", nargs="+", metavar="NAME", help="run only these, keep the others as they are")
    add_recompute(parser)
    parser.add_argument("--no-verify", dest="check", action="store_false",
                        help="trust the committed records; otherwise a few images of each are computed again")  # fmt: skip
    parser.add_argument("--verify-seed", dest="seed", type=int, metavar="N", help="repeat a build's choice of those")
    parser.add_argument("--destination", type=Path, help="folder for the pages (default: _build/html)")
    options = parser.parse_args(argv)
    try:
        index = build(**vars(options))
    except (BookError, ValueError, OSError, ImportError) as error:
        print(f"the book was not built: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the notebooks that finished are kept, and the next build goes on from there", file=sys.stderr)
        return 130
    print(f"the book is built: {os.path.relpath(index)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
