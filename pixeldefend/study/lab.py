"""Runs the study: gives a record for a condition, from disk where one with the same configuration exists."""

import os
import time
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import attacks, paths
from ..checks import check_choice
from ..classifiers import load_classifier, predict
from ..defenses import PixelDefend
from ..detection import LikelihoodDetector
from ..fingerprint import fingerprint
from ..images import Images, load_images
from ..pixelcnn import PixelCNN
from .conditions import EPS_DEFEND, PROFILES, REFERENCE_IMAGES, Condition
from .records import Record, load_record, save_record


class Lab:
    """One data set at one profile, with its density; everything is loaded or computed when it is first asked for.

    Args:
        data_set: "fashion-mnist".
        profile: "smoke", "laptop" or "paper": see `conditions.PROFILES`.
        precision: of the network when images are scored and purified; part of every record's configuration.
        recompute: load no record from before now. By default none from before the time that ``PIXELDEFEND_RECOMPUTE``
            gives (in seconds since 1970; a build sets it), so that each is computed once for all notebooks of a build.
        records: where records lie; by default ``data/records/<profile>``, and a git-ignored cache for "smoke".
    """

    def __init__(self, data_set: str, profile: str = "laptop", *, precision: str = "bfloat16",
                 recompute: bool | None = None, records: Path | None = None, density: str | None = None,
                 device: torch.device | str = "cpu", progress: bool = False):
        check_choice(profile, PROFILES, name="profile")
        self.data_set, self.profile, self.precision = data_set, PROFILES[profile], precision
        self.not_before = time.time() if recompute else 0.0
        if recompute is None:
            self.not_before = float(os.environ.get("PIXELDEFEND_RECOMPUTE", 0))
        default = paths.ROOT / "cache" / "records" if profile == "smoke" else paths.RECORDS
        self.records = Path(records) if records else default / profile
        self.device, self.progress = device, progress
        self.density_name = density or data_set
        self._classifiers: dict[tuple[str, str], nn.Module] = {}
        self._attacked: dict[tuple, Tensor] = {}

    @cached_property
    def test(self) -> Images:
        return load_images(self.data_set, "test", limit=self.profile.images)

    @cached_property
    def density(self) -> PixelCNN:
        return PixelCNN.from_pretrained(self.density_name).to(self.device)

    @cached_property
    def density_fingerprint(self) -> str:
        return fingerprint(self.density)

    def classifier(self, network: str = "resnet", training: str = "normal") -> nn.Module:
        key = (network, training)
        if key not in self._classifiers:
            self._classifiers[key] = load_classifier(self.data_set, network, training=training, device=self.device)
        return self._classifiers[key]

    def attacked(self, condition: Condition, *, limit: int | None = None) -> Tensor:
        """The attacked test images of a condition before any defence, uint8 (N, C, H, W); ``limit``: the first so many."""
        images, labels = self.test.images[:limit], self.test.labels[:limit]
        if condition.attack == "clean":
            return images
        key = (condition.attack, condition.eps, condition.network, condition.training, len(images))
        if key not in self._attacked:
            options = {"generator": torch.Generator().manual_seed(0)} if condition.attack == "rand" else {}
            net = self.classifier(condition.network, condition.training)
            self._attacked[key] = attacks.ATTACKS[condition.attack](net, images, labels, eps=condition.eps, **options)
        return self._attacked[key]

    def defended(self, condition: Condition, *, limit: int | None = None) -> Tensor:
        """The images that the classifier sees under a condition: attacked, and purified where it says so."""
        images = self.attacked(condition, limit=limit)
        if condition.defence == "none":
            return images
        purify = PixelDefend(self.density, eps_defend=condition.eps_defend, precision=self.precision)
        return purify.purify(images, progress=self.progress)

    def record(self, condition: Condition) -> Record:
        """The record of a condition, from disk or computed now (and written)."""
        net = self.classifier(condition.network, condition.training)
        config = {
            **vars(condition),
            "split": "test",
            "images": len(self.test),
            "seed": 0,
            "precision": self.precision,
            "density": self.density_fingerprint,
            "classifier": fingerprint(net),
        }
        path = self.records / f"{condition.name}.json"
        return self._load_or_compute(path, config, lambda: self._evaluate(condition, net), not_before=self.not_before)

    def _evaluate(self, condition: Condition, net: nn.Module) -> tuple[list, list, Tensor]:
        images = self.defended(condition)
        bits = self.density.bits_per_dim(images, precision=self.precision, progress=self.progress)
        return self.test.labels.tolist(), predict(net, images).tolist(), bits

    def reference(self, split: str) -> Record:
        """Bits per dimension of the first images of "train", or of all of "held-out", for detection.

        Unlike other records these are never recomputed when they exist and match: they need the training images, which
        are not in the repository.
        """
        check_choice(split, REFERENCE_IMAGES, name="split")
        limit = REFERENCE_IMAGES[split]
        config = {"data_set": self.data_set, "split": split, "images": limit, "precision": self.precision}
        config["density"] = self.density_fingerprint

        def evaluate() -> tuple[list, list, Tensor]:
            data = load_images(self.data_set, split, limit=limit)
            return [], [], self.density.bits_per_dim(data.images, precision=self.precision, progress=self.progress)

        path = paths.RECORDS / "reference" / f"{self.density_name}-{split}.json"
        return self._load_or_compute(path, config, evaluate, not_before=0.0)

    def detector(self, split: str) -> LikelihoodDetector:
        """A detector calibrated on "train" images (as the paper) or on "held-out" ones (which keeps the test valid)."""
        return LikelihoodDetector(self.density, self.reference(split).bits, precision=self.precision)

    def pixeldefend(self, attack: str = "clean", eps: int = 0) -> Condition:
        """The condition of this data set with the paper's eps_defend, after an attack on the normally trained ResNet."""
        return Condition(self.data_set, attack, eps, defence="pixeldefend", eps_defend=EPS_DEFEND[self.data_set])

    def _load_or_compute(self, path: Path, config: dict, evaluate, *, not_before: float) -> Record:
        if path.exists() and path.stat().st_mtime >= not_before:
            record = load_record(path)
            if record.config == config:
                return record
        started = time.perf_counter()
        labels, predictions, bits = evaluate()
        made = {
            "seconds": round(time.perf_counter() - started, 1),
            "device": str(self.device),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
        }
        rounded = [round(value, 6) for value in bits.double().tolist()]
        record = Record(config, list(range(len(rounded))), labels, predictions, rounded, made)
        save_record(record, path)
        return record
