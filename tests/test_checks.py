"""Each check accepts what the conventions allow, and refuses the rest with one line saying what was given."""

import numpy as np
import pytest
import torch
from torch import nn

from pixeldefend import checks

IMAGES = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
LABELS = torch.tensor([0, 9, 5])

ACCEPTED = {
    "images": lambda: checks.check_images(IMAGES),
    "images, no rows": lambda: checks.check_images(IMAGES[:0]),
    "images, right channels": lambda: checks.check_images(IMAGES, channels=1),
    "labels": lambda: checks.check_labels(LABELS, IMAGES),
    "labels, none": lambda: checks.check_labels(LABELS[:0], IMAGES[:0]),
    "labels, more classes": lambda: checks.check_labels(LABELS + 1, IMAGES, classes=11),
    "eps 0": lambda: checks.check_eps(0),
    "eps 255": lambda: checks.check_eps(255),
    "eps, numpy's": lambda: checks.check_eps(np.int64(8)),
    "eps, of an array": lambda: checks.check_eps(np.arange(9, dtype=np.int32)[8]),
    "count": lambda: checks.check_count(1, name="steps"),
    "count, numpy's": lambda: checks.check_count(np.int64(300), name="steps"),
    "pixels": lambda: checks.check_pixels(IMAGES.double()),
    "purified": lambda: checks.check_purified(IMAGES.clone(), IMAGES),
    "eval mode": lambda: checks.check_eval_mode(nn.Linear(1, 1).eval()),
    "generator": lambda: checks.check_generator(torch.Generator()),
    "choice": lambda: checks.check_choice("b", ("a", "b"), name="letter"),
}

REFUSED = {
    "images, a list": (lambda: checks.check_images([[0]]), TypeError, "not list"),
    "images, floats": (lambda: checks.check_images(IMAGES.float()), TypeError, "float32"),
    "images, three axes": (lambda: checks.check_images(IMAGES[0]), ValueError, "(1, 4, 4)"),
    "images, channels": (lambda: checks.check_images(IMAGES, channels=3), ValueError, "3 channel(s), not 1"),
    "images, by name": (lambda: checks.check_images(None, name="reference"), TypeError, "reference must"),
    "labels, a list": (lambda: checks.check_labels([1, 2, 3], IMAGES), TypeError, "not list"),
    "labels, int32": (lambda: checks.check_labels(LABELS.int(), IMAGES), TypeError, "int32"),
    "labels, too few": (lambda: checks.check_labels(LABELS[:2], IMAGES), ValueError, "(3,)"),
    "labels, a column": (lambda: checks.check_labels(LABELS[:, None], IMAGES), ValueError, "(3, 1)"),
    "labels, another device": (lambda: checks.check_labels(LABELS.to("meta"), IMAGES), ValueError, "meta"),
    "labels, above": (lambda: checks.check_labels(LABELS + 1, IMAGES), ValueError, "found 1..10"),
    "labels, below": (lambda: checks.check_labels(LABELS - 1, IMAGES), ValueError, "found -1..8"),
    "labels, fewer classes": (lambda: checks.check_labels(LABELS, IMAGES, classes=9), ValueError, "0..8"),
    "eps, a float": (lambda: checks.check_eps(8.0), TypeError, "8.0"),
    "eps, a bool": (lambda: checks.check_eps(True), TypeError, "True"),
    "eps, a fraction": (lambda: checks.check_eps(8 / 255), TypeError, "colour levels"),
    "eps, negative": (lambda: checks.check_eps(-1), ValueError, "-1"),
    "eps, 256": (lambda: checks.check_eps(256), ValueError, "256"),
    "eps, numpy's bool": (lambda: checks.check_eps(np.True_), TypeError, "True"),
    "eps, would wrap around": (lambda: checks.check_eps(np.uint8(200)), TypeError, "200"),
    "eps, a tensor": (lambda: checks.check_eps(torch.tensor(8)), TypeError, "tensor(8)"),
    "eps, numpy's, 256": (lambda: checks.check_eps(np.int64(256)), ValueError, "256"),
    "count, a bool": (lambda: checks.check_count(True, name="steps"), TypeError, "steps must be an integer, not True"),
    "count, numpy's, 0": (lambda: checks.check_count(np.int64(0), name="steps"), ValueError, "at least 1"),
    "pixels, levels": (lambda: checks.check_pixels(IMAGES), TypeError, "uint8"),
    "pixels, three axes": (lambda: checks.check_pixels(IMAGES[0].float()), ValueError, "(1, 4, 4)"),
    "purified, floats": (lambda: checks.check_purified(IMAGES / 255, IMAGES), TypeError, "purify's result"),
    "purified, cut": (lambda: checks.check_purified(IMAGES[:2], IMAGES), ValueError, "keep the shape (3, 1, 4, 4)"),
    "eps, by name": (lambda: checks.check_eps(-1, name="eps_defend"), ValueError, "eps_defend must"),
    "training mode": (lambda: checks.check_eval_mode(nn.Linear(1, 1).train()), ValueError, ".eval()"),
    "no module": (lambda: checks.check_eval_mode(torch.relu), TypeError, "torch.nn.Module"),
    "seed as generator": (lambda: checks.check_generator(0), TypeError, "not int"),
    "unknown choice": (lambda: checks.check_choice("c", ("b", "a"), name="letter"), ValueError, "letter 'c'"),
    "unknown choice, advice": (lambda: checks.check_choice("c", ("b", "a"), name="letter"), ValueError, "a, b"),
}


@pytest.mark.parametrize("check", ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(check):
    assert check() is None


@pytest.mark.parametrize("check, kind, mention", REFUSED.values(), ids=REFUSED)
def test_refused(check, kind, mention):
    with pytest.raises(kind) as caught:
        check()
    assert mention in str(caught.value)
    assert "\n" not in str(caught.value)
