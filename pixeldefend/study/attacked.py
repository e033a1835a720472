"""The attack of a condition, and which conditions share it."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from .. import attacks
from ..classifiers.inference import device_of
from ..defenses import MedianFiltered
from ..pixelcnn.precision import full_products
from .conditions import SEARCHED, TUNED, Condition

DEAR_BATCH = 500  # images: the steps in which only a few of a batch still move are what costs, so few batches


def shared_attack(condition: Condition) -> Condition:
    """The condition under which the attack finds what it finds under the given one: without a defence that it does not know
    of, without rounding, and with eps 0 where its search does not depend on eps."""
    known = {"defence": condition.defence if condition.through_median else "none", "eps_defend": 0, "rounding": "outward"}
    return replace(condition, eps=0 if condition.attack in SEARCHED else condition.eps, **known)


def run_attack(condition: Condition, net: nn.Module, images: Tensor, labels: Tensor, *, seed: int,
               progress: bool = False) -> Tensor:  # fmt: skip
    """The attack of a condition, which is not "clean", on images: levels (N, C, H, W) as uint8; of those in
    `conditions.SEARCHED` what they find for every eps, float32 in [0, 1]. ``seed`` is that of RAND. Gradients are float32
    throughout, on a GPU too, where convolutions are rounded to TF32 otherwise. Raises as the attack."""
    net = MedianFiltered(net) if condition.through_median else net
    with full_products(device_of(net, images)):
        return _run(condition, net, images, labels, seed, progress)


def _run(condition: Condition, net: nn.Module, images: Tensor, labels: Tensor, seed: int, progress: bool) -> Tensor:
    dear = {"batch_size": DEAR_BATCH, "progress": progress}
    if condition.attack in SEARCHED:
        return attacks.SEARCHES[condition.attack](net, images, labels, **dear)
    if condition.attack == TUNED:
        return attacks.carlini_wagner(net, images, labels, eps=condition.eps, setting="tuned", **dear)
    options = {"generator": torch.Generator().manual_seed(seed)} if condition.attack == "rand" else {}
    return attacks.ATTACKS[condition.attack](net, images, labels, eps=condition.eps, **options)
