"""The other purifier of the paper: L-BFGS-B from random starts (section 4.1, figure 5).

It climbs log p(X') over the real-valued images X' within eps_defend of X and within 0..255, by the gradient of the
parallel network and scipy's implementation of Zhu et al. (1997); greedy purification is compared with what it finds. The
paper took the first 10 test images of CIFAR-10, attacked by FGSM with eps 8, and 100 random starts for each, most of which
ended less likely than the attacked image. It says nothing of units, tolerances, iterations, or how a real-valued pixel
gets a probability, and the authors' code leaves this purifier out. Decided here: a start is uniform in the box, real
pixels get a probability by `sliding_log_probs`, and a result is rounded, which keeps it in the box, whose bounds are
integers. How a pixel gets its probability decides the outcome: see ``objective`` of `lbfgs_purify`.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import Bounds, OptimizeResult, minimize
from torch import Tensor
from tqdm import tqdm

from ..checks import LEVELS, check_choice, check_count, check_eps, check_eval_mode, check_generator, check_images
from ..pixelcnn import PixelCNN
from ..pixelcnn.logistic import BIN_WIDTH, condition_on_channels, observed_log_probs, scale_levels, split_parameters
from ..pixelcnn.precision import full_products
from .purification import feasible_range

OBJECTIVES = ("continuous", "context")
# Levels to a unit of scipy's variables: the scale on which the network takes them. scipy's first step is the gradient
# itself: here it leads to the box's bounds, with variables in levels it is tiny. Tried with two starts on each of two
# Fashion-MNIST images: after 60 evaluations 2.3 bits per dimension instead of 4.6.
UNIT = 127.5
TOLERANCE = 1e-7  # relative change of log p that ends a run: about what float32 resolves
STARTS_TOGETHER = 8, 64  # on a CPU, where more are hardly faster, and on a GPU
Evaluate = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Optima:
    """What L-BFGS-B found for N images from S starts each.

    ``images`` are the results rounded to levels, uint8 (N, S, C, H, W). Bits per dimension, float32 (N, S): of the
    random start, of the result before and of the result after rounding. ``iterations`` and ``evaluations``, of the
    density and its gradient, are int64 (N, S).
    """

    images: Tensor
    start_bits: Tensor
    real_bits: Tensor
    bits: Tensor
    iterations: Tensor
    evaluations: Tensor

    @property
    def best(self) -> Tensor:
        """The most likely of each image's rounded results, uint8 (N, C, H, W)."""
        return self.images[torch.arange(len(self.images), device=self.images.device), self.bits.argmin(1)]


@torch.inference_mode(False)  # gradients are needed, whatever mode the caller is in
def lbfgs_purify(density: PixelCNN, images: Tensor, *, eps_defend: int, starts: int, generator: torch.Generator,
                 max_iterations: int = 200, objective: str = "continuous", batch_size: int | None = None,
                 progress: bool = False) -> Optima:  # fmt: skip
    """Search the box ``|X' - X| <= eps_defend``, ``0 <= X' <= 255`` for the most likely image by L-BFGS-B.

    Starts are random. It minimises -log p in nats, of pixels scaled to -1..1. scipy's limits are left as they are, but
    for ``max_iterations`` and the relative change at which a run ends, which is that of float32. By its objective, no
    result is worse than its start before it is rounded. The same generator state and ``batch_size`` give the same results.

    Args:
        density: a `PixelCNN` in eval mode; its weights and gradients do not change.
        images: uint8 (N, C, H, W), usually attacked ones.
        eps_defend: radius in colour levels, 0..255.
        starts: S, points drawn for each image, uniformly in its box.
        generator: on any device; all starts are one draw from it.
        max_iterations: of each run; an iteration takes one to two evaluations of the network and its gradient.
        objective: "continuous" is the density, continued to real values by `sliding_log_probs`. "context" is what comes of
            differentiating the authors' scoring of real-valued images: each pixel's probability is that of its value
            truncated to an integer, so that the gradient knows a pixel as the context of later ones only, and its own
            probability jumps. Whether the paper did this is not known. Of the two, only this one fails as the paper
            says, on the two Fashion-MNIST images tried.
        batch_size: runs under way together, which share evaluations; memory grows with it. ``None`` for a good one.

    Returns the `Optima`, on the images' device.

    Raises:
        TypeError, ValueError: anything but uint8 images with the density's channels and sizes multiples of 4, a density
            in training mode, a radius that is not an integer in 0..255, no generator, or counts below 1.
    """
    if not isinstance(density, PixelCNN):
        raise TypeError(f"density must be a PixelCNN, not {type(density).__name__}")
    check_eps(eps_defend, name="eps_defend")
    check_generator(generator)
    check_choice(objective, OBJECTIVES, name="objective")
    batch_size = STARTS_TOGETHER[density.device.type == "cuda"] if batch_size is None else batch_size
    for name, count in (("starts", starts), ("max_iterations", max_iterations), ("batch_size", batch_size)):
        check_count(count, name=name)
    check_images(images, channels=density.shape[0])
    density.log_likelihood(images[:0])  # refuses, before any work, sizes that it does not take, and training mode
    first, lower, upper = draw_starts(images, eps_defend, starts, generator)
    evaluate = evaluation(density, images.shape[1:], objective=objective)
    options = {"maxiter": max_iterations, "ftol": TOLERANCE}
    with tqdm(total=len(first), unit="start", disable=not progress) as bar:
        runs = minimise_together(evaluate, first, lower, upper, options, batch_size=batch_size, step=bar.update)
    return _optima(density, runs, images, starts)


def draw_starts(images: Tensor, eps: int, starts: int, generator: torch.Generator
                ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Starts for each of the images, uniform in its box, and the bounds of the boxes: float64 (N S, C H W), in ``UNIT``."""
    lower, upper = (bound.flatten(1).double().cpu().repeat_interleave(starts, 0) for bound in feasible_range(images, eps))
    uniform = torch.rand(lower.shape, dtype=torch.float64, generator=generator, device=generator.device).cpu()
    return tuple(x.numpy() / UNIT for x in (lower + uniform * (upper - lower), lower, upper))


def _optima(density: PixelCNN, runs: list[OptimizeResult], images: Tensor, starts: int) -> Optima:
    # with eps_defend 0 scipy makes no iterations and does not say how many
    def column(name: str, dtype: torch.dtype) -> Tensor:
        return torch.tensor([run.get(name, 0) for run in runs], dtype=dtype, device=images.device).view(len(images), starts)

    found = torch.empty(len(runs), *images.shape[1:], dtype=torch.uint8, device="cpu")
    for image, run in zip(found, runs, strict=True):
        image.copy_(torch.from_numpy(run.x * UNIT).round().view(image.shape))
    nats_a_bit = math.log(2) * math.prod(images.shape[1:])
    return Optima(
        images=found.to(images.device).view(len(images), starts, *images.shape[1:]),
        start_bits=column("first", torch.float32) / nats_a_bit,
        real_bits=column("fun", torch.float32) / nats_a_bit,
        bits=density.bits_per_dim(found).to(images.device).view(len(images), starts),
        iterations=column("nit", torch.int64),
        evaluations=column("nfev", torch.int64),
    )


@torch.inference_mode(False)
@torch.enable_grad()
def log_likelihood_and_gradient(density: PixelCNN, levels: Tensor, *, objective: str = "continuous"
                                ) -> tuple[Tensor, Tensor]:  # fmt: skip
    """log p(X) of real-valued images and its gradient: float64 (N,), nats, and float32 (N, C, H, W), nats per level.

    ``levels`` is (N, C, H, W), floating point, in 0..255, on the density's device. The network sees the real values; at
    integers the first is `PixelCNN.log_likelihood`. ``objective`` is as in `lbfgs_purify`. Raises ``ValueError`` for an
    unknown one and for a density in training mode.
    """
    check_eval_mode(density, name="density")
    check_choice(objective, OBJECTIVES, name="objective")
    levels = levels.detach().to(torch.float32, copy=True).requires_grad_()  # a tensor of inference mode cannot require it
    with full_products(levels.device):
        parameters = density.network(scale_levels(levels).contiguous(memory_format=torch.channels_last))
        if objective == "continuous":
            log_probs = sliding_log_probs(parameters, levels)
        else:
            log_probs = observed_log_probs(parameters, levels.detach().to(torch.uint8))  # truncates
        nats = log_probs.double().sum((1, 2, 3))
        (gradient,) = torch.autograd.grad(nats.sum(), levels)
    return nats.detach(), gradient


def sliding_log_probs(parameters: Tensor, levels: Tensor) -> Tensor:
    """log p(x_i | earlier sub-pixels), in nats, of real-valued levels, continuous in them and in the parameters.

    The bin of level x, from -1 + 2 x / 256 to -1 + 2 (x + 1) / 256, slides with x. Those of 0 and 255 have a tail as
    well, so that sliding alone would make the density jump there, at the bounds where most pixels of Fashion-MNIST lie.
    Hence the edge towards the tail fades: its terms in a component's log mass are multiplied by the distance to the
    bound, up to one level. At integers this is `observed_log_probs`; elsewhere it is no density, only an interpolation.

    ``parameters`` (N, outputs, H, W) from the network, ``levels`` float32 (N, C, H, W) in 0..255; the result is
    (N, C, H, W).
    """
    levels = levels.movedim(1, -1)
    mixture = split_parameters(parameters.movedim(1, -1), levels.shape[-1])
    means = condition_on_channels(mixture, scale_levels(levels))
    inverse = torch.exp(-mixture.log_scales)
    levels = levels[..., None]
    edge = levels * BIN_WIDTH - 1.0
    has_lower, has_upper = levels.clamp(max=1.0), (LEVELS - 1 - levels).clamp(max=1.0)
    log_mass = has_lower * F.logsigmoid((means - edge) * inverse)
    log_mass = log_mass + has_upper * F.logsigmoid((edge + BIN_WIDTH - means) * inverse)
    log_mass = log_mass + has_lower * has_upper * torch.log(-torch.expm1(-BIN_WIDTH * inverse))
    return torch.logsumexp(mixture.log_weights[..., None, :] + log_mass, dim=-1).movedim(-1, 1)


def evaluation(density: PixelCNN, shape: torch.Size, *, objective: str) -> Evaluate:
    """-log p (B,), in nats, and its gradient (B, D), of flattened images of a shape, (B, D) in units of ``UNIT`` levels."""

    def evaluate(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        levels = torch.from_numpy(x * UNIT).view(-1, *shape).to(density.device)
        nats, gradient = log_likelihood_and_gradient(density, levels.clamp(0, LEVELS - 1), objective=objective)
        return -nats.cpu().numpy(), -UNIT * gradient.flatten(1).double().cpu().numpy()

    return evaluate


class _Stopped(Exception):
    """The evaluation failed or was interrupted: the runs under way are given up."""


class _Run:
    """One run of scipy's L-BFGS-B, on a thread of its own, that asks another thread for every value."""

    def __init__(self, number: int, requests: SimpleQueue):
        self.number, self.requests, self.answers = number, requests, SimpleQueue()
        self.first = None

    def __call__(self, start: np.ndarray, lower: np.ndarray, upper: np.ndarray, options: dict) -> OptimizeResult:
        try:
            result = minimize(self.value, start, jac=True, method="L-BFGS-B", bounds=Bounds(lower, upper), options=options)
            return OptimizeResult(result, first=self.first)
        finally:
            self.requests.put((self.number, None))

    def value(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        self.requests.put((self.number, x.copy()))
        answer = self.answers.get()
        if answer is None:
            raise _Stopped
        self.first = answer[0] if self.first is None else self.first
        return answer


def minimise_together(evaluate: Evaluate, starts: np.ndarray, lower: np.ndarray, upper: np.ndarray, options: dict, *,
                      batch_size: int, step: Callable[[], object]) -> list[OptimizeResult]:  # fmt: skip
    """Minimise by scipy's L-BFGS-B from each of ``starts`` within ``lower`` and ``upper``, all float64 (P, D).

    scipy minimises one function at a time and asks for one value at a time. So that ``batch_size`` runs can share a call
    of ``evaluate``, from (B, D) to values (B,) and gradients (B, D), each has a thread and waits there; this thread
    evaluates once all have asked, so that who shares a call with whom does not depend on timing. ``step`` is called after
    each run. Returns scipy's results, with ``first`` the value at the start. Raises what ``evaluate`` raises.
    """
    requests, live, futures, results = SimpleQueue(), {}, {}, {}
    waiting = iter(range(len(starts)))
    with ThreadPoolExecutor(batch_size) as pool:
        try:
            while len(results) < len(starts):
                for n in islice(waiting, batch_size - len(live)):
                    live[n] = _Run(n, requests)
                    futures[n] = pool.submit(live[n], starts[n], lower[n], upper[n], options)
                asked = dict(requests.get() for _ in range(len(live)))
                for n in [n for n, x in asked.items() if x is None]:
                    del live[n]
                    results[n] = futures[n].result()
                    step()
                if live:
                    values, gradients = evaluate(np.stack([asked[n] for n in live]))
                    for run, *answer in zip(live.values(), values, gradients, strict=True):
                        run.answers.put(answer)
        finally:
            for run in live.values():
                run.answers.put(None)
    return [results[n] for n in range(len(starts))]
