"""Controls of the attack around the purification (`attacks.around_purification`), as an evaluation of a defence needs them
(Carlini et al. 2019): is it knowledge of the defence that helps, or only more steps? And is nothing left without a limit?"""

from collections.abc import Mapping

import torch

from ...attacks import bim, bpda
from ...defenses import PixelDefend
from ..conditions import EPS_ATTACK, EPS_DEFEND
from ..lab import Lab
from .attacks import Sizes, configuration, defended_outcome, sizes_of

NAME = "end-to-end-controls"  # of the measurement
UNLIMITED, STRIDE = 255, 8  # eps and the length of a step, in levels: in 32 steps black becomes white


def controls(lab: Lab, sizes: Sizes) -> dict:
    """BIM that does not know of the defence but takes as many steps as BPDA, and BPDA without a limit; a measurement.

    Returns:
        ``labels``; ``bim``, for each eps of the paper (as text) what the classifier behind purification makes of the images,
        see `attacks.defended_outcome`; ``unlimited``, the same after BPDA with eps `UNLIMITED` in steps of `STRIDE`.
    """
    net, images, labels = lab.classifier(), lab.test.images[: sizes.images], lab.test.labels[: sizes.images]
    purify = PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)

    def measure() -> dict:
        anywhere = bpda(net, images, labels, purify=purify, eps=UNLIMITED, steps=sizes.steps, step_size=STRIDE,
                        batch_size=len(images), progress=lab.progress)  # fmt: skip
        unlimited = defended_outcome(net, purify(anywhere), labels)
        return {"labels": labels.tolist(), "bim": unaware(lab, sizes), "unlimited": unlimited}

    config = configuration(lab, images, labels, sizes=("images", "steps"), of=sizes)
    config |= {"eps": EPS_ATTACK[lab.data_set], "unlimited": [UNLIMITED, STRIDE]}
    return lab.measurement(NAME, config, measure)


def unaware(lab: Lab, sizes: Sizes) -> dict[str, dict]:
    """What the classifier behind purification makes of images after BIM with as many steps as BPDA, by eps (as text)."""
    net, images, labels = lab.classifier(), lab.test.images[: sizes.images], lab.test.labels[: sizes.images]
    purify = PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)
    every = EPS_ATTACK[lab.data_set]
    attacked = torch.cat([bim(net, images, labels, eps=eps, steps=sizes.steps) for eps in every])
    purified = purify(attacked).split(len(images))
    return {str(eps): defended_outcome(net, of, labels) for eps, of in zip(every, purified, strict=True)}


def classes(results: Mapping) -> dict[str, list[int]]:
    """Of `controls`, what can be made again for single images: labels, and the classes seen after BIM."""
    return {"labels": results["labels"], **{f"BIM, eps {eps}": of["predictions"] for eps, of in results["bim"].items()}}


def classes_again(lab: Lab) -> dict[str, list[int]]:
    """The same, computed on all test images of a lab, which should be few."""
    return classes({"labels": lab.test.labels.tolist(), "bim": unaware(lab, sizes_of(lab))})
