"""What some choices of the authors' code change, measured on the first test images (see `differences`)."""

import torch
from torch import Tensor

from ...attacks import bim, fgsm
from ...classifiers import predict
from ...defenses import PixelDefend, squeeze
from ...fingerprint import fingerprint
from ..conditions import EPS_DEFEND, SQUEEZE_LEVELS, Condition
from ..lab import Lab
from ..records import tensor_digest

NAME = "choices"  # of the measurement
IMAGES = 200
EPS = 8  # in both of the paper's tables
ATTACKS = {"fgsm": fgsm, "bim": bim}
LABEL_SOURCES = ("true", "predicted")


def written_by_truncation(images: Tensor) -> Tensor:
    """Images as the authors' code writes them: levels 1 to 127 come out one too low. uint8, any shape."""
    return torch.where((images >= 1) & (images <= 127), images - 1, images)


def measured(lab: Lab) -> dict[str, list[int]]:
    """Predictions of the normally trained ResNet, under both sides of each choice; a measurement of the lab.

    Returns:
        ``labels``; "purified" and "truncated", after BIM and PixelDefend, the latter with what `written_by_truncation`
        makes of the result; "fgsm true", "fgsm predicted" and so on, attacks that lead away from the true or from the
        predicted class, without a defence; "squeezed fgsm" and "squeezed bim", attacks that know nothing of the feature
        squeezing that follows.
    """
    count = min(IMAGES, len(lab.test))
    config = {
        "images": count,
        "data": tensor_digest(lab.test.images[:count], lab.test.labels[:count]),
        "eps": EPS,
        "eps_defend": EPS_DEFEND[lab.data_set],
        "squeeze_levels": SQUEEZE_LEVELS[lab.data_set],
        "precision": lab.precision,
        "classifier": fingerprint(lab.classifier()),
        "density": lab.density_fingerprint,
    }
    return lab.measurement(NAME, config, lambda: predictions(lab, count))


def predictions(lab: Lab, count: int) -> dict[str, list[int]]:
    """What `measured` returns, computed on the first ``count`` test images."""
    images, labels, net = lab.test.images[:count], lab.test.labels[:count], lab.classifier()
    purify = PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)
    purified = purify(lab.attacked(Condition(lab.data_set, "bim", EPS), limit=count))
    seen = {"purified": purified, "truncated": written_by_truncation(purified)}
    for name, attack in ATTACKS.items():
        found = {of: attack(net, images, labels, eps=EPS, label_source=of) for of in LABEL_SOURCES}
        seen |= {f"{name} {of}": attacked for of, attacked in found.items()}
        default = found["predicted" if name == "fgsm" else "true"]
        seen[f"squeezed {name}"] = squeeze(default, levels=SQUEEZE_LEVELS[lab.data_set])
    return {"labels": labels.tolist()} | {name: predict(net, of).tolist() for name, of in seen.items()}
