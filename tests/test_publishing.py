"""How the book is published and launched: the workflow, Binder, and the commands they share with everybody else."""

import os
import re
import shutil
import subprocess
import sys

import yaml

from pixeldefend.paths import ROOT

WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8"))
STEPS = WORKFLOW["jobs"]["build"]["steps"]
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def uses(name):
    return [step["with"] for step in STEPS if step.get("uses", "").startswith(f"actions/{name}@")]


def make(*arguments):
    """What make would do, whatever variables the workflow, or the make that runs this, has set."""
    variables = ("PROFILE", "RECOMPUTE", "VERIFY", "MAKEFLAGS")
    others = {name: value for name, value in os.environ.items() if name not in variables}
    done = subprocess.run(["make", "--dry-run", *arguments], cwd=ROOT, capture_output=True, text=True, env=others)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_workflow_gives_the_commands_that_everybody_gives():
    commands = [step["run"] for step in STEPS if "run" in step]
    assert commands[:2] == ["make test", "make book"] and all(command.startswith("make ") for command in commands)
    targets = {command.split()[1] for command in commands}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)
    checked = [line.split(" #")[0] for line in (ROOT / ".ci" / "run").read_text().splitlines()[-3:]]
    assert checked == ["make test", "make book PROFILE=smoke RECOMPUTE=1", 'make test ARGS="-m built"']


def test_its_profiles_exist_and_are_the_books():
    profiles = yaml.safe_load((ROOT / "notebooks" / "params.yml").read_text(encoding="utf-8"))
    named = re.findall(r"'(\w+)'", WORKFLOW["jobs"]["build"]["env"]["PROFILE"])
    assert set(named) - {"pull_request"} == {"smoke", "laptop"} <= set(profiles)


def test_what_it_keeps_depends_on_what_it_was_made_from():
    (python,), (kept,) = uses("setup-python"), uses("cache")
    assert (python["cache"], python["cache-dependency-path"]) == ("pip", "requirements.lock.txt")
    assert kept["path"] == "book/notebooks", "results in cache/ do not say which code made them"
    assert WORKFLOW["jobs"]["build"]["env"]["RECOMPUTE"] == "${{ github.event_name == 'pull_request' && '1' || '' }}"
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert all(f"{path}/" in ignored for path in kept["path"].split())
    (globs,) = re.findall(r"hashFiles\((.*?)\)", kept["key"])
    sources = re.findall(r"'(.*?)'", globs)
    assert {"notebooks/**", "pixeldefend/**", "data/**", "requirements.lock.txt"} == set(sources)
    assert all(list(ROOT.glob(source)) for source in sources) and "PROFILE" in kept["key"]


def test_only_the_publishing_job_may_write():
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert WORKFLOW["jobs"]["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    (pages,) = uses("upload-pages-artifact")
    assert pages == {"path": "_build/html"}


def test_the_pdf_is_published_beside_the_pages_and_they_without_it_if_there_is_none():
    (printing,) = [step for step in STEPS if "make pdf" in step.get("run", "")]
    assert printing["run"] == "make pdf && cp _build/pixeldefend.pdf _build/html/"
    assert printing["continue-on-error"] is True and printing["env"] == {"CHROMIUM": "google-chrome"}
    (kept,) = [step for step in STEPS if step.get("with", {}).get("name") == "pdf"]
    assert kept["if"] == f"steps.{printing['id']}.outcome == 'success'"
    used = [step.get("uses", "").split("@")[0] for step in STEPS]
    assert STEPS.index(printing) < used.index("actions/upload-pages-artifact")


def test_make_passes_its_variables_on():
    assert "-m pixeldefend.book --profile laptop" in make("book") and "--no-verify" not in make("book")
    changed = make("book", "PROFILE=smoke", "RECOMPUTE=1", "VERIFY=0")
    assert "--profile smoke --recompute" in changed and "--no-verify" in changed
    printed = make("book", "pdf", "PROFILE=paper")
    assert printed.index("-m pixeldefend.book --profile paper") < printed.index("-m pixeldefend.pdf")
    assert "pixeldefend.book" not in make("pdf"), "another build would publish pages that say nothing was verified"
    assert re.search(r"--recompute +\\\n", make("book", "RECOMPUTE=1")) and "--recompute" not in make("book", "RECOMPUTE=")


def test_an_environment_that_was_left_half_made_is_made_anew(tmp_path):
    """One with a Python but without pip, as venv leaves it where Debian's python3-venv is missing, or Ctrl-C was pressed."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("requirements.lock.txt", "pyproject.toml"):
        (tmp_path / name).write_text("")
    python, half = tmp_path / "python", tmp_path / ".venv" / "bin" / "python"
    half.parent.mkdir(parents=True)
    made = f"printf '#!/bin/sh\\nexit 0\\n' > {half}"
    python.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$1 $2" in "-m venv") {made};; esac\n')
    half.write_text("#!/bin/sh\nexit 1\n")
    for script in (python, half):
        script.chmod(0o755)
    for _ in range(2):  # the second time there is nothing to repair
        subprocess.run(["make", "install", f"PYTHON={python}"], cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / ".venv" / "installed").unlink()
    assert (tmp_path / "asked").read_text().splitlines().count("-m venv --clear .venv") == 1


def test_clean_removes_all_that_a_build_writes():
    removed = make("clean")
    for path in (ROOT / ".gitignore").read_text().split():
        if path.startswith("book/") or path == "_build/":
            assert f" {path.rstrip('/')} " in removed, path


def test_binder_opens_the_chapters_as_notebooks():
    """Binder finds ``environment.yml`` and ``postBuild`` at the root, unless there is a folder that hides them."""
    assert CONFIG["launch_buttons"] == {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    assert not (ROOT / "binder").exists() and not (ROOT / ".binder").exists()
    script = ROOT / "postBuild"
    assert os.access(script, os.X_OK) and subprocess.run(["bash", "-n", script]).returncode == 0
    (command,) = [line.split() for line in script.read_text().splitlines() if line.startswith("jupytext")]
    tool = shutil.which(command[0], path=os.path.dirname(sys.executable))
    usage = subprocess.run([tool, command[1], "--help"], capture_output=True, text=True)
    assert usage.returncode == 0 and command[2] in usage.stdout
