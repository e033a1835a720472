"""Build the book: text notebooks -> executed notebooks -> checked HTML, so that every number on a page has been run.

A notebook is published only when it ran to its end without an error and without a word on stderr, and is run again
only when something it depends on changed: an interrupted build goes on where it stopped. What needs Jupyter is imported
where it is used, because the package itself must import without it.
"""

import argparse
import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pixeldefend.backmatter import write_pages
from pixeldefend.pages import BookError, alone, check_destination, check_pages, publish
from pixeldefend.paths import ROOT
from pixeldefend.stamps import STAMP, digest_inputs, digest_package, digest_records, read_stamp, versions
from pixeldefend.study.compare import Compared, compare, set_aside
from pixeldefend.study.records import USED
from pixeldefend.study.store import RECOMPUTE, STALE
from pixeldefend.study.verify import Disagreement, Verified, verify

__all__ = ["BookError", "Project", "build", "check_pages", "main", "run_notebook"]

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}
VERIFIED = {"laptop": ("laptop", "paper"), "paper": ("paper",)}  # a build's profile: those whose records it shows and checks
ENVIRONMENT = {
    "JUPYTER_PREFER_ENV_PATH": "1",  # this environment's kernel, never one that lies in the home folder
    "PYTHONHASHSEED": "0",  # sets and dictionaries print in the same order every time
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # the kernel's debugger otherwise warns about frozen modules
}


@dataclass(frozen=True)
class Project:
    """Where the parts of a book lie under one folder."""

    root: Path = ROOT

    @property
    def sources(self) -> Path:
        return self.root / "notebooks"

    @property
    def executed(self) -> Path:
        return self.root / "book" / "notebooks"

    @property
    def stage(self) -> Path:
        return self.root / "_build" / "stage"

    def records(self, profile: str) -> Path:
        return self.root / "data" / "records" / profile

    def source(self, name: str) -> Path:
        return self.sources / f"{name}.py"

    def names(self) -> list[str]:
        """The notebooks' names, in the order of their files."""
        return sorted(path.stem for path in self.sources.glob("*.py"))


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
    parameters = {name: _parameters(project, name, profile) for name in chosen}
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


def _parameters(project: Project, name: str, profile: str) -> dict:
    """The profile's common parameters with this notebook's own on top, each of them checked against the notebook."""
    import yaml

    profiles = yaml.safe_load((project.sources / "params.yml").read_text(encoding="utf-8"))
    if profile not in profiles:
        raise ValueError(f"unknown profile {profile!r}; choose one of: {', '.join(profiles)}")
    strangers = sorted(set(profiles[profile]) - {"common", *project.names()})
    if strangers:
        raise ValueError(f"notebooks/params.yml, profile {profile}: no such notebook: {', '.join(strangers)}")
    parameters = profiles[profile].get("common", {}) | profiles[profile].get(name, {})
    declared = _declared_parameters(project, name)
    unknown = sorted(set(parameters) - declared)
    if unknown:  # papermill itself would only log this, and inject them all the same
        allowed = ", ".join(sorted(declared)) or "none"
        raise ValueError(f"notebooks/{name}.py has no parameter {', '.join(unknown)}; it has: {allowed}")
    return parameters


def _declared_parameters(project: Project, name: str) -> set[str]:
    import papermill

    return set(papermill.inspect_notebook(str(_stage_source(project, name))))


def _stage_source(project: Project, name: str) -> Path:
    """Write the text notebook as .ipynb with a kernel named in it: a bare py:percent file names none."""
    import jupytext

    notebook = jupytext.read(project.source(name))
    notebook.metadata["kernelspec"] = dict(KERNEL)
    path = project.stage / "source" / f"{name}.ipynb"
    _write_notebook(notebook, path)
    return path


def _write_notebook(notebook, path: Path) -> None:
    """Write with cell ids that depend on position alone: jupytext and papermill draw them at random."""
    import nbformat

    for position, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{position:03d}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)


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


def run_notebook(project: Project, name: str, parameters: dict, *, since: float | None = None) -> bool:
    """Execute one notebook and publish it in ``book/notebooks``, unless its executed copy is still up to date.

    ``since`` (seconds since 1970): a copy that was not made for what began then is not.

    Returns:
        True when it ran, False when its executed copy was kept.

    Raises:
        BookError: a cell failed, the kernel died, or a cell wrote to stderr; the published copy is left as it was.
    """
    # before the run: a source edited meanwhile must not count as run
    inputs = digest_inputs(project.root, project.source(name), parameters)
    published = project.executed / f"{name}.ipynb"
    stamp = read_stamp(published)
    made_from = digest_records(project.root, inputs, stamp.get("records", []))
    if stamp.get("made_from") == made_from and since in (None, stamp.get("since")):
        print(f"{name}: up to date", flush=True)
        return False
    print(f"{name}: running ...", flush=True)
    start = time.perf_counter()
    with _listing(project, name) as used:
        notebook = _execute(project, name, parameters)
    seconds = time.perf_counter() - start
    _refuse_stderr(notebook, name)
    _tidy(notebook)
    # The records after the run: a notebook may itself store those it computed, and has then seen them.
    begun = {} if since is None else {"since": since}
    notebook.metadata[STAMP] = {"made_from": digest_records(project.root, inputs, used), "parameters": parameters,
                                "records": used, "seconds": round(seconds, 1), **versions(), **begun}  # fmt: skip
    staged = project.stage / "executed" / f"{name}.ipynb"
    _write_notebook(notebook, staged)
    project.executed.mkdir(parents=True, exist_ok=True)
    os.replace(staged, published)
    print(f"{name}: ran in {seconds:.1f} s", flush=True)
    return True


@contextlib.contextmanager
def _listing(project: Project, name: str) -> Iterator[list[str]]:
    """A list that holds, afterwards, the records the notebook read or wrote: paths below the project's folder, sorted."""
    listing, before, used = project.stage / "used" / f"{name}.txt", os.environ.get(USED), []
    listing.parent.mkdir(parents=True, exist_ok=True)
    listing.write_text("", encoding="utf-8")
    os.environ[USED] = str(listing)
    try:
        yield used
    finally:
        os.environ.pop(USED) if before is None else os.environ.update({USED: before})
    found = {(project.root / line).resolve() for line in listing.read_text(encoding="utf-8").splitlines()}
    used += sorted(p.relative_to(project.root).as_posix() for p in found if p.is_relative_to(project.root) and p.exists())


def _execute(project: Project, name: str, parameters: dict):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    raw, staged = _stage_source(project, name), project.stage / "executed" / f"{name}.ipynb"
    staged.parent.mkdir(parents=True, exist_ok=True)
    try:
        return papermill.execute_notebook(str(raw), str(staged), parameters=parameters, cwd=str(project.root),
                                          progress_bar=False, start_timeout=120)  # fmt: skip
    except PapermillExecutionError as error:
        raise BookError(
            f"notebooks/{name}.py: cell {error.cell_index + 1} stopped with {error.ename}: {error.evalue}\n"
            f"  the cell begins: {_first_line(error.source)}\n  the notebook up to there: "
            f"{staged.relative_to(project.root)}"
        ) from error
    except RuntimeError as error:  # nbclient's DeadKernelError, for one: out of memory ends here
        raise BookError(f"notebooks/{name}.py: the kernel did not survive ({error})") from error


def _first_line(source: str) -> str:
    lines = [line for line in source.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return lines[0].strip() if lines else "(empty)"


def _refuse_stderr(notebook, name: str) -> None:
    """A warning on a page is either a fault or noise: neither is published."""
    for position, cell in enumerate(notebook.cells, start=1):
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                text = output["text"].strip().splitlines()
                raise BookError(
                    f"notebooks/{name}.py: cell {position} wrote to stderr: {text[0] if text else '(blank)'}\n"
                    f"  the cell begins: {_first_line(cell.source)}"
                )


def _tidy(notebook) -> None:
    """Drop what would differ from run to run or tell about this machine; readers download these files."""
    for key in ("papermill", "widgets"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
        tags = cell.metadata.get("tags", [])
        if "injected-parameters" in tags and "hide-input" not in tags:
            cell.metadata["tags"] = [*tags, "hide-input"]


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
