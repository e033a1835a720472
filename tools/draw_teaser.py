#!/usr/bin/env python3
"""Draw book/_static/teaser.png: the first test images of Fashion-MNIST, clean, attacked and purified, with the classes seen.

README and the book's first page show it. The picture names the weights that it was made with, which the tests compare with
those that are shipped.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pixeldefend.fingerprint import fingerprint  # noqa: E402
from pixeldefend.study import Lab, figures  # noqa: E402
from pixeldefend.study.purification import purified  # noqa: E402

TEASER = ROOT / "book" / "_static" / "teaser.png"
ATTACK, EPS = "fgsm", 25


def main() -> None:
    lab = Lab("fashion-mnist", precision="float32")
    panel = purified.gallery(lab, ATTACK, EPS)
    before = {title: f"{title}, eps {EPS}" if title == figures.label(ATTACK) else title for title in panel.rows}
    rows, captions = ({before[title]: of[title] for title in of} for of in (panel.rows, panel.captions))
    figures.use_style()
    made_with = f"{fingerprint(lab.density)} {fingerprint(lab.classifier())}"
    figure = figures.gallery(rows, captions=captions)
    figure.savefig(TEASER, dpi=100, metadata={"Software": None, "Comment": made_with})
    for title in panel.rows:
        print(f"{title}: {panel.right(title)} of {len(panel.captions[title])} right")


if __name__ == "__main__":
    main()
