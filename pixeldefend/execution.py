"""Run the book's notebooks: each in its text form, with parameters, to an executed copy that is published only when it ran
to its end without an error and without a word on stderr. What needs Jupyter is imported where it is used, because the
package itself must import without it.
"""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .pages import BookError
from .paths import ROOT
from .stamps import STAMP, digest_inputs, digest_records, read_stamp, versions
from .study.records import USED

KERNEL = {"name": "python3", "language": "python", "display_name": "Python 3"}


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


def checked_parameters(project: Project, name: str, profile: str) -> dict:
    """A profile's common parameters with those of one notebook on top, each of them checked against the notebook.

    Raises ``ValueError`` for a profile that ``notebooks/params.yml`` does not have, for notebooks in it that do not exist,
    and for parameters that the notebook does not declare.
    """
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
