"""What this book needs from Sphinx beyond its configuration.

MathJax is served from the book itself, so that formulas need no network. It cannot lie in ``book/_static``, because
Jupyter Book adds every script below that folder to every page.

The theme's buttons point at the file a page was made from, and git does not hold all of them: an executed notebook's
buttons are led to its text source, and the pages that a build writes have no source to edit. On GitHub they lead into the
repository whose book is built, be it a copy.
"""

import os
from pathlib import Path

from sphinx.util.fileutil import copy_asset

ROOT = Path(__file__).resolve().parents[2]
WRITTEN_BY_BUILD = ("execution", "models")  # the pages, and what lies below them


def copy_mathjax(app, exception):
    """Copy the vendored script into a finished HTML book."""
    if exception is None and app.builder.format == "html":
        copy_asset(str(ROOT / "vendor" / "mathjax"), str(Path(app.outdir) / "_static" / "mathjax"))


def take_repository(app, config):
    """On GitHub, which says in an environment variable whose book this is, take that, not what ``_config.yml`` says."""
    if name := os.environ.get("GITHUB_REPOSITORY"):
        config.html_theme_options["repository_url"] = f"https://github.com/{name}"


def retarget(buttons: list[dict], page: str) -> list[dict]:
    """The theme's header buttons of a page, each with an address that git holds; buttons without one are dropped."""
    kept = []
    for button in buttons:
        if "buttons" in button:
            button = button | {"buttons": retarget(button["buttons"], page)}
            if not button["buttons"]:
                continue
        address = button.get("url", "")
        if page.split("/")[0] in WRITTEN_BY_BUILD and f"book/{page}.md" in address:
            continue
        if address and page.startswith("notebooks/"):
            button = button | {"url": address.replace(f"book/{page}.ipynb", f"{page}.py")}
        kept.append(button)
    return kept


def retarget_buttons(app, pagename, templatename, context, doctree):
    """Run after the theme has filled in its buttons."""
    if "header_buttons" in context:
        context["header_buttons"] = retarget(context["header_buttons"], pagename)


def setup(app):
    app.config.mathjax_path = "mathjax/tex-svg.js"
    app.connect("config-inited", take_repository)
    app.connect("html-page-context", retarget_buttons, priority=900)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
