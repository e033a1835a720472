"""Mixtures of logistics as a 256-way distribution for every sub-pixel.

The network emits, per pixel, mixture weights, and for every channel means, log-scales and the coefficients that shift
green's means by red and blue's by red and green (Salimans et al. 2017, equation 3). As in the authors' code, the
distribution of one sub-pixel is the mixture integrated over 256 bins: 257 equally spaced edges on [-1, 1], the first and
the last bin absorbing the tails; every channel is marginalised over the mixture on its own, with the same weights.

The authors approximate the mass of narrow bins and renormalise with a softmax. Here the mass is exact, so the 256
probabilities sum to one by construction: with edges at ``lower < upper`` (in units of the scale, from the mean),

    log(sigmoid(upper) - sigmoid(lower)) = log sigmoid(upper) + log sigmoid(-lower) + log(1 - exp(lower - upper)).
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
BIN_WIDTH = 2.0 / LEVELS
MIN_LOG_SCALE = -7.0
FAR = 1e6  # stands for an infinite edge: sigmoid(+-FAR) is exactly 1 or 0 and stays finite under arithmetic


class Mixture(NamedTuple):
    """One mixture per sub-pixel; the last dimension runs over components. Shapes as `split_parameters` says."""

    log_weights: Tensor  # (..., K) one set per pixel
    means: Tensor  # (..., C, K)
    log_scales: Tensor  # (..., C, K)
    coefficients: Tensor  # (..., C (C - 1) / 2, K), already through tanh: green-red, blue-red, blue-green


def scale_levels(images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Levels 0..255 to [-1, 1]: (x - 127.5) / 127.5, any shape."""
    return images.to(dtype) / 127.5 - 1.0


def split_parameters(parameters: Tensor, channels: int) -> Mixture:
    """Split the network's numbers, (..., outputs) with the outputs last, into a `Mixture` in float32."""
    parameters = parameters.float()
    coefficients = channels * (channels - 1) // 2
    components = parameters.shape[-1] // (1 + 2 * channels + coefficients)
    groups = parameters.unflatten(-1, (-1, components))
    return Mixture(
        log_weights=F.log_softmax(groups[..., 0, :], dim=-1),
        means=groups[..., 1 : 1 + channels, :],
        log_scales=groups[..., 1 + channels : 1 + 2 * channels, :].clamp(min=MIN_LOG_SCALE),
        coefficients=torch.tanh(groups[..., 1 + 2 * channels :, :]),
    )


def condition_on_channels(mixture: Mixture, x: Tensor) -> Tensor:
    """The means (..., C, K), shifted by the earlier channels of the same pixel; ``x`` (..., C) is in [-1, 1]."""
    if mixture.coefficients.shape[-2] == 0:
        return mixture.means
    red, green = x[..., 0, None], x[..., 1, None]
    green_red, blue_red, blue_green = mixture.coefficients.unbind(-2)
    shift = torch.stack([torch.zeros_like(green_red), green_red * red, blue_red * red + blue_green * green], dim=-2)
    return mixture.means + shift


def bin_log_mass(means: Tensor, log_scales: Tensor, levels: Tensor) -> Tensor:
    """Log mass of each component in the bin of each level; all arguments broadcast, the result has their shape."""
    inverse = torch.exp(-log_scales)
    edge = levels.to(means.dtype) * BIN_WIDTH - 1.0
    lower = torch.where(levels > 0, (edge - means) * inverse, -FAR)
    upper = torch.where(levels < LEVELS - 1, (edge + BIN_WIDTH - means) * inverse, FAR)
    inside = torch.log(-torch.expm1(-BIN_WIDTH * inverse))  # log(1 - exp(lower - upper)); the tails have no such factor
    tail = (levels == 0) | (levels == LEVELS - 1)
    return F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.where(tail, 0.0, inside)


def observed_log_probs(parameters: Tensor, images: Tensor) -> Tensor:
    """log p(x_i | earlier sub-pixels) in nats for each sub-pixel of ``images``.

    ``parameters`` (N, outputs, H, W) from the network, ``images`` uint8 (N, C, H, W); the result is (N, C, H, W).
    """
    levels = images.movedim(1, -1)  # (N, H, W, C)
    mixture = split_parameters(parameters.movedim(1, -1), images.shape[1])
    means = condition_on_channels(mixture, scale_levels(levels))
    log_mass = bin_log_mass(means, mixture.log_scales, levels[..., None].float())
    return torch.logsumexp(mixture.log_weights[..., None, :] + log_mass, dim=-1).movedim(-1, 1)


def level_log_probs(log_weights: Tensor, means: Tensor, log_scales: Tensor, levels: Tensor) -> Tensor:
    """Log probabilities, in nats, of several levels of one sub-pixel.

    ``log_weights``, ``means`` and ``log_scales`` are (..., K); ``levels`` (..., L) or (L,), integers in 0..255 that run
    upwards by one, so that neighbours share an edge. The result is (..., L).
    """
    inverse = torch.exp(-log_scales)[..., None, :]
    levels = levels[..., None].to(means.dtype)  # (..., L, 1)
    edges = torch.cat([levels, levels[..., -1:, :] + 1], dim=-2) * BIN_WIDTH - 1.0  # (..., L + 1, 1)
    z = (edges - means[..., None, :]) * inverse  # (..., L + 1, K)
    below = F.logsigmoid(z)  # log cdf at every edge
    above = below - z  # log(1 - cdf)
    first, last = levels == 0, levels == LEVELS - 1
    lower = torch.where(first, 0.0, above[..., :-1, :])
    upper = torch.where(last, 0.0, below[..., 1:, :])
    inside = torch.log(-torch.expm1(-BIN_WIDTH * inverse))
    log_mass = lower + upper + torch.where(first | last, 0.0, inside)
    return torch.logsumexp(log_weights[..., None, :] + log_mass, dim=-1)


def all_log_probs(parameters: Tensor, images: Tensor) -> Tensor:
    """log p(x_i = z | earlier sub-pixels) for all 256 levels z: (N, C, H, W, 256), nats."""
    levels = images.movedim(1, -1)
    mixture = split_parameters(parameters.movedim(1, -1), images.shape[1])
    means = condition_on_channels(mixture, scale_levels(levels))
    log_weights = mixture.log_weights[..., None, :].expand_as(means)
    every = torch.arange(LEVELS, device=images.device)
    return level_log_probs(log_weights, means, mixture.log_scales, every).movedim(-2, 1)
