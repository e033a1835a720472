"""What notebooks and outside readers call: every name of the contract is there, documented, and needs only the core."""

import inspect
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pixeldefend as pxd
from pixeldefend.paths import ROOT

REQUIRED = inspect.Parameter.empty
CALLS = {  # positional parameters, then options that must be keyword-only, with their defaults
    "load_images": (["name", "split"], {"limit": None, "root": None}),
    "load_classifier": (["data_set", "network"], {"training": "normal"}),
    "predict": (["model", "images"], {}),
    "accuracy": (["model", "images", "labels"], {}),
    "p_values": (["scores", "reference"], {}),
    "roc": (["clean", "adversarial"], {}),
    "attacks.rand": (["net", "images", "labels"], {"eps": REQUIRED, "generator": REQUIRED}),
    "attacks.fgsm": (["net", "images", "labels"], {"eps": REQUIRED}),
    "attacks.bim": (["net", "images", "labels"], {"eps": REQUIRED}),
    "attacks.bpda": (["net", "images", "labels"], {"purify": REQUIRED, "eps": REQUIRED}),
    "attacks.deepfool": (["net", "images", "labels"], {"eps": REQUIRED}),
    "attacks.carlini_wagner": (["net", "images", "labels"], {"eps": REQUIRED}),
    "attacks.deepfool_crossing": (["net", "images", "labels"], {"label_source": "predicted"}),
    "attacks.carlini_wagner_search": (["net", "images", "labels"], {"label_source": "true"}),
    "attacks.to_levels": (["found", "images"], {"eps": REQUIRED, "rounding": "outward"}),
    "attacks.clipped": (["found", "images"], {"eps": REQUIRED}),
    "squeeze": (["images"], {"levels": REQUIRED}),
    "PixelCNN.from_pretrained": (["name"], {"device": "cpu"}),
    "PixelCNN.log_likelihood": (["self", "images"], {}),
    "PixelCNN.bits_per_dim": (["self", "images"], {}),
    "PixelCNN.conditional_log_probs": (["self", "images"], {}),
    "PixelCNN.sample": (["self", "n"], {"generator": REQUIRED}),
    "PixelDefend": (["density"], {"eps_defend": REQUIRED, "threshold": None}),
    "PixelDefend.__call__": (["self", "images"], {}),
    "PixelDefend.purify": (["self", "images"], {"progress": False}),
    "LikelihoodDetector.fit": (["density", "reference_images"], {}),
    "LikelihoodDetector.p_values": (["self", "images"], {}),
    "LikelihoodDetector.roc": (["self", "clean", "adversarial"], {}),
    "DefendedClassifier": (["classifier", "purify"], {"gradient": "bpda"}),
}
CORE_ONLY = """
import builtins, sys

allowed = set(sys.stdlib_module_names) | {"pixeldefend"} | set(sys.argv[1].split(","))
plain_import = builtins.__import__

def checked_import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "")
    if level == 0 and importer.split(".")[0] == "pixeldefend" and name.split(".")[0] not in allowed:
        raise ImportError(f"{importer} imports {name}, which is not among the core dependencies")
    return plain_import(name, globals, locals, fromlist, level)

builtins.__import__ = checked_import
for name in sys.argv[2].split(","):
    sys.modules[name] = None  # any import of it fails
import pixeldefend
import pixeldefend.cli
print(" ".join(pixeldefend.__all__))
"""
# what core packages themselves need, such as yaml for huggingface_hub, is not blocked; matplotlib is a core dependency, but
# nobody should wait for it who draws no figure
BLOCKED = ("pooch", "sklearn", "jupytext", "papermill", "nbformat", "jupyter_book", "sphinx", "pytest", "IPython",
           "matplotlib")  # fmt: skip


def resolve(path: str):
    value = pxd
    for name in path.split("."):
        value = getattr(value, name)
    return value


@pytest.mark.parametrize(("path", "positional", "options"), [(p, *call) for p, call in CALLS.items()], ids=CALLS)
def test_the_contract_s_calls_are_there(path, positional, options):
    parameters = inspect.signature(resolve(path)).parameters
    plain = [p.name for p in parameters.values() if p.kind is not p.KEYWORD_ONLY and p.kind is not p.VAR_KEYWORD]
    assert plain == positional
    for name, default in options.items():
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY, name
        assert parameters[name].default is default or parameters[name].default == default, name


def test_all_lists_the_contract_and_nothing_that_is_not_there():
    assert len(set(pxd.__all__)) == len(pxd.__all__)
    assert {path.split(".")[0] for path in CALLS} <= set(pxd.__all__)
    assert all(hasattr(pxd, name) for name in pxd.__all__)


@pytest.mark.parametrize("path", sorted({*CALLS, *pxd.__all__}))
def test_everything_public_has_a_docstring_of_its_own(path):
    value = resolve(path)
    doc = value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__
    assert doc and len(doc.split()) > 3
    # torch's and huggingface_hub's base classes have docstrings too: one that is inherited says nothing of ours
    assert inspect.ismodule(value) or value.__module__.startswith("pixeldefend")


@pytest.mark.parametrize("name", [name for name in pxd.__all__ if inspect.isclass(getattr(pxd, name))])
def test_public_methods_have_docstrings(name):
    kind = getattr(pxd, name)
    inherited = {"forward"}  # torch's, described by the class
    own = {n for n, v in vars(kind).items() if not n.startswith("_") and callable(getattr(kind, n)) and n not in inherited}
    assert not [method for method in own if not getattr(kind, method).__doc__]


def test_the_version_is_the_package_s():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert pxd.__version__ == project["version"]


def test_the_package_imports_with_the_core_dependencies_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = [canonicalize_name(Requirement(line).name).replace("-", "_") for line in project["dependencies"]]
    command = [sys.executable, "-c", CORE_ONLY, ",".join(core), ",".join(BLOCKED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]
    assert done.stdout.split() == pxd.__all__
