"""The notebooks' sources, the way the book is built from them, and the check of the built pages."""

import importlib.util
import json
import time
from types import SimpleNamespace

import jupytext
import pytest
import yaml

from pixeldefend import backmatter, book, pages, stamps
from pixeldefend.paths import ROOT
from pixeldefend.study.records import read_signed, write_signed
from pixeldefend.study.verify import Disagreement, Verified

SOURCES = sorted((ROOT / "notebooks").glob("*.py"))

GOOD = """\
# %% [markdown]
# # A chapter

# %% tags=["parameters"]
profile = "laptop"

# %%
import os

with open("seen.txt", "a") as file:
    file.write(f"{profile} {'PIXELDEFEND_RECOMPUTE' in os.environ}\\n")
profile
"""
BAD = GOOD + """
# %%
# the comment is not the line to show
raise ValueError("no such luck")
"""
LOUD = GOOD + """
# %%
import sys

print("careful", file=sys.stderr)
"""


# -- the sources ------------------------------------------------------------------------------------------------------


def tagged(notebook, tag):
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_has_one_parameters_cell_with_a_profile(source):
    (cell,) = tagged(jupytext.read(source), "parameters")
    assert cell.cell_type == "code"
    assert 'profile = "laptop"' in cell.source


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_source_round_trip_keeps_the_cells(source):
    notebook = jupytext.read(source)
    again = jupytext.reads(jupytext.writes(notebook, fmt="py:percent"), fmt="py:percent")
    assert [(c.cell_type, c.source, c.metadata) for c in again.cells] == [
        (c.cell_type, c.source, c.metadata) for c in notebook.cells
    ]


def test_sources_and_table_of_contents_name_the_same_notebooks():
    toc = yaml.safe_load((ROOT / "book" / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert set(files) >= {"models", "execution", "api", "references"}
    assert sorted(f for f in files if f.startswith("notebooks/")) == [f"notebooks/{path.stem}" for path in SOURCES]


def test_every_source_of_the_params_file_exists():
    profiles = yaml.safe_load((ROOT / "notebooks" / "params.yml").read_text(encoding="utf-8"))
    assert set(profiles) == {"smoke", "laptop", "paper"}
    for profile, parameters in profiles.items():
        assert parameters["common"]["profile"] == profile
        assert set(parameters) <= {"common", *(path.stem for path in SOURCES)}


# -- building ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path):
    """A checkout with one notebook and two profiles, whose HTML stage is not run."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "book").mkdir()
    (tmp_path / "notebooks" / "01_a.py").write_text(GOOD)
    (tmp_path / "notebooks" / "params.yml").write_text(
        "smoke:\n  common: {profile: smoke}\nlaptop:\n  common: {profile: laptop}\n"
    )
    return book.Project(tmp_path)


@pytest.fixture
def published(monkeypatch):
    """The folders that would have been published."""
    calls = []
    monkeypatch.setattr(book, "publish", lambda root, destination: calls.append(destination) or destination)
    return calls


def set_params(project, text):
    (project.sources / "params.yml").write_text(text)


def test_unknown_names_are_refused_before_anything_runs(project, published):
    with pytest.raises(ValueError, match="unknown profile 'huge'; choose one of: smoke, laptop"):
        book.build("huge", root=project.root)
    with pytest.raises(ValueError, match="no such notebook: 02_b; there are: 01_a"):
        book.build("smoke", notebooks=["02_b"], root=project.root)
    set_params(project, "smoke:\n  common: {profile: smoke}\n  01_a: {epsilon: 8}\n")
    with pytest.raises(ValueError, match="01_a.py has no parameter epsilon; it has: profile"):
        book.build("smoke", root=project.root)
    set_params(project, "smoke:\n  09_z: {profile: smoke}\n")
    with pytest.raises(ValueError, match="no such notebook: 09_z"):
        book.build("smoke", root=project.root)
    assert not published and not project.executed.exists()


def test_build_runs_publishes_and_skips_what_did_not_change(project, published):
    book.build("smoke", root=project.root)
    executed = project.executed / "01_a.ipynb"
    first = executed.read_bytes()
    assert (project.root / "seen.txt").read_text() == "smoke False\n"
    assert published == [project.root / "_build" / "html"]

    book.build("smoke", root=project.root)
    assert executed.read_bytes() == first, "an unchanged notebook was run again"

    notebook = json.loads(first)
    assert str(project.root) not in first.decode(), "a path of this machine is left in the notebook"
    assert [cell["id"] for cell in notebook["cells"]] == [f"cell-{i:03d}" for i in range(len(notebook["cells"]))]
    (injected,) = [c for c in notebook["cells"] if "injected-parameters" in c["metadata"].get("tags", [])]
    assert "hide-input" in injected["metadata"]["tags"]
    record = (project.root / "book" / "execution.md").read_text()
    assert "| {doc}`notebooks/01_a` | smoke |" in record and str(project.root) not in record

    book.build("smoke", root=project.root, recompute=True)
    assert (project.root / "seen.txt").read_text() == "smoke False\nsmoke True\n"
    book.build("smoke", root=project.root, recompute="stale")
    assert (project.root / "seen.txt").read_text() == "smoke False\nsmoke True\n", "nothing is stale"
    assert not list(project.stage.glob("recomputing*"))
    with pytest.raises(ValueError, match="recompute must be True, False or 'stale', not 'all'"):
        book.build("smoke", root=project.root, recompute="all")


def test_computing_everything_anew_goes_on_where_it_was_interrupted(project, published, capsys):
    (project.sources / "02_b.py").write_text(BAD)
    with pytest.raises(book.BookError, match="02_b"):
        book.build("smoke", root=project.root, recompute=True)
    begun = float((project.stage / "recomputing-smoke").read_text().split()[0])
    first = (project.executed / "01_a.ipynb").read_bytes()
    (project.sources / "02_b.py").write_text(GOOD)
    capsys.readouterr()
    book.build("smoke", root=project.root, recompute=True)
    said = capsys.readouterr().out
    assert "going on with what was begun at" in said and "01_a: up to date" in said and "02_b: ran" in said
    assert (project.executed / "01_a.ipynb").read_bytes() == first
    assert 0 <= time.time() - begun < 600 and not (project.stage / "recomputing-smoke").exists()
    book.build("smoke", root=project.root)
    assert "01_a: up to date" in capsys.readouterr().out
    book.build("smoke", root=project.root, recompute=True)
    assert "01_a: ran" in capsys.readouterr().out, "it was finished: this is a new one"


def test_computing_everything_anew_says_how_the_results_differ(project, published, record, capsys):
    """From those before the first try: one that is interrupted has replaced some of them by then."""
    writer = GOOD + f"""
from pathlib import Path
from pixeldefend.study.records import write_signed

write_signed({{"config": {{}}, "results": {{"share": 0.5}}}}, Path({str(record)!r}))
"""
    project.source("01_a").write_text(writer)
    (project.sources / "02_b.py").write_text(BAD)
    with pytest.raises(book.BookError, match="02_b"):
        book.build("laptop", root=project.root, recompute=True, check=False)
    (project.sources / "02_b.py").write_text(GOOD)
    book.build("laptop", root=project.root, recompute=True, check=False)
    said = "0 records of profile laptop were computed anew"
    assert "01_a: up to date" in capsys.readouterr().out
    page = (project.root / "book" / "execution.md").read_text()
    assert said in page and "of 1 measurements 0 are the same to the last digit" in page
    assert not list(project.stage.glob("replaced*"))
    book.build("laptop", root=project.root, check=False)
    assert said not in (project.root / "book" / "execution.md").read_text()


def test_what_was_executed_before_everything_is_computed_anew_does_not_count(project, published, capsys):
    """Nor does an ordinary build in between end it."""
    (project.sources / "02_b.py").write_text(BAD)
    project.source("01_a").write_text(BAD)
    with pytest.raises(book.BookError, match="01_a"):
        book.build("smoke", root=project.root, recompute=True)
    for name in project.names():
        project.source(name).write_text(GOOD)
    book.build("smoke", root=project.root)
    capsys.readouterr()
    book.build("smoke", root=project.root, recompute=True)
    said = capsys.readouterr().out
    assert "going on" in said and "01_a: ran" in said and "02_b: ran" in said


def test_chosen_notebooks_are_computed_anew_each_time_and_nothing_goes_on_later(project, published, capsys):
    (project.sources / "02_b.py").write_text(BAD)
    for _ in range(2):
        with pytest.raises(book.BookError, match="02_b"):
            book.build("smoke", root=project.root, recompute=True, notebooks=["01_a", "02_b"])
        assert "01_a: ran" in capsys.readouterr().out and not list(project.stage.glob("re*-smoke"))


def test_computing_everything_begins_again_where_the_code_has_changed(tmp_path, capsys):
    """What results are compared with in the end is still what was there at first, not what the old code had made by then."""
    begun, records, replaced = (tmp_path / name for name in ("recomputing-laptop", "records", "replaced-laptop"))
    records.mkdir()
    (records / "cell.json").write_text("first")
    since = book._begin(begun, "aa", records, replaced)
    (records / "cell.json").write_text("of the old code")
    assert book._begin(begun, "aa", records, replaced) == since and "going on" in capsys.readouterr().out
    later = book._begin(begun, "bb", records, replaced)
    assert later > since and "the code has changed since" in capsys.readouterr().out
    assert book._begin(begun, "bb", records, replaced) == later
    assert (replaced / "cell.json").read_text() == "first"


def test_computing_everything_knows_the_packages_code(project, published, capsys):
    project.source("01_a").write_text(BAD)
    for text in ("x = 1\n", "x = 2\n"):
        (project.root / "pixeldefend").mkdir(exist_ok=True)
        (project.root / "pixeldefend" / "a.py").write_text(text)
        with pytest.raises(book.BookError, match="01_a"):
            book.build("smoke", root=project.root, recompute=True)
    assert "the code has changed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "path",
    ["notebooks/01_a.py", "pixeldefend/new.py", "data/weights/net/config.json", "data/weights/net/SHA256SUMS",
     "data/paper/tables.json", "data/images/fashion-mnist/t10k.gz", "requirements.lock.txt"],
)  # fmt: skip
def test_what_a_notebook_depends_on_changes_its_digest(project, path):
    def digest(parameters):
        return stamps.digest_inputs(project.root, project.source("01_a"), parameters)

    before = digest({"profile": "smoke"})
    assert digest({"profile": "smoke"}) == before != digest({"profile": "paper"})
    (project.root / path).parent.mkdir(parents=True, exist_ok=True)
    (project.root / path).write_text("changed\n")
    assert digest({"profile": "smoke"}) != before


def test_of_records_that_a_notebook_did_not_use_only_the_names_count(tmp_path):
    folder = tmp_path / "data" / "records" / "laptop"
    folder.mkdir(parents=True)
    for name in ("used", "other"):
        (folder / f"{name}.json").write_text("{}")

    def digest(*used):
        return stamps.digest_records(tmp_path, "start", used)

    used = "data/records/laptop/used.json"
    before, of_none = digest(used), digest()
    (folder / "other.json").write_text('{"anew": 1}')
    assert (digest(used), digest()) == (before, of_none)
    (folder / "used.json").write_text('{"anew": 1}')
    assert digest(used) != before and digest() == of_none
    (folder / "more.json").write_text("{}")
    assert digest() != of_none
    (folder / "more.json").unlink()
    (folder / "used.json").write_text("{}")
    assert digest(used) == before
    in_cache = tmp_path / "cache" / "records" / "smoke.json"
    vanished = digest("cache/records/smoke.json")
    in_cache.parent.mkdir(parents=True)
    in_cache.write_text("{}")
    assert digest("cache/records/smoke.json") != vanished


@pytest.mark.parametrize(
    "source, message",
    [(BAD, r'01_a.py: cell 5 stopped with ValueError: no such luck\n.*raise ValueError\("no such luck"\)'),
     (LOUD, r"01_a.py: cell 5 wrote to stderr: careful\n.*import sys")],
    ids=["error", "stderr"],
)  # fmt: skip
def test_failing_cell_stops_the_build_and_keeps_the_last_good_copy(project, published, capsys, source, message):
    project.executed.mkdir(parents=True)
    (project.executed / "01_a.ipynb").write_text("the last good copy")
    (project.sources / "01_a.py").write_text(source)
    with pytest.raises(book.BookError, match=message):
        book.build("smoke", root=project.root)
    assert (project.executed / "01_a.ipynb").read_text() == "the last good copy"
    assert not published


def test_command_line_reports_in_one_message(monkeypatch, capsys):
    def fail(**options):
        assert options.pop("check") is False and options.pop("seed") == 3
        assert options == {"profile": "smoke", "notebooks": None, "recompute": True, "destination": None}
        raise book.BookError("notebooks/01_a.py: cell 5 stopped")

    monkeypatch.setattr(book, "build", fail)
    with pytest.raises(SystemExit):
        book.main(["--recompute", "some"])
    capsys.readouterr()
    assert book.main(["--profile", "smoke", "--recompute", "--no-verify", "--verify-seed", "3"]) == 1
    assert capsys.readouterr().err == "the book was not built: notebooks/01_a.py: cell 5 stopped\n"


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ImportError("No module named 'papermill'")])
def test_command_line_shows_no_traceback_of_a_machines_faults(monkeypatch, capsys, error):
    def fail(**options):
        raise error

    monkeypatch.setattr(book, "build", fail)
    assert book.main([]) == 1
    assert capsys.readouterr().err == f"the book was not built: {error}\n"


def test_a_second_build_is_refused_while_one_runs(project, published):
    with pages.alone(project.root), pytest.raises(book.BookError, match="another build is running here"):
        book.build("smoke", root=project.root)
    assert not project.executed.exists() and not published


@pytest.mark.parametrize("destination", ["data", "book", "notebooks/params.yml"])
def test_a_folder_with_other_things_is_no_destination(project, published, destination):
    for folder in ("data", "book"):
        (project.root / folder).mkdir(exist_ok=True)
        (project.root / folder / "index.html").write_text("not of a book")
    with pytest.raises(ValueError, match="is no built book, and all in it would be replaced"):
        book.build("smoke", root=project.root, destination=project.root / destination)
    assert not project.stage.exists(), "something ran"


def test_environment_of_the_kernels_is_put_back(monkeypatch):
    monkeypatch.delenv("PIXELDEFEND_RECOMPUTE", raising=False)
    before = dict(book.os.environ)
    with pytest.raises(KeyError), book._environment("stale"):
        assert book.os.environ["PIXELDEFEND_RECOMPUTE"] == "stale"
        raise KeyError
    assert dict(book.os.environ) == before
    with book._environment(False):
        assert "PIXELDEFEND_RECOMPUTE" not in book.os.environ


def test_notebook_that_was_never_run_cannot_be_left_out(tmp_path):
    (tmp_path / "book").mkdir()
    with pytest.raises(book.BookError, match="02_b.py has not been executed yet"):
        backmatter.write_pages(tmp_path, {"02_b": {}})


# -- the committed records --------------------------------------------------------------------------------------------

READER = """\
# %% tags=["parameters"]
profile = "laptop"

# %%
from pathlib import Path

from pixeldefend.study.records import read_signed

read_signed(Path("data/records/laptop/cell.json").resolve())["results"]["share"]
"""


@pytest.fixture
def record(project):
    """A signed measurement that the project's notebook reads."""
    path = project.root / "data" / "records" / "laptop" / "cell.json"
    made = {"seconds": 2.5, "device": "cpu", "threads": 1, "torch": "2.0"}
    write_signed({"config": {}, "results": {"share": 0.25}, "made": made}, path)
    project.source("01_a").write_text(READER)
    return path


def test_the_execution_record_lists_what_a_notebook_used(project, published, record):
    write_signed({"config": {}, "results": {}}, record.with_name("unused.json"))
    for _ in range(2):  # run, then kept
        book.build("laptop", root=project.root)
        text = (project.root / "book" / "execution.md").read_text()
        (row,) = [line for line in text.splitlines() if "{download}" in line]
        assert "<../data/records/laptop/cell.json>" in row and "| 2.5&nbsp;s, cpu, 1 thread, torch 2.0 |" in row
        assert "{doc}`1 <notebooks/01_a>`" in row
    assert "PIXELDEFEND_USED" not in book.os.environ


WRITER = GOOD + """
# %%
import time
from pathlib import Path

from pixeldefend.study.records import write_signed

write_signed({"config": {}, "results": {"share": time.time()}}, Path("data/records/laptop/other.json").resolve())
"""


def test_what_a_later_notebook_stores_does_not_run_the_others_again(project, published, record, capsys):
    write_signed({"config": {}, "results": {"share": 0}}, record.with_name("other.json"))
    project.source("02_b").write_text(WRITER)
    project.source("03_c").write_text(BAD)
    with pytest.raises(book.BookError, match="03_c"):
        book.build("laptop", root=project.root, recompute=True, check=False)
    project.source("03_c").write_text(GOOD)
    for recompute in (True, False):  # goes on, and then an ordinary build
        capsys.readouterr()
        book.build("laptop", root=project.root, recompute=recompute, check=False)
        said = capsys.readouterr().out
        assert "01_a: up to date" in said and "02_b: up to date" in said


def test_a_record_edited_by_hand_stops_the_build(project, published, record):
    book.build("laptop", root=project.root)
    record.write_text(record.read_text().replace("0.25", "0.52"))
    message = "cell.json was changed after it had been written"
    with pytest.raises(book.BookError, match=message):  # the check of all records
        book.build("laptop", root=project.root)
    with pytest.raises(book.BookError, match=message):  # the notebook that reads it
        book.build("laptop", root=project.root, check=False)
    assert len(published) == 1
    with pytest.raises(ValueError, match=message):
        read_signed(record)


def test_only_a_build_that_loads_committed_records_checks_them(project, published, monkeypatch):
    calls = []

    def check(folder, profile, *, seed):
        calls.append((folder.relative_to(project.root).as_posix(), profile, seed))
        none = dict.fromkeys(("differing", "stale", "unchecked", "measurements", "measured", "attacks"), 0)
        return Verified(profile=profile, records=3, images=6, seed=7, seconds=1.0, **none)

    monkeypatch.setattr(book, "verify", check)
    page = project.root / "book" / "execution.md"
    book.build("laptop", root=project.root, seed=7)
    laptop, paper = [(f"data/records/{profile}", profile, 7) for profile in ("laptop", "paper")]
    assert calls == [laptop, paper]
    for profile in ("laptop", "paper"):
        assert f"6 randomly chosen images of 3 stored records of profile {profile}" in page.read_text()
    assert "seed 7" in page.read_text() and backmatter.NOT_CHECKED in page.read_text()
    for options in ({"check": False}, {"notebooks": ["01_a"]}):
        book.build("laptop", root=project.root, **options)
        assert "no record was checked" in page.read_text()
    book.build("smoke", root=project.root)
    assert len(calls) == 2
    book.build("laptop", root=project.root, recompute=True, seed=7)
    assert calls[2:] == [paper], "the laptop's are all computed anyway"
    book.build("laptop", root=project.root, recompute="stale", seed=7)
    assert calls[3:] == [laptop, paper]


def test_a_record_that_disagrees_stops_the_build_before_a_notebook_runs(project, published, monkeypatch):
    def check(*given, **options):
        raise Disagreement("the record cell.json does not hold")

    monkeypatch.setattr(book, "verify", check)
    with pytest.raises(book.BookError, match="the record cell.json does not hold"):
        book.build("laptop", root=project.root)
    assert not published and not project.executed.exists()


# -- the theme's buttons ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def local_book():
    """The book's own Sphinx extension."""
    spec = importlib.util.spec_from_file_location("local_book", ROOT / "book" / "_ext" / "local_book.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_on_github_the_buttons_lead_into_the_repository_that_is_built(local_book, monkeypatch):
    config = SimpleNamespace(html_theme_options={"repository_url": "https://github.com/none/none"})
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    local_book.take_repository(None, config)
    assert config.html_theme_options == {"repository_url": "https://github.com/none/none"}
    monkeypatch.setenv("GITHUB_REPOSITORY", "someone/copy")
    local_book.take_repository(None, config)
    assert config.html_theme_options == {"repository_url": "https://github.com/someone/copy"}


def test_buttons_lead_to_files_that_git_holds(local_book):
    launch = {"type": "group", "buttons": [{"url": "https://hub/lab/tree/book/notebooks/01_a.ipynb"}]}
    assert local_book.retarget([launch, {"onclick": "x"}], "notebooks/01_a") == [
        {"type": "group", "buttons": [{"url": "https://hub/lab/tree/notebooks/01_a.py"}]}, {"onclick": "x"},
    ]  # fmt: skip
    edit, issue = {"url": "https://host/edit/main/book/execution.md"}, {"url": "https://host/issues/new"}
    assert local_book.retarget([{"buttons": [edit, issue]}, {"buttons": [edit]}], "execution") == [{"buttons": [issue]}]
    assert local_book.retarget([edit], "intro") == [edit]
    card = {"url": "https://host/edit/main/book/models/fashion-mnist.md"}
    assert local_book.retarget([card, issue], "models/fashion-mnist") == [issue]
