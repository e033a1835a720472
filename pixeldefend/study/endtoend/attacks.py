"""Attacks on classifier and PixelDefend together (the paper, section 4.4).

Two of them. The authors' is BIM through the purification, unrolled: it needs the purification's own gradients, see
`pixeldefend.defenses.unrolled`. That of Athalye, Carlini & Wagner (2018) goes around them, see `pixeldefend.attacks.bpda`.
The defence under attack is greedy purification of integers in both cases; a relaxation of it only lends its gradient.
"""

import base64
import contextlib
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...attacks import bim, bim_iterations, bpda
from ...classifiers import predict
from ...classifiers.inference import checked_logits, device_of
from ...defenses import PixelDefend, UnrolledPurification, gradient_flow
from ...fingerprint import fingerprint
from ...scaling import to_unit
from ..conditions import EPS_ATTACK, EPS_DEFEND, Condition
from ..lab import Lab
from ..records import tensor_digest

TEMPERATURES = (1.0, 0.1, 0.01, 1e-6)  # of the relaxation; the last one's result is greedy purification
BIM_TEMPERATURE = 0.1
BIM_EPS = 8  # in both of the paper's tables
THROUGH, AROUND = "end-to-end-unrolled", "end-to-end-bpda"  # names of measurements


@dataclass(frozen=True)
class Sizes:
    """How much is run, always on the first test images.

    ``images`` are attacked by BPDA, in at most ``steps`` steps. The gradients of the unrolled purification are computed for
    ``flow_images`` and BIM follows them for the first ``bim_images`` of those. ``side``: those images are cut down to so
    many pixels in the middle, a multiple of 4 (``None``: whole images). A part need not show what the label names: its
    label is the class that the classifier behind greedy purification sees in it.
    """

    images: int
    steps: int
    flow_images: int
    bim_images: int
    side: int | None = None


SIZES = {
    "fashion-mnist": {
        "smoke": Sizes(images=2, steps=1, flow_images=2, bim_images=1, side=4),
        "laptop": Sizes(images=100, steps=50, flow_images=4, bim_images=4),
        "paper": Sizes(images=1000, steps=100, flow_images=100, bim_images=100),  # the authors attacked 100 images
    },
    "cifar10": {
        "smoke": Sizes(images=2, steps=1, flow_images=2, bim_images=1, side=4),
        "laptop": Sizes(images=100, steps=50, flow_images=4, bim_images=4, side=16),
        "paper": Sizes(images=1000, steps=100, flow_images=100, bim_images=100),
    },
}


def sizes_of(lab: Lab) -> Sizes:
    """The sizes for a lab's data set and profile."""
    return SIZES[lab.data_set][lab.profile_name]


def through_purification(lab: Lab, sizes: Sizes) -> dict:
    """The authors' attack: gradients of the unrolled purification, and BIM with eps `BIM_EPS` along them; a measurement.

    Returns:
        ``labels``; ``flow``, one entry for each of `TEMPERATURES`, see `measure_flow`; ``clean`` and ``bim``, see
        `defended_outcome`, the latter with ``largest_change`` (levels) of each image. The attack is on the relaxation at
        `BIM_TEMPERATURE`, the outcome is that of greedy purification.
    """
    net, density, eps_defend = lab.classifier(), lab.density, EPS_DEFEND[lab.data_set]

    def measure() -> dict:
        purify = PixelDefend(density, eps_defend=eps_defend, precision=lab.precision)
        parts, few = purified_parts(lab, sizes), slice(sizes.bim_images)
        images, greedy, labels = parts.images, parts.greedy, parts.labels
        unrolled = {t: UnrolledPurification(density, eps_defend=eps_defend, temperature=t) for t in TEMPERATURES}
        with denormals_flushed():
            flow = [measure_flow(of, net, images, labels, greedy=greedy) for of in unrolled.values()]
            system = nn.Sequential(unrolled[BIM_TEMPERATURE], net).eval()
            attacked = bim(system, images[few], labels[few], eps=BIM_EPS, progress=lab.progress)
        changes = (attacked.int() - images[few].int()).abs().flatten(1).amax(1).tolist()
        return {
            "labels": labels.tolist(),
            "flow": flow,
            "clean": defended_outcome(net, greedy, labels),
            "bim": {**defended_outcome(net, purify(attacked), labels[few]), "largest_change": changes},
        }

    true = lab.test.labels[: sizes.flow_images]
    config = configuration(lab, _parts(lab, sizes), true, sizes=("flow_images", "bim_images", "side"), of=sizes)
    config |= {} if sizes.side is None else {"labels": "seen after purification"}
    config |= {"temperatures": TEMPERATURES, "bim_temperature": BIM_TEMPERATURE, "bim_eps": BIM_EPS}
    return lab.measurement(THROUGH, config | {"bim_steps": bim_iterations(BIM_EPS)}, measure)


@dataclass(frozen=True)
class PurifiedParts:
    """What `through_purification` attacks: ``images`` and what ``greedy`` purification makes of them, uint8 (N, C, H, W),
    and their ``labels``, int64 (N,)."""

    images: Tensor
    greedy: Tensor
    labels: Tensor


def purified_parts(lab: Lab, sizes: Sizes) -> PurifiedParts:
    """The first test images, or the middle of them: see `Sizes`."""
    images = _parts(lab, sizes)
    greedy = PixelDefend(lab.density, eps_defend=EPS_DEFEND[lab.data_set], precision=lab.precision)(images)
    labels = lab.test.labels[: len(images)] if sizes.side is None else predict(lab.classifier(), greedy)
    return PurifiedParts(images, greedy, labels)


def _parts(lab: Lab, sizes: Sizes) -> Tensor:
    return middle(lab.test.images[: sizes.flow_images], sizes.side)


def measure_flow(purification: UnrolledPurification, net: nn.Module, images: Tensor, labels: Tensor, *,
                 greedy: Tensor) -> dict:  # fmt: skip
    """What becomes of a gradient on its way back through purification, as plain values; each list runs over the images.

    Returns:
        ``temperature``; ``incoming`` and ``outgoing``, L2 norms of the gradient after and before purification, per unit of
        [0, 1]; ``chain_norms``, a list for each image, see `GradientFlow`; ``zero_share``, of sub-pixels with a gradient of
        exactly 0 before purification; ``same_sign``, the share in which both gradients' signs agree; ``from_greedy``, mean
        distance of the relaxation's result from ``greedy``, levels.
    """
    flow = gradient_flow(purification, net, images, labels)
    incoming, outgoing = flow.incoming.flatten(1), flow.outgoing.flatten(1)
    results = {
        "incoming": incoming.norm(dim=1),
        "outgoing": outgoing.norm(dim=1),
        "chain_norms": flow.chain_norms,
        "zero_share": (outgoing == 0).double().mean(1),
        "same_sign": (outgoing.sign() == incoming.sign()).double().mean(1),
        "from_greedy": (flow.purified - greedy.to(flow.purified.device)).abs().flatten(1).mean(1),
    }
    return {"temperature": purification.temperature, **{name: _significant(values) for name, values in results.items()}}


def around_purification(lab: Lab, sizes: Sizes) -> dict:
    """The attack that takes purification for the identity, and BIM that does not know of it, on the same images.

    Returns:
        A measurement: ``labels``; ``clean``, see `defended_outcome`, with ``bits`` (per dimension, before purification);
        ``attacks``, for each eps of the paper (as text) a dictionary of "bim" and "bpda" with the same entries, "bpda" also
        with ``first_wrong``, see `Watched`, and ``mean_change`` (levels); ``gallery``, for each eps the first attacked
        images and their purified versions as text, for `unpacked`.
    """
    images, labels = lab.test.images[: sizes.images], lab.test.labels[: sizes.images]
    net, density, eps_defend = lab.classifier(), lab.density, EPS_DEFEND[lab.data_set]
    purify = PixelDefend(density, eps_defend=eps_defend, precision=lab.precision)

    def outcome(attacked: Tensor, purified: Tensor) -> dict:
        bits = density.bits_per_dim(attacked, precision=lab.precision)
        return {**defended_outcome(net, purified, labels), "bits": _significant(bits)}

    def attack(eps: int) -> tuple[dict, dict]:
        unaware = lab.attacked(Condition(lab.data_set, "bim", eps), limit=len(images))
        watched = Watched(purify, net, labels)
        one_batch = {"batch_size": len(images), "progress": lab.progress}
        aware = bpda(net, images, labels, purify=watched, eps=eps, steps=sizes.steps, **one_batch)
        watched(aware[watched.live])  # what the last step made of those that are left
        purified_unaware, purified = purify(torch.cat([unaware, aware])).chunk(2)
        change = (aware.double() - images.double()).abs().flatten(1).mean(1)
        seen = {"first_wrong": watched.first_wrong, "mean_change": _significant(change)}
        shown = slice(lab.profile.gallery)
        attacks = {"bim": outcome(unaware, purified_unaware), "bpda": outcome(aware, purified) | seen}
        return attacks, {"bpda": packed(aware[shown]), "purified": packed(purified[shown])}

    def measure() -> dict:
        found = {str(eps): attack(eps) for eps in EPS_ATTACK[lab.data_set]}
        attacks, gallery = ({eps: pair[n] for eps, pair in found.items()} for n in (0, 1))
        return {"labels": labels.tolist(), "clean": outcome(images, purify(images)), "attacks": attacks, "gallery": gallery}

    config = configuration(lab, images, labels, sizes=("images", "steps"), of=sizes)
    return lab.measurement(AROUND, config | {"eps": EPS_ATTACK[lab.data_set], "gallery": lab.profile.gallery}, measure)


class Watched:
    """A purifier for one run of `bpda` in one batch that notes when the classifier behind it first got each image wrong.

    ``first_wrong`` holds, for each image, the number of steps after which it was wrong (0: without any), or ``None``;
    ``live``, int64, the positions of the others. Each call is a step later than the one before, on the images at ``live``.
    """

    def __init__(self, purify, net: nn.Module, labels: Tensor):
        self.purify, self.net, self.labels, self.steps = purify, net, labels.cpu(), 0
        self.live, self.first_wrong = torch.arange(len(labels)), [None] * len(labels)

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) != len(self.live):
            raise ValueError(f"{len(self.live)} images are not wrong yet, but {len(images)} came: attack in one batch")
        purified = self.purify(images)
        right = predict(self.net, purified).cpu() == self.labels[self.live]
        for position in self.live[~right].tolist():
            self.first_wrong[position] = self.steps
        self.live, self.steps = self.live[right], self.steps + 1
        return purified


def right_after(first_wrong: Sequence[int | None], steps: int) -> list[int]:
    """How many images are still right after 0, 1, .. ``steps`` steps, from `Watched`."""
    return [sum(wrong is None or wrong > step for wrong in first_wrong) for step in range(steps + 1)]


@torch.no_grad()
def defended_outcome(net: nn.Module, purified: Tensor, labels: Tensor) -> dict:
    """``predictions`` on purified images, uint8 (N, C, H, W), and ``loss``, the cross-entropy of each (nats)."""
    device = device_of(net, purified)
    loss = F.cross_entropy(checked_logits(net, to_unit(purified.to(device))), labels.to(device), reduction="none")
    return {"predictions": predict(net, purified).tolist(), "loss": _significant(loss)}


def middle(images: Tensor, side: int | None) -> Tensor:
    """The ``side`` x ``side`` pixels in the middle of images (N, C, H, W); with ``None`` the images."""
    if side is None:
        return images
    top, left = ((size - side) // 2 for size in images.shape[2:])
    if side < 1 or min(top, left) < 0:
        raise ValueError(f"side must be in 1..{min(images.shape[2:])}, not {side}")
    return images[:, :, top : top + side, left : left + side].contiguous()


def packed(images: Tensor) -> dict:
    """uint8 images as plain values, for a measurement."""
    return {"shape": list(images.shape), "zlib": base64.b85encode(zlib.compress(images.cpu().numpy().tobytes(), 9)).decode()}


def unpacked(plain: dict) -> Tensor:
    """The images that `packed` was given."""
    content = zlib.decompress(base64.b85decode(plain["zlib"]))
    return torch.tensor(list(content), dtype=torch.uint8).view(plain["shape"])


@contextlib.contextmanager
def denormals_flushed() -> Iterator[None]:
    """Numbers below 1.2e-38 become 0, on this thread: vanishing gradients are full of them, and they are slow."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def configuration(lab: Lab, images: Tensor, labels: Tensor, *, sizes: Sequence[str], of: Sizes) -> dict:
    """What decides a measurement on ``images`` and their ``labels``; ``sizes`` names those of a lab's sizes that do."""
    return {
        **{name: asdict(of)[name] for name in sizes},
        "data": tensor_digest(images, labels),
        "eps_defend": EPS_DEFEND[lab.data_set],
        "precision": lab.precision,
        "classifier": fingerprint(lab.classifier()),
        "density": lab.density_fingerprint,
    }


def _significant(values: Tensor) -> list:
    """As nested lists of numbers with 6 significant digits."""
    if values.ndim > 1:
        return [_significant(row) for row in values]
    return [float(f"{value:.6g}") for value in values.double().tolist()]
