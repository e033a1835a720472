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
FAR = 1e30  # stands for an infinite edge: sigmoid(+-FAR) is exactly 1 or 0, and it stays finite times any scale


class Mixture(NamedTuple):
    """One mixture per sub-pixel; the last dimension runs over components. Shapes as `split_parameters` says."""

    log_weights: Tensor  # (..., K) one set per pixel
    means: Tensor  # (..., C, K)
    log_scales: Tensor  # (..., C, K)
    coefficients: Tensor  # (..., C (C - 1) / 2, K), already through tanh: green-red, blue-red, blue-green


def scale_levels(images: Tensor) -> Tensor:
    """Levels 0..255 to [-1, 1]: (x - 127.5) / 127.5, float32, any shape."""
    return images.float() / 127.5 - 1.0


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


class Room:
    """Memory that one call of `level_log_probs` leaves to the next: new memory costs more than the arithmetic in it."""

    def __init__(self):
        self.buffers: list[Tensor] = []

    def take(self, shape: tuple[int, ...], like: Tensor) -> list[Tensor]:
        """Three buffers of a shape, of the dtype and on the device of ``like``."""
        if not self.buffers or self.buffers[0].shape != shape or self.buffers[0].dtype != like.dtype:
            self.buffers = [like.new_empty(shape) for _ in range(3)]
        return self.buffers


def level_log_probs(log_weights: Tensor, means: Tensor, log_scales: Tensor, first: Tensor, count: int,
                    room: Room | None = None) -> Tensor:  # fmt: skip
    """Log probabilities, in nats, of ``count`` neighbouring levels of one sub-pixel.

    ``log_weights``, ``means`` and ``log_scales`` are (..., K); ``first`` (...), integers, is the lowest of the levels,
    the highest is at most 255. The result is (count, ...). A caller with many calls gives a ``room``.

    With ``log sigmoid(z) = min(z, 0) - log(1 + exp(-|z|))``, the exponentials at the edges serve both neighbours, and the
    logarithms can wait until the components are summed.
    """
    # components, then levels, come first: each operation then runs along the batch, which is contiguous
    log_weights, means, log_scales = (x.movedim(-1, 0).contiguous() for x in (log_weights, means, log_scales))
    inverse = torch.exp(-log_scales)
    at_bottom, at_top = first == 0, first + count == LEVELS
    edges = first.to(means.dtype) * BIN_WIDTH - 1.0 + _steps(count, means[0])
    edges[0].masked_fill_(at_bottom, -FAR)
    edges[-1].masked_fill_(at_top, FAR)
    shape = (len(means), *torch.broadcast_shapes(edges.shape, means[0].shape))  # (K, count + 1, ...)
    z, one_plus_e, negative_part = (Room() if room is None else room).take(shape, means)
    torch.sub(edges, means[:, None], out=z).mul_(inverse[:, None])
    torch.abs(z, out=one_plus_e).neg_().exp_().add_(1)
    torch.clamp(z, max=0, out=negative_part)
    inside = torch.log(-torch.expm1(-BIN_WIDTH * inverse))  # log(1 - exp(lower - upper)); the tails have no such factor
    log_mass = z[:, :-1].neg_().add_(negative_part[:, :-1]).add_(negative_part[:, 1:])
    log_mass.add_((log_weights + inside)[:, None])
    log_mass[:, 0].sub_(inside * at_bottom)
    log_mass[:, -1].sub_(inside * at_top)
    largest = log_mass.amax(dim=0)
    mass = log_mass.sub_(largest).exp_().div_(one_plus_e[:, 1:]).div_(one_plus_e[:, :-1])
    return mass.sum(dim=0).log_().add_(largest)


def _steps(count: int, like: Tensor) -> Tensor:
    """The distances of ``count + 1`` edges from the first one, to be added to a tensor like ``like``."""
    steps = torch.arange(count + 1, device=like.device, dtype=like.dtype) * BIN_WIDTH
    return steps.view(-1, *[1] * like.ndim)


def all_log_probs(parameters: Tensor, images: Tensor) -> Tensor:
    """log p(x_i = z | earlier sub-pixels) for all 256 levels z: (N, C, H, W, 256), nats."""
    levels = images.movedim(1, -1)
    mixture = split_parameters(parameters.movedim(1, -1), images.shape[1])
    means = condition_on_channels(mixture, scale_levels(levels))
    log_weights = mixture.log_weights[..., None, :].expand_as(means)
    first = torch.zeros(means.shape[:-1], dtype=torch.long, device=images.device)
    return level_log_probs(log_weights, means, mixture.log_scales, first, LEVELS).movedim(0, -1).movedim(-2, 1)
