"""The pages that a build writes beside the executed notebooks: the execution record and the trained models."""

from collections.abc import Sequence
from pathlib import Path

from pixeldefend.pages import BookError
from pixeldefend.study.compare import Compared
from pixeldefend.study.provenance import record_tables, weights_in
from pixeldefend.study.shipped.models import write_model_pages
from pixeldefend.study.verify import Verified

NOT_CHECKED = (
    "No check covers the likelihoods of reference images and the thresholds from them, what earlier weights of a density "
    "made, speed, samples, where runs of L-BFGS-B end, and gradients and BIM through the unrolled system."
)


def write_pages(root: Path, stamps: dict[str, dict], *, checked: Sequence[Verified | Compared] = ()) -> None:
    """Write ``book/execution.md``, ``book/models.md`` and the pages in ``book/models``.

    Args:
        root: the checkout.
        stamps: for each notebook's name what its executed copy says of its run (``pixeldefend.book`` writes it).
        checked: what checks of committed records found, and comparisons with those that were replaced; empty where there was
            none.

    Raises:
        BookError: a notebook has no stamp, so it was never executed; or a record that it used is damaged or gone.
    """
    weights = root / "data" / "weights"
    known = weights_in(weights)
    write_model_pages(root / "book", weights, known)
    try:
        records = record_tables(root, {name: stamp.get("records", []) for name, stamp in stamps.items()}, known)
    except (ValueError, FileNotFoundError) as error:
        raise BookError(f"the execution record cannot be written: {error}") from error
    findings = "\n".join(f"In this build, {found}." for found in checked) or "In this build no record was checked."
    text = [
        "# Execution record",
        "## Notebooks",
        "Each notebook of this book as it was last run. A stored record is loaded, not computed again, and the\n"
        "seconds are those of loading, computing and plotting together.",
        _notebooks(stamps),
        "## Records",
        "Every number of this book comes from the files below; they hold the results image by image, all that decided\n"
        "them, and a digest by which a change is noticed. The seconds are those of the computer that made a record, and\n"
        f"may leave out an attack, or a purification, that several records share. {findings}",
        NOT_CHECKED,
        records or "No notebook used a record.",
    ]
    (root / "book" / "execution.md").write_text("\n\n".join(text) + "\n", encoding="utf-8")


def _notebooks(stamps: dict[str, dict]) -> str:
    rows = []
    for name, stamp in stamps.items():
        if not stamp:
            raise BookError(f"notebooks/{name}.py has not been executed yet: build the book without choosing notebooks")
        others = [f"`{key}={value!r}`" for key, value in stamp["parameters"].items() if key != "profile"]
        software = f"Python {stamp['python']}, torch {stamp['torch']}, numpy {stamp['numpy']}"
        cells = [f"{{doc}}`notebooks/{name}`", stamp["parameters"]["profile"], ", ".join(others), stamp["seconds"],
                 stamp["processors"], software]  # fmt: skip
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    head = ["| notebook | profile | other parameters | seconds | processors | software |", "|---|---|---|--:|--:|---|"]
    return "\n".join(head + rows)
