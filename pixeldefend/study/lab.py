"""Runs the study: gives a record for a condition, from disk where one with the same configuration exists."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import attacks, paths
from ..attacks.carlini_wagner import tuned_search
from ..checks import check_choice
from ..classifiers import load_classifier, predict, saved_classifiers
from ..classifiers.inference import predict_pixels
from ..classifiers.store import classifier_name
from ..defenses import PixelDefend, squeeze
from ..detection import LikelihoodDetector
from ..fingerprint import fingerprint
from ..images import DATA_SETS, Images, load_images
from ..pixelcnn import PixelCNN, shipped_densities
from .adaptive import ADVERSARIES, Outcome, adaptive_record, as_plain, choose_threshold, outcomes
from .attacked import run_attack, shared_attack
from .conditions import (
    ADAPTIVE,
    ATTACKS,
    DEAR,
    EPS_ATTACK,
    EPS_DEFEND,
    PROFILES,
    PURIFYING,
    REFERENCE_IMAGES,
    ROWS,
    SEARCHED,
    SQUEEZE_LEVELS,
    THRESHOLD_IMAGES,
    TUNED,
    Condition,
    Row,
    attacks_with_eps,
    densities_of,
)
from .records import Record, keep_tensor, kept_tensor, load_record, tensor_digest
from .store import REPLACE, REPLACE_REFERENCE, Store, recomputing

SEED = 0
TOGETHER = 500  # images of several conditions to purify at once


class Lab:
    """One data set at one profile, with its density; everything is loaded or computed when it is first asked for.

    What the attacks in `conditions.DEAR` find is kept on disk too, in the git-ignored ``cache/attacked/<profile>``: it
    takes minutes, and rows, roundings, defences and (but for the tuned attack) eps share it.

    Args:
        data_set: "fashion-mnist" or "cifar10".
        profile: "smoke", "laptop" or "paper": see `conditions.PROFILES`.
        precision: of the density's network when images are scored and purified, "float32" or "bfloat16", and of the
            records that are loaded. By default float32, and records of either are loaded: bfloat16 changes the mean by
            about 0.001 bits per dimension, and processors without it need several times as long.
        recompute: what to make anew, though it is there: ``True`` or 1, all results from before now; "stale", those that
            were made with other weights or settings; ``False``, nothing: of the repository's records, those raise
            `StaleRecord`, while one's own, in ``records`` or of "smoke", are replaced; results on reference images are
            the repository's in any case. By default what
            ``PIXELDEFEND_RECOMPUTE`` says, 1 or what a build sets: "stale", or the time (seconds since 1970) before which
            nothing counts, so that each is computed once for all notebooks of a build.
        records: where records lie; by default ``data/records/<profile>``, and a git-ignored cache for "smoke".
        density: a name or folder for `PixelCNN.from_pretrained`; by default the first of `conditions.densities_of`
            that is shipped. Results on reference images go by the folder's own name. Where there is no density, records
            hold no bits per dimension, and what needs the density raises ``ValueError``.
    """

    def __init__(self, data_set: str, profile: str = "laptop", *, precision: str | None = None,
                 recompute: bool | str | float | None = None, records: Path | None = None,
                 density: str | Path | None = None, device: torch.device | str = "cpu", progress: bool = False):
        check_choice(profile, PROFILES, name="profile")
        self.data_set, self.profile_name, self.profile = data_set, profile, PROFILES[profile]
        self.precision = precision or "float32"
        not_before, replaces = recomputing(recompute)
        free = () if precision else ("precision",)
        own = records is not None or profile == "smoke"
        self.store = Store(device, not_before, free, keeps="" if replaces or own else REPLACE)
        self.lasting = Store(device, free=free, keeps="" if replaces else REPLACE_REFERENCE)
        default = paths.ROOT / "cache" / "records" if profile == "smoke" else paths.RECORDS
        self.records = Path(records) if records else default / profile
        self.cache = paths.ROOT / "cache" / "attacked" / profile
        self.device, self.progress = device, progress
        wanted = densities_of(profile, data_set)
        shipped = [name for name in wanted if name in shipped_densities()]
        self.has_density = bool(density or shipped)
        self.density_name = density or (shipped or wanted)[0]
        self._classifiers: dict[tuple[str, str], nn.Module] = {}
        self._attacked: dict[Condition, Tensor] = {}  # by `shared_attack`
        self._purified: dict[Condition, Tensor] = {}  # ahead of their records

    @cached_property
    def test(self) -> Images:
        """The profile's test images. Those in the repository, where they are enough, whatever ``PIXELDEFEND_IMAGES`` says:
        the committed records are of these, and copies of CIFAR-10 differ from the 501st image on."""
        limit = self.profile.images
        enough = limit is not None and limit <= DATA_SETS[self.data_set].embedded["test"]
        return load_images(self.data_set, "test", limit=limit, root=paths.EMBEDDED if enough else None)

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
        """The attacked test images of a condition before any defence; ``limit``: only the first so many.

        uint8 (N, C, H, W); for ``rounding="none"`` float32 in [0, 1]. N is the profile's number for the attack.
        """
        if condition.data_set != self.data_set:
            raise ValueError(f"this lab is for {self.data_set}, the condition for {condition.data_set}")
        count = self._count(condition)
        images = self.test.images[: count if limit is None else min(limit, count)]
        if condition.attack == "clean":
            return images
        found = self._found(condition, len(images))
        if condition.attack not in SEARCHED:
            return found
        if condition.rounding == "none":
            return attacks.clipped(found, images, eps=condition.eps)
        return attacks.to_levels(found, images, eps=condition.eps, rounding=condition.rounding)

    def _count(self, condition: Condition) -> int:
        limit = self.profile.images_for(condition)
        return len(self.test) if limit is None else min(limit, len(self.test))

    def _found(self, condition: Condition, count: int) -> Tensor:
        """What the attack finds on the first ``count`` images; it runs once for all conditions that share it."""
        of = shared_attack(condition)
        if len(self._attacked.get(of, ())) < count:
            run = self._attack if of.attack not in DEAR else self._attack_or_cache
            self._attacked[of] = run(of, count)
        return self._attacked[of][:count]

    def _attack(self, of: Condition, count: int) -> Tensor:
        net, data = self.classifier(of.network, of.training), self.test
        return run_attack(of, net, data.images[:count], data.labels[:count], seed=SEED, progress=self.progress)

    def _attack_or_cache(self, of: Condition, count: int) -> Tensor:
        """`_attack`, or what it once found. Only results on all images are kept: a gallery's ten must not replace them."""
        config, path = self._config(of), self.cache / f"{of.name}.safetensors"
        found = kept_tensor(config, path) if self.store.is_recent(path) else None
        if found is None:
            found = self._attack(of, count)
            if count == self._count(of):
                keep_tensor(found, config, path)
        return found

    def defended(self, condition: Condition, *, limit: int | None = None) -> Tensor:
        """The images that the classifier sees under a condition: attacked, and squeezed or purified where it says so."""
        images = self.attacked(condition, limit=limit)
        threshold = None
        if condition.defence == ADAPTIVE:
            threshold = self.threshold(condition.network, condition.training, condition.eps_defend)
        if condition.defence == "none":
            return images
        if condition.defence == "feature-squeezing":
            return squeeze(images, levels=SQUEEZE_LEVELS[self.data_set])
        if limit is None and condition in self._purified:
            return self._purified.pop(condition)
        purify = PixelDefend(self.density, eps_defend=condition.eps_defend, threshold=threshold, precision=self.precision)
        return purify.purify(images, progress=self.progress)

    def record(self, condition: Condition) -> Record:
        """The record of a condition, from disk or computed now (and written).

        It holds bits per dimension where `Condition.wants_bits` and there is a density. Only then, or if the density
        purifies, does it depend on the density. That of adaptive PixelDefend is put together from those with and
        without purification, and is not written.
        """
        if condition.defence == ADAPTIVE:
            return self._adaptive(condition)
        config, path = self.configuration(condition), self._path(condition)
        return self.store.record(path, config, lambda: self._evaluate(condition, scored="density" in config))

    def stored(self, condition: Condition) -> Record | None:
        """The record of a condition that is on disk and was made with these weights and settings; ``None`` if there is none.

        Nothing is computed, and images are not needed: those that the record is of are not compared with those at hand.
        """
        if condition.defence == ADAPTIVE:
            parts = [self.stored(part) for part in _parts(condition)]
            return None if None in parts else self._combined(condition, *parts)
        path = self._path(condition)
        if not path.exists():
            return None
        record = load_record(path)
        known = {key: record.config[key] for key in ("split", "images", "data") if key in record.config}
        return record if self.store.matches(record.config, self._settings(condition) | known) else None

    def _path(self, condition: Condition) -> Path:
        return self.records / f"{condition.name}.json"

    def configuration(self, condition: Condition) -> dict:
        """All that decides a condition's record, as its file says it."""
        return self._settings(condition) | self._image_settings(condition)

    def _settings(self, condition: Condition) -> dict:
        """The same without the images."""
        config = self._attack_settings(condition)
        if condition.defence == "feature-squeezing":
            config["squeeze_levels"] = SQUEEZE_LEVELS[self.data_set]
        if condition.defence == "pixeldefend" or (condition.wants_bits and self.has_density):
            config |= {"precision": self.precision, "density": self.density_fingerprint}
        return config

    def _adaptive(self, condition: Condition) -> Record:
        return self._combined(condition, *map(self.record, _parts(condition)))

    def _combined(self, condition: Condition, plain: Record, purified: Record) -> Record:
        threshold = self.threshold(condition.network, condition.training, condition.eps_defend)
        config = {**purified.config, "defence": condition.defence, "threshold": threshold}
        return adaptive_record(plain, purified, threshold, config)

    def threshold(self, network: str, training: str, eps_defend: int) -> float:
        """Of adaptive PixelDefend before a classifier, in bits per dimension: see `adaptive`."""
        return choose_threshold(self.held_out(network, training, eps_defend), EPS_ATTACK[self.data_set])

    def held_out(self, network: str, training: str, eps_defend: int) -> dict[str, Outcome]:
        """What attacks and purification do to the first `conditions.THRESHOLD_IMAGES` held-out images."""
        net = self.classifier(network, training)
        config = {
            "network": network,
            "training": training,
            "images": THRESHOLD_IMAGES,
            "attacks": ADVERSARIES,
            "eps_attacks": EPS_ATTACK[self.data_set],
            "eps_defend": eps_defend,
            "precision": self.precision,
            "classifier": fingerprint(net),
            "density": self.density_fingerprint,
        }

        def measure() -> dict:
            data = load_images(self.data_set, "held-out", limit=THRESHOLD_IMAGES)
            found = outcomes(net, self.density, data.images, data.labels, eps_attacks=config["eps_attacks"],
                             eps_defend=eps_defend, precision=self.precision)  # fmt: skip
            return as_plain(found)

        found = self.measurement(f"held-out-{network}-{training}", config, measure, reference=True)
        return {name: Outcome(**values) for name, values in found.items()}

    def cells(self, rows: Iterable[Row] = ROWS, attacks: Sequence[str] = ATTACKS) -> dict[tuple, Record]:
        """The records of whole rows, at every eps of the paper: {(row, attack, eps): record}, eps 0 for "clean"."""
        columns = attacks_with_eps(self.data_set, attacks)
        wanted = {(row, a, e): row.condition(self.data_set, a, e) for row in rows for a, e in columns}
        lacking = [of for of in wanted.values() if of.defence == "pixeldefend" and self._is_lacking(of)]
        found = {}
        for key, condition in wanted.items():
            if condition in lacking and condition not in self._purified:
                self.purify_ahead(self._first_together(lacking[lacking.index(condition) :]))
            found[key] = self.record(condition)
        return found

    def _is_lacking(self, condition: Condition) -> bool:
        """Whether `record` would make it, as far as weights and settings say."""
        return not self.store.is_recent(self._path(condition)) or (not self.store.keeps and self.stored(condition) is None)

    def _first_together(self, conditions: Sequence[Condition]) -> Sequence[Condition]:
        """The first of ``conditions``, as many as `TOGETHER` allows, and one at least."""
        ends = list(accumulate(map(self._count, conditions)))
        return conditions[: max(1, sum(end <= TOGETHER for end in ends))]

    def purify_ahead(self, conditions: Iterable[Condition]) -> None:
        """Purify for several conditions with the defence "pixeldefend" at once, and keep it until `defended` asks for it: a
        step costs little more for many images than for few."""
        groups: dict[int, dict[Condition, Tensor]] = {}
        for condition in conditions:
            groups.setdefault(condition.eps_defend, {})[condition] = self.attacked(condition)
        for eps, given in groups.items():
            purify = PixelDefend(self.density, eps_defend=eps, precision=self.precision)
            purified = purify.purify(torch.cat(list(given.values())), progress=self.progress)
            self._purified |= dict(zip(given, purified.split([len(of) for of in given.values()]), strict=True))

    def missing(self, rows: Iterable[Row] = ROWS) -> dict[Row, str]:
        """The rows that cannot be made yet, each with what it lacks: its classifier, or a density to purify with."""
        existing, lacking = saved_classifiers(), {}
        for row in rows:
            name = classifier_name(self.data_set, row.network, row.training)
            if name not in existing:
                lacking[row] = f"the classifier {name}"
            elif row.defence in PURIFYING and not self.has_density:
                lacking[row] = f"a density of {self.data_set}"
        return lacking

    def _config(self, condition: Condition) -> dict:
        """What decides the attacked images and their predictions, but for a defence's own settings."""
        return self._attack_settings(condition) | self._image_settings(condition)

    def _image_settings(self, condition: Condition) -> dict:
        count = self._count(condition)
        # copies of CIFAR-10 differ
        data = tensor_digest(self.test.images[:count], self.test.labels[:count])
        return {"split": "test", "images": count, "data": data}

    def _attack_settings(self, condition: Condition) -> dict:
        # the tuned attack is our own, and gets better; the others are as published
        search = {"search": tuned_search()} if condition.attack == TUNED else {}
        network = self.classifier(condition.network, condition.training)
        return {**search, **vars(condition), "seed": SEED, "classifier": fingerprint(network)}

    def _evaluate(self, condition: Condition, scored: bool) -> tuple[list, list, list]:
        net = self.classifier(condition.network, condition.training)
        images = self.defended(condition)
        labels = self.test.labels[: len(images)].tolist()
        if condition.rounding == "none":
            return labels, predict_pixels(net, images).tolist(), []
        return labels, predict(net, images).tolist(), self._bits(images) if scored else []

    def _bits(self, images: Tensor) -> list[float]:
        bits = self.density.bits_per_dim(images, precision=self.precision, progress=self.progress)
        return [round(value, 6) for value in bits.double().tolist()]

    def reference(self, split: str) -> Record:
        """Bits per dimension of the images of "train" or of "held-out", for detection.

        Unlike other records these are never recomputed when they exist and match: they need the training images, which
        are not in the repository.
        """
        check_choice(split, REFERENCE_IMAGES, name="split")
        limit = REFERENCE_IMAGES[split]
        config = {"data_set": self.data_set, "split": split, "images": limit, "precision": self.precision}
        config["density"] = self.density_fingerprint

        def evaluate() -> tuple[list, list, list]:
            return [], [], self._bits(load_images(self.data_set, split, limit=limit).images)

        return self.lasting.record(reference_path(self.density_name, split), config, evaluate)

    def detector(self, split: str) -> LikelihoodDetector:
        """A detector calibrated on "train" images (as the paper) or on "held-out" ones (which keeps the test valid)."""
        reference = self.reference(split)
        return LikelihoodDetector(self.density, reference.bits, precision=reference.config["precision"])

    def pixeldefend(self, attack: str = "clean", eps: int = 0) -> Condition:
        """The condition of this data set with the paper's eps_defend, after an attack on the normally trained ResNet."""
        return Condition(self.data_set, attack, eps, defence="pixeldefend", eps_defend=EPS_DEFEND[self.data_set])

    def measurement(self, name: str, config: dict, measure: Callable[[], dict], *, reference: bool = False) -> dict:
        """What ``measure`` returned under the same ``config``, from disk, or measured now (and written).

        For results that are no `Record`: they stand for more, or other, than one cell of a table.

        Args:
            name: of the file, after the data set's name, or the density's with ``reference``.
            config: all that decides the results, as plain values; fingerprints of the weights belong into it.
            measure: gives plain values: numbers, strings, lists and dictionaries with strings as keys.
            reference: keep it beside the reference likelihoods, for every profile; like them it is never measured again
                when it exists and matches, because it needs the training images.
        """
        if reference:
            return self.lasting.measurement(reference_path(self.density_name, name), config, measure)
        return self.store.measurement(self.records / f"{self.data_set}-{name}.json", config, measure)


def reference_path(density: str | Path, name: str) -> Path:
    """Where the results of a density, a shipped one's name or a folder, on reference images lie."""
    return paths.RECORDS / "reference" / f"{Path(density).resolve().name}-{name}.json"


def _parts(condition: Condition) -> tuple[Condition, Condition]:
    """What the record of adaptive PixelDefend is put together from: without purification, and with."""
    return replace(condition, defence="none", eps_defend=0), replace(condition, defence="pixeldefend")
