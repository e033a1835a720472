"""pyproject.toml, requirements.lock.txt, environment.yml and the CI agree on what is installed."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from pixeldefend.paths import ROOT

LOCK = "requirements.lock.txt"
IN_LOCK = ("book", "data", "stats", "test")

pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
project = pyproject["project"]
lock_lines = [line for line in (ROOT / LOCK).read_text(encoding="utf-8").splitlines() if line and line[0] != "#"]
pins = {canonicalize_name(pin.name): pin for pin in map(Requirement, lock_lines)}
crosschecks = {  # where in pyproject.toml, and what
    "['project']['optional-dependencies']['crosscheck']": project["optional-dependencies"]["crosscheck"],
    "['tool']['pixeldefend']['crosscheck-without-dependencies']":
        pyproject["tool"]["pixeldefend"]["crosscheck-without-dependencies"],
}  # fmt: skip
wanted = project["dependencies"] + [line for extra in IN_LOCK for line in project["optional-dependencies"][extra]]


def locked_version(requirement: Requirement) -> Version:
    (only,) = requirement.specifier
    assert only.operator == "==", f"{requirement} is not pinned"
    return Version(only.version)


def test_every_line_of_the_lock_is_one_plain_pin():
    assert len(pins) == len(lock_lines), "a package is named twice"
    for pin in pins.values():
        assert pin.url is None and not pin.extras
        assert locked_version(pin).local is None, f"{pin}: a local version installs on one machine only"


@pytest.mark.parametrize("line", wanted)
def test_dependency_is_pinned_within_its_bounds(line):
    requirement = Requirement(line)
    pin = pins.get(canonicalize_name(requirement.name))
    assert pin is not None, f"{requirement.name} is not in {LOCK}"
    assert locked_version(pin) in requirement.specifier


def test_lock_names_neither_the_project_nor_what_one_platform_brings():
    assert "pixeldefend" not in pins
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


@pytest.mark.parametrize("line", [line for lines in crosschecks.values() for line in lines])
def test_crosschecks_are_pinned_and_stay_out_of_the_lock(line):
    """A comparison to the last integer is one with a certain version; and nobody else needs them."""
    requirement = Requirement(line)
    assert locked_version(requirement)
    assert canonicalize_name(requirement.name) not in pins
    try:
        installed = Version(version(requirement.name))
    except PackageNotFoundError:
        pytest.skip(f"{requirement.name} is not installed")
    assert installed in requirement.specifier


def test_the_makefile_takes_the_crosschecks_from_pyproject_and_holds_the_lock():
    rule = re.search(r"^\$\(CROSS\):.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1]
    assert re.findall(r"\$\(call PINS,(.*?)\)", rule) == list(crosschecks)
    plain, alone = rule.split("&&")[:2]
    assert f"-c {LOCK}" in plain and "--no-deps" in alone


def test_conda_environment_installs_the_lock_and_an_allowed_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    (pip,) = [entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert pip == [f"-r {LOCK}", "-e ."]
    (python,) = [entry for entry in environment["dependencies"] if str(entry).startswith("python=")]
    assert Version(python.removeprefix("python=")) in SpecifierSet(project["requires-python"])


def test_the_tools_name_the_same_python_as_the_project():
    """The oldest Python allowed is the one conda, ruff and the published book use, so it is the one that is tried."""
    oldest = project["requires-python"].removeprefix(">=")
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert f"python={oldest}" in environment["dependencies"]
    assert pyproject["tool"]["ruff"]["target-version"] == f"py{oldest.replace('.', '')}"
    workflow = (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    assert re.findall(r'python-version: "([\d.]+)"', workflow) == [oldest]
    major, minor = oldest.split(".")
    assert f"sys.version_info < ({major}, {minor})" in (ROOT / "Makefile").read_text(encoding="utf-8")
