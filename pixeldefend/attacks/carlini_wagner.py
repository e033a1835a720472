"""The attack of Carlini & Wagner (2017) in its L-infinity form (the paper, section 2.1).

Over an image x it minimises ``constant * margin(x) + sum max(|x - clean| - tau, 0)`` with Adam, where the margin is the
label's logit minus the largest other one; after a success it does so again with a smaller tau. Every image has its own
tau, constant and optimiser state, all of them rows of tensors: an image that succeeds or gives up starts its next run
while the others go on with theirs, and one that is finished leaves the batch.
"""

import torch
from torch import Tensor, nn

from ..checks import check_choice, check_eps
from ..classifiers.inference import checked_logits
from ..scaling import TOP, to_unit
from ._common import attack_in_batches, check_input, gradient_of, search_in_batches, step_within
from .deepfool import nearest_crossing
from .levels import ROUNDINGS, rounded_within, to_levels

SETTINGS = ("as_published", "tuned")

# as published, on the scale of [0, 1]
STEPS, RATE, CONSTANT = 100, 5e-3, 1e-5
FIRST_TAU, LAST_TAU, DECREASE = 1.0, 1 / 256, 0.9
WON = 1e-4 * CONSTANT  # a loss below this is a success
SQUASHED = 0.9999995  # black and white would be infinite in tanh space

FIRST_ITERATIONS = 5  # of DeepFool, before the first trial
TUNED_STEPS = 60
TUNED_RATE = 2.0  # of the radius, falling linearly to 0
TUNED_DECAY = (0.5, 0.5)  # of Adam's moments: short memories, so that most steps are nearly the gradient's sign
TUNED_CONSTANTS = (0.0, 0.0, 0.0, 0.0, 10.0, 1.0, 0.3)  # one a trial; 0 is the limit in which the penalty is a wall


def tuned_search() -> dict:
    """What the setting "tuned" of `carlini_wagner` does now, as plain values, for the configuration of a record."""
    return {"deepfool": FIRST_ITERATIONS, "constants": list(TUNED_CONSTANTS), "steps": TUNED_STEPS, "rate": TUNED_RATE,
            "decay": list(TUNED_DECAY), "starts": "corners"}  # fmt: skip


def carlini_wagner(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    eps: int,
    setting: str = "as_published",
    label_source: str = "true",
    rounding: str = "outward",
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """Carlini & Wagner's attack: the smallest L-infinity perturbation it finds, clipped to eps and to 0..255.

    "as_published" is `carlini_wagner_search`, what the authors' code runs, then `to_levels`. It does not know eps, so that
    all it finds beyond eps is spoilt by the clipping.

    "tuned" searches over the constant, knows eps, and looks only at images that it could return. The network is evaluated
    at w rounded to levels and projected to radius tau and 0..255, its gradient moves w itself, which is in pixels and
    clipped to [0, 1] instead of in tanh space. The margin is not cut off at zero.

    First, five iterations of DeepFool. Where their image is no success: at tau = eps, up to seven trials of 60 steps of
    Adam, each from another random corner of the ball of radius eps (the same for every image), with the log-sum-exp of
    the other logits in place of their largest, so that no class to go for is settled. Four have the constant 0, taken as
    the limit in which the penalty is a wall: w itself is projected to tau. Then come 10, 1 and 0.3, with which w may be
    beyond tau and the penalty leads it back. The learning rate falls linearly from 2 tau to 0; both of Adam's decay rates
    are 0.5. As integer images have integer distances, the smallest successful tau is then found by bisection over 1..eps
    levels: one trial each, from the best image so far. An image that nothing fools gets the result of "as_published", so
    that "tuned" is never weaker.

    On 50 images of Fashion-MNIST, on the ResNet, it fools 22 at 2 levels, 36 at 3 and 41 at 4; Auto-PGD within the same
    radius, 50 steps from each of two starts, fools 20 to 22 (8 seeds), 34 to 35 and 40 to 41 (4 seeds each). The corners
    and the wall are what an image at 2 levels needs that starts nearer to the original and a free w hardly ever fool. It
    takes 271, 190 and 142 gradients an image, before the result of "as_published" where nothing fools.

    An image that is misclassified to begin with is returned as it is.

    Args:
        net: in eval mode, from float32 (N, C, H, W) in [0, 1] to logits (N, 10); its state and gradients do not change.
        images: uint8 (N, C, H, W).
        labels: int64 (N,), the true classes; not used with ``label_source="predicted"``.
        eps: colour levels, an integer in 0..255; 0 returns a copy.
        setting: "as_published" or "tuned".
        label_source: "true", as in the authors' code, or "predicted".
        rounding: of the floats that "as_published" finds, to integers, on which the paper (section 2.1) defines attacks:
            "outward", away from the original image, or "nearest", which undoes many of the smallest perturbations. The
            authors do not round.

    Returns the adversarial images, uint8 (N, C, H, W), on the images' device. Raises ``TypeError`` or ``ValueError``
    for bad input, a network in training mode, and logits that are not (N, 10), not finite or not differentiable.
    """
    check_input(net, images, labels, label_source=label_source, batch_size=batch_size)
    check_eps(eps)
    check_choice(setting, SETTINGS, name="setting")
    check_choice(rounding, ROUNDINGS, name="rounding")
    if eps == 0:
        return images.clone()
    how = {"label_source": label_source, "batch_size": batch_size, "progress": progress}
    if setting == "as_published":
        found = carlini_wagner_search(net, images, labels, **how)
        return to_levels(found, images, eps=eps, rounding=rounding)

    def search(clean: Tensor, chosen: Tensor) -> Tensor:
        best, broken = _Bisection(net, clean, chosen, eps).run()
        left = ~broken
        if left.any():
            best[left] = rounded_within(_shrink_tau(net, to_unit(clean[left]), chosen[left]), clean[left], eps, rounding)
        return best

    return attack_in_batches(net, images, labels, search, eps=eps, name="Carlini-Wagner", **how)


def carlini_wagner_search(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    label_source: str = "true",
    batch_size: int = 100,
    progress: bool = False,
) -> Tensor:
    """The smallest L-infinity perturbation that the setting "as_published" of `carlini_wagner` finds, whatever eps.

    It is what the authors' code runs (the paper names no norm and no constants): the image as ``(tanh(w) + 1) / 2``, 100
    steps of Adam on w with learning rate 0.005, and the constant 1e-5 alone, since their loop over constants ends after
    its first. A success is a loss below 1e-9 *before* a step and a misclassified image *after* it, and that image is the one
    that counts: Adam's momentum carries it a little further. tau falls from 1 (all of 0..255): after a success to 0.9 times
    itself or the distance reached, whichever is smaller, until it is below 1/256. A success ends its run at once and the
    next run starts from there; the first run without one ends the attack. At most 53 runs, 5,353 gradients an image. It is
    weak: with so small a constant a pixel that has once exceeded tau is hardly moved by the network any more, and w of a
    black or white pixel, which is half of Fashion-MNIST, has next to no slope.

    Takes the arguments of `carlini_wagner`, without eps, setting and rounding. Returns the images before rounding and
    clipping, float32 (N, C, H, W) in [0, 1], on the images' device: the original where nothing was found, and to 1e-3
    levels, which is what tanh loses, where it is misclassified to begin with. Raises what `carlini_wagner` raises.
    """

    def search(clean: Tensor, chosen: Tensor) -> Tensor:
        return _shrink_tau(net, to_unit(clean), chosen)

    return search_in_batches(
        net, images, labels, search,
        label_source=label_source, batch_size=batch_size, progress=progress, name="Carlini-Wagner",
    )


def _shrink_tau(net: nn.Module, clean: Tensor, labels: Tensor) -> Tensor:
    """The last success of each image, pixels in [0, 1]; the clean image where there is none."""
    found, live = clean.clone(), torch.arange(len(clean), device=clean.device)
    tau = torch.full((len(clean),), FIRST_TAU, device=clean.device)
    variable, small = _to_tanh(clean), torch.zeros_like(labels, dtype=torch.bool)  # was the loss, before the last step?
    adam = _Adam(variable)
    while len(live):
        squashed = variable.tanh()
        moved = ((squashed + 1) / 2).requires_grad_()
        margin, wrong = _margin(net, moved, labels[live])
        hinge = CONSTANT * margin.clamp(min=0)
        slope = gradient_of(hinge.sum(), moved)
        moved, change = moved.detach(), moved.detach() - clean[live]
        won = wrong & small
        keep = torch.where(won, True, adam.count < STEPS)
        excess = (change.abs() - tau.view(-1, 1, 1, 1)).clamp(min=0)
        small = ~won & (hinge.detach() + excess.sum(dim=(1, 2, 3)) < WON)
        slope += (excess > 0) * change.sign()
        variable -= RATE * adam.direction(slope * (1 - squashed.square()) / 2)
        found[live[won]] = moved[won]
        variable[won] = _to_tanh(moved[won])
        distance = change.abs().amax(dim=(1, 2, 3))
        tau = torch.where(won, DECREASE * torch.minimum(tau, distance), tau)
        adam.restart(won)
        keep &= tau > LAST_TAU
        live, variable, tau, small = live[keep], variable[keep], tau[keep], small[keep]
        adam.keep(keep)
    return found


def _to_tanh(pixels: Tensor) -> Tensor:
    return ((2 * pixels - 1) * SQUASHED).atanh()


def _margin(net: nn.Module, pixels: Tensor, labels: Tensor, smooth: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The label's logit minus the largest other one, and whether the prediction is another class; both (N,).

    ``smooth``, bool (N,): where to subtract the log-sum-exp of the others, to which all of them contribute.
    """
    logits = checked_logits(net, pixels)
    others = logits.scatter(1, labels[:, None], -torch.inf)
    largest = others.amax(dim=1)
    if smooth is not None:
        largest = torch.where(smooth, others.logsumexp(dim=1), largest)
    return logits.gather(1, labels[:, None])[:, 0] - largest, logits.argmax(dim=1) != labels


class _Adam:
    """Adam with its own state and its own number of steps for each image; TensorFlow's form, epsilon outside."""

    def __init__(self, like: Tensor, decay: tuple[float, float] = (0.9, 0.999)):
        self.decay = decay
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)
        self.count = torch.zeros(len(like), device=like.device)

    def direction(self, gradient: Tensor) -> Tensor:
        """What to subtract, in units of the learning rate."""
        self.count += 1
        first, second = self.decay
        self.first.lerp_(gradient, 1 - first)
        self.second.lerp_(gradient.square(), 1 - second)
        correction = (1 - second**self.count).sqrt() / (1 - first**self.count)
        return correction.view(-1, 1, 1, 1) * self.first / (self.second.sqrt() + 1e-8)

    def restart(self, rows: Tensor) -> None:
        for state in (self.first, self.second, self.count):
            state[rows] = 0

    def keep(self, rows: Tensor) -> None:
        self.first, self.second, self.count = self.first[rows], self.second[rows], self.count[rows]


class _Bisection:
    """The smallest radius, in whole levels, at which an integer image is misclassified: the setting "tuned".

    ``low`` is the largest radius that was given up, ``high`` the distance of the best image so far, ``radius`` the one
    being tried, 0 for an image that is finished.
    """

    def __init__(self, net: nn.Module, clean: Tensor, labels: Tensor, eps: int):
        self.net, self.clean, self.labels, self.eps = net, clean, labels, eps
        self.best, self.broken = clean.clone(), torch.zeros_like(labels, dtype=torch.bool)
        self.low, self.high, self.radius = (torch.full_like(labels, value) for value in (0, eps, eps))
        self.trial = torch.zeros_like(labels)
        self.constants = torch.tensor(TUNED_CONSTANTS, device=clean.device)
        # every image gets the same, so that the result does not depend on the batch, nor on a generator
        generator = torch.Generator().manual_seed(0)
        size = (len(TUNED_CONSTANTS), *clean.shape[1:])
        self.corners = 2 * torch.randint(2, size, generator=generator, device=generator.device).to(clean.device) - 1

    def run(self) -> tuple[Tensor, Tensor]:
        """The best images, uint8, and which of them are misclassified."""
        live = self._deepfool_first()
        variable = self._start(live)
        adam = _Adam(variable, TUNED_DECAY)
        while len(live):
            image, gradient, wrong = self._slope(variable, live)
            rate = TUNED_RATE * (1 - adam.count / TUNED_STEPS) * self.radius[live] / TOP
            variable = self._moved(variable - rate.view(-1, 1, 1, 1) * adam.direction(gradient), live)
            failed = ~wrong & (adam.count >= TUNED_STEPS)
            self._succeed(live[wrong], image[wrong])
            self._fail(live[failed])
            ended = wrong | failed
            variable[ended] = self._start(live[ended])
            adam.restart(ended)
            keep = self.radius[live] > 0
            live, variable = live[keep], variable[keep]
            adam.keep(keep)
        return self.best, self.broken

    def _deepfool_first(self) -> Tensor:
        """Take DeepFool's image where it is a success; the images that are left to search."""
        every = torch.arange(len(self.clean), device=self.clean.device)
        crossing = nearest_crossing(self.net, to_unit(self.clean), self.labels, FIRST_ITERATIONS)
        crossing = rounded_within(crossing, self.clean, self.eps, "outward")
        with torch.no_grad():
            wrong = checked_logits(self.net, to_unit(crossing)).argmax(dim=1) != self.labels
        self._succeed(every[wrong], crossing[wrong])
        return every[self.radius > 0]

    def _start(self, live: Tensor) -> Tensor:
        """The best image within the radius; as long as there is none, another one at random for each trial."""
        noise = self._columns(live) * self.corners[self.trial[live]]
        noise[self.broken[live]] = 0
        return to_unit(self._within(self.best[live] + noise, live))

    def _slope(self, variable: Tensor, live: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The integer images at ``variable``, the gradient of its loss, and which of the images are misclassified."""
        image = self._within((variable * TOP).round().to(torch.int16), live)
        pixels = to_unit(image).requires_grad_()
        margin, wrong = _margin(self.net, pixels, self.labels[live], ~self.broken[live])
        gradient = gradient_of(margin.sum(), pixels)
        constant, change = self._constant(live), variable - to_unit(self.clean[live])
        excess = (change.abs() * TOP > self._columns(live)) * change.sign()
        return image, torch.where(constant > 0, constant * gradient + excess, gradient), wrong

    def _moved(self, variable: Tensor, live: Tensor) -> Tensor:
        """``variable`` within [0, 1], and within the radius where the constant is 0."""
        clean, radius = to_unit(self.clean[live]), self._columns(live) / TOP
        walled = torch.minimum(torch.maximum(variable, clean - radius), clean + radius)
        return torch.where(self._constant(live) > 0, variable, walled).clamp(0, 1)

    def _constant(self, live: Tensor) -> Tensor:
        return self.constants[self.trial[live]].view(-1, 1, 1, 1)

    def _within(self, levels: Tensor, live: Tensor) -> Tensor:
        clean = self.clean[live]
        return step_within(clean, clean, levels.to(torch.int16) - clean, self._columns(live))

    def _columns(self, live: Tensor) -> Tensor:
        return self.radius[live].view(-1, 1, 1, 1)

    def _succeed(self, live: Tensor, image: Tensor) -> None:
        self.best[live], self.broken[live] = image, True
        self.high[live] = (image.long() - self.clean[live]).abs().amax(dim=(1, 2, 3))
        self._next_radius(live)

    def _fail(self, live: Tensor) -> None:
        last = self.broken[live] | (self.trial[live] == len(TUNED_CONSTANTS) - 1)
        self.trial[live[~last]] += 1
        given_up = live[last]
        self.low[given_up] = self.radius[given_up]
        self._next_radius(given_up)

    def _next_radius(self, live: Tensor) -> None:
        low, high = self.low[live], self.high[live]
        self.radius[live] = torch.where(high - low > 1, (low + high) // 2, 0)
