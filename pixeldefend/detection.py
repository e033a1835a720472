"""Detecting adversarial images: a permutation test on likelihoods (the paper, section 3).

With the log-likelihoods of N reference images, the p-value of an image X' is (T + 1) / (N + 1), where T counts the
reference images that are no more likely than X'. It is small for unlikely images only: one-sided, though the paper states
a two-sided alternative.

The test is exact if X' and the reference images are exchangeable under the null hypothesis. The paper takes the density's
own training images as the reference, whose likelihoods training has raised; images held out from training keep the test
valid. Both can be given here.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .pixelcnn import PixelCNN
from .pixelcnn.precision import dtype_of

Z_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


def p_values(scores: Tensor, reference: Tensor) -> Tensor:
    """Permutation-test p-values, float64 (M,) in (0, 1], from scores where larger means more likely.

    Args:
        scores: (M,) floats, for example log-likelihoods in nats, or negated bits per dimension.
        reference: (N,) floats of the same kind, N >= 1.

    Raises:
        TypeError, ValueError: other shapes, no reference scores, or NaN.
    """
    _check_scores(scores, 0, name="scores")
    _check_scores(reference, 1, name="reference")
    no_more_likely = torch.searchsorted(reference.double().sort().values, scores.double(), right=True)
    return (no_more_likely + 1).double() / (len(reference) + 1)


def _check_scores(values: Tensor, least: int, *, name: str) -> None:
    """Refuse anything but a floating-point tensor (N,) of ``least`` scores or more, none of them NaN."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor")
    if values.ndim != 1:
        raise ValueError(f"{name} must have shape (N,), not {tuple(values.shape)}")
    if len(values) < least:
        raise ValueError(f"{name} must hold at least {least} score(s), not {len(values)}")
    if values.isnan().any():
        raise ValueError(f"{name} contain NaN")


@dataclass(frozen=True)
class ROC:
    """A receiver operating characteristic: rates, one per threshold, float64 on the CPU, and the area under the curve."""

    false_positive_rate: Tensor
    true_positive_rate: Tensor
    auc: float


def roc(clean: Tensor, adversarial: Tensor) -> ROC:
    """How well small p-values (or any score that is smaller for adversarial images) tell the two apart.

    Args:
        clean: (M,) floats, scores of the negatives; the paper uses training images here (figure 6).
        adversarial: (K,) floats, scores of the positives.

    Raises:
        TypeError, ValueError: other shapes, no scores, or NaN.
        ImportError: scikit-learn is not installed.
    """
    _check_scores(clean, 1, name="clean")
    _check_scores(adversarial, 1, name="adversarial")
    try:
        from sklearn.metrics import roc_auc_score, roc_curve
    except ImportError as error:
        raise ImportError("a ROC needs scikit-learn, of the extra \"stats\": pip install scikit-learn") from error
    suspicion = -torch.cat([clean.cpu(), adversarial.cpu()]).double().numpy()
    truth = np.repeat([0, 1], [len(clean), len(adversarial)])
    false_positive, true_positive, _ = roc_curve(truth, suspicion)
    return ROC(torch.from_numpy(false_positive), torch.from_numpy(true_positive), float(roc_auc_score(truth, suspicion)))


def auc_interval(clean: Tensor, adversarial: Tensor) -> tuple[float, float]:
    """A 95 % interval for the area under the ROC curve of `roc`: (low, high) in 0..1, after DeLong et al. (1988).

    Their variance counts, for each score, the share of the other kind that lies on the right side of it. The interval is
    formed on the logit scale, so that it stays within 0 and 1. Two scores that are separated completely have a variance of
    zero, which says nothing; there the interval is Wilson's for as many successes (or failures) as the smaller kind has
    scores, because AUC (1 - AUC) / min(M, K) bounds the variance from above.

    The scores are taken as independent. Where each adversarial image was made from one of the clean ones, and the scores
    of such a pair rise and fall together, the interval is on the wide side.

    Args:
        clean: (M,) scores of the negatives, M >= 2.
        adversarial: (K,) scores of the positives, K >= 2.

    Raises:
        TypeError, ValueError: other shapes, fewer than two scores of a kind, or NaN.
    """
    _check_scores(clean, 2, name="clean")
    _check_scores(adversarial, 2, name="adversarial")
    of_clean = _share_below(clean, adversarial)  # of the adversarial scores, how many lie below each clean one
    of_adversarial = 1 - _share_below(adversarial, clean)  # of the clean scores, how many lie above each adversarial one
    auc = of_adversarial.mean().item()
    if auc in (0, 1):
        bound = Z_95**2 / (min(len(clean), len(adversarial)) + Z_95**2)
        return (1 - bound, 1.0) if auc else (0.0, bound)
    deviation = math.sqrt((of_clean.var() / len(clean) + of_adversarial.var() / len(adversarial)).item())
    half = Z_95 * deviation / (auc * (1 - auc))
    middle = math.log(auc / (1 - auc))
    return 1 / (1 + math.exp(half - middle)), 1 / (1 + math.exp(-half - middle))


def _share_below(values: Tensor, others: Tensor) -> Tensor:
    """For each of ``values``, the share of ``others`` below it, ties by half: float64."""
    ordered = others.double().sort().values
    below, up_to = (torch.searchsorted(ordered, values.double(), right=right) for right in (False, True))
    return (below + up_to).double() / (2 * len(others))


class LikelihoodDetector:
    """p-values of images under a density, against the likelihoods of reference images.

    Make one with `fit` from reference images, or directly from bits per dimension that a record holds.

    Args:
        density: a `PixelCNN` in eval mode.
        reference_bits: (N,) floats, bits per dimension of the reference images.
        precision: of the network's arithmetic when images are scored, "float32" or "bfloat16".

    Raises:
        TypeError, ValueError: no `PixelCNN`, another precision, and reference bits of another shape, none, NaN or negative.
    """

    def __init__(self, density: PixelCNN, reference_bits: Tensor, *, precision: str = "float32"):
        if not isinstance(density, PixelCNN):
            raise TypeError(f"density must be a PixelCNN, not {type(density).__name__}")
        dtype_of(precision)  # refuses an unknown one
        _check_scores(reference_bits, 1, name="reference_bits")
        if (reference_bits < 0).any():
            raise ValueError("reference_bits: bits per dimension are never negative; were log-likelihoods passed?")
        self.density, self.reference_bits, self.precision = density, reference_bits.cpu(), precision

    @classmethod
    def fit(cls, density: PixelCNN, reference_images: Tensor, *, precision: str = "float32",
            progress: bool = False) -> "LikelihoodDetector":
        """Score ``reference_images`` (uint8, (N, C, H, W)): training images as the paper, or, valid, held-out ones."""
        if not isinstance(density, PixelCNN):
            raise TypeError(f"density must be a PixelCNN, not {type(density).__name__}")
        bits = density.bits_per_dim(reference_images, precision=precision, progress=progress)
        return cls(density, bits, precision=precision)

    def p_values(self, images: Tensor, *, progress: bool = False) -> Tensor:
        """p-value of each image, float64 (N,) in (0, 1]; images as `PixelCNN.log_likelihood` takes them."""
        bits = self.density.bits_per_dim(images, precision=self.precision, progress=progress)
        return p_values(-bits.cpu(), -self.reference_bits)

    def roc(self, clean: Tensor, adversarial: Tensor) -> ROC:
        """ROC of the p-value as a detector: ``clean`` (uint8 images) negative, ``adversarial`` positive."""
        return roc(self.p_values(clean), self.p_values(adversarial))
