"""The sub-commands that take images and give images or numbers: score, attack, purify."""

import inspect
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..attacks import ATTACKS
from ..attacks._common import LABEL_SOURCES
from ..attacks.carlini_wagner import SETTINGS
from ..attacks.levels import ROUNDINGS
from ..classifiers import load_classifier, predict
from ..defenses import PixelDefend
from ..detection import p_values
from ..fingerprint import fingerprint
from ..images import DATA_SETS, SPLITS
from ..pixelcnn import PixelCNN
from ..pixelcnn.model import DECODING_BATCH, SMALLEST_BATCH
from ..pixelcnn.precision import PRECISIONS
from ..study.conditions import REFERENCE_IMAGES
from ..study.lab import Lab, reference_path
from ..study.records import load_record
from . import chunks
from .archives import Batch, check_output, digest, read_archive, read_batch, write_archive
from .chunks import in_chunks, parts_folder, remove_parts
from .options import add_run_options, defaults_of, shard, shows_progress


def score_arguments(parser: ArgumentParser) -> None:
    _image_arguments(parser)
    _density_arguments(parser)
    parser.add_argument("--reference", metavar="FILE|SPLIT", help="adds p-values, against the scores in a file, or those of "
                        f"{' or '.join(REFERENCE_IMAGES)} images that come with a shipped density")  # fmt: skip


def score(options: Namespace) -> None:
    batch, density = _images_and_density(options)
    which = {"density": fingerprint(density), "precision": options.precision}
    reference = _reference_bits(options, _density_name(options, batch), which) if options.reference else None

    def compute(rows: slice) -> Tensor:
        return density.bits_per_dim(batch.images[rows], precision=options.precision, progress=shows_progress(options))

    bits = _resumable(compute, options, batch, density, {"command": "score", **which}, _density_batch(options))
    if bits is None:
        return
    p = None if reference is None else p_values(-bits, -reference)
    _write(options, batch, bits_per_dim=bits, p_values=p, **which)
    print(f"{len(bits)} images of {batch.source}: {bits.mean():.3f} bits per dimension on average")
    if p is not None:
        print(f"p < 0.05 for {(p < 0.05).double().mean():.1%}, against {len(reference)} reference images")


def _reference_bits(options: Namespace, density: str, which: dict) -> Tensor:
    """Of the reference images, made with the density and precision in ``which``."""
    path, shipped = Path(options.reference), options.reference in REFERENCE_IMAGES
    if shipped:
        path = reference_path(density, options.reference)
        if not path.is_file():
            raise ValueError(f"no scores of {options.reference} images come with the density {density}: write some with "
                             "pixeldefend score, and give that file")  # fmt: skip
        record = load_record(path)
        made, bits = record.config, record.bits
    else:
        made = read_archive(path, "bits_per_dim", *which)
        bits = torch.from_numpy(made["bits_per_dim"])
    for name, value in which.items():
        if str(made[name]) != value:
            hint = f"; give --precision {made[name]}" if name == "precision" else ""
            raise ValueError(f"{path} was scored with another {name} ({made[name]}, not {value}){hint}")
    return bits


def attack_arguments(parser: ArgumentParser) -> None:
    _image_arguments(parser)
    _classifier_arguments(parser, network="resnet")
    parser.add_argument("--attack", choices=ATTACKS, required=True)
    parser.add_argument("--eps", type=int, help="colour levels, 0..255")
    parser.add_argument("--label-source", choices=LABEL_SOURCES, help="labels to lead away from")
    parser.add_argument("--rounding", choices=ROUNDINGS, help="of the levels that deepfool or carlini_wagner finds")
    parser.add_argument("--setting", choices=SETTINGS, help="of carlini_wagner")
    parser.add_argument("--seed", type=int, default=0, help="of a random attack")
    parser.add_argument("--batch-size", type=int, default=100, help="images attacked together")


def attack(options: Namespace) -> None:
    batch = _read(options)
    if batch.labels is None:
        raise ValueError(f"{batch.source} holds no labels; an attack needs them")
    net = _classifier(options, batch)
    function, arguments = ATTACKS[options.attack], _attack_arguments(options)
    settings = {"command": "attack", "attack": options.attack, "batch_size": options.batch_size, **arguments}
    random = "generator" in inspect.signature(function).parameters

    def compute(rows: slice) -> Tensor:
        generator = {"generator": torch.Generator().manual_seed(options.seed)} if random else {}
        return function(net, batch.images[rows], batch.labels[rows], batch_size=options.batch_size,
                        progress=shows_progress(options), **arguments, **generator)  # fmt: skip

    if random:  # all images in one chunk: the noise is one draw
        settings["seed"] = options.seed
    adversarial = _resumable(compute, options, batch, net, settings, len(batch.images) if random else options.batch_size)
    if adversarial is None:
        return
    before, after = predict(net, batch.images), predict(net, adversarial)
    _write(options, batch, images=adversarial, labels=batch.labels, predictions_before=before, predictions_after=after)
    named = ", ".join(f"{name} {value}" for name, value in arguments.items())
    print(f"{len(adversarial)} images of {batch.source}, attacked with {options.attack} ({named})")
    print(f"accuracy {_accuracy(before, batch):.1%} before, {_accuracy(after, batch):.1%} after")


def _attack_arguments(options: Namespace) -> dict:
    """The options that were given, refused where the attack has no such parameter."""
    given = {name: getattr(options, name) for name in ("eps", "label_source", "rounding", "setting")}
    given = {name: value for name, value in given.items() if value is not None}
    parameters = inspect.signature(ATTACKS[options.attack]).parameters
    for name in given:
        if name not in parameters:
            raise ValueError(f"the attack {options.attack} has no --{name.replace('_', '-')}")
    if "eps" in parameters and "eps" not in given:
        raise ValueError(f"the attack {options.attack} needs --eps, a number of colour levels")
    return given


def purify_arguments(parser: ArgumentParser) -> None:
    _image_arguments(parser)
    _density_arguments(parser)
    _classifier_arguments(parser, network=None)
    parser.add_argument("--eps", type=int, required=True, help="eps_defend in colour levels; the paper: 32, CIFAR-10 16")
    parser.add_argument("--threshold", type=float, help="bits per dimension: leave likelier images as they are")
    parser.add_argument("--batch-size", type=int, default=defaults_of(PixelDefend)["batch_size"],
                        help="images purified together (without it: as suits the device)")  # fmt: skip


def purify(options: Namespace) -> None:
    batch, density = _images_and_density(options)
    net = _classifier(options, batch) if options.network else None
    settings = {name: getattr(options, name) for name in ("eps", "threshold", "precision", "batch_size")}
    defense = PixelDefend(density, eps_defend=options.eps, threshold=options.threshold, precision=options.precision,
                          batch_size=options.batch_size)  # fmt: skip

    def compute(rows: slice) -> Tensor:
        return defense.purify(batch.images[rows], progress=shows_progress(options))

    purified = _resumable(compute, options, batch, density, {"command": "purify", **settings},
                          options.batch_size or _density_batch(options))  # fmt: skip
    if purified is None:
        return
    predictions = predict(net, purified) if net else None
    _write(options, batch, images=purified, labels=batch.labels, predictions=predictions)
    distance = (purified.int() - batch.images.int()).abs().double().mean()
    print(f"{len(purified)} images of {batch.source}, purified with eps {options.eps}: {distance:.2f} levels on average")
    if net and batch.labels is not None:
        before = _accuracy(predict(net, batch.images), batch)
        print(f"accuracy {before:.1%} before, {_accuracy(predictions, batch):.1%} after")


def _image_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", help="a data set, or an .npz file with images (and labels) from attack or purify")
    parser.add_argument("--split", choices=SPLITS, help="of a data set (default: test)")
    parser.add_argument("--data-set", choices=DATA_SETS, help="of the images of a file that does not say it itself")
    parser.add_argument("--limit", type=int, help="only the first images")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.npz", help="file to write")
    parser.add_argument("--force", action="store_true", help="overwrite it")
    parser.add_argument("--shard", type=shard, metavar="K/N", help="compute only the K-th of N parts; the same command "
                        "without --shard then writes the file")  # fmt: skip
    add_run_options(parser)


def _density_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--density", help="a shipped density or a folder (default: the data set's, the smaller of two)")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help="of the network's arithmetic")


def _classifier_arguments(parser: ArgumentParser, *, network: str | None) -> None:
    parser.add_argument("--network", default=network, help="classifier of the images")
    parser.add_argument("--training", default="normal", help="how it was trained")
    parser.add_argument("--classifiers", type=Path, metavar="FOLDER", help="default: the shipped ones")


def _read(options: Namespace) -> Batch:
    check_output(options.output, force=options.force)
    return read_batch(options.source, split=options.split, limit=options.limit, data_set=options.data_set)


def _images_and_density(options: Namespace) -> tuple[Batch, PixelCNN]:
    batch = _read(options)
    return batch, PixelCNN.from_pretrained(_density_name(options, batch)).to(options.device)


def _density_name(options: Namespace, batch: Batch) -> str:
    return options.density or Lab(batch.needed_data_set()).density_name


def _classifier(options: Namespace, batch: Batch) -> torch.nn.Module:
    return load_classifier(batch.needed_data_set(), options.network, training=options.training, root=options.classifiers,
                           device=options.device)  # fmt: skip


def _resumable(compute: Callable[[slice], Tensor], options: Namespace, batch: Batch, model: torch.nn.Module,
               settings: dict, batch_size: int) -> Tensor | None:  # fmt: skip
    """The result for all images; ``None`` where it is another process, or a later call, that writes it."""
    labels = [] if batch.labels is None else [batch.labels]
    # the kind of device too: no result is computed half here, half there
    settings = {**settings, "model": fingerprint(model), "device": torch.device(options.device).type}
    result = in_chunks(compute, len(batch.images), batch_size=batch_size, output=options.output,
                       key=digest(settings, batch.images, *labels), force=options.force, shard=options.shard)  # fmt: skip
    if options.shard:
        number, shards = options.shard[0] + 1, options.shard[1]
        print(f"shard {number}/{shards} of {batch.source} is in {parts_folder(options.output)}")
    return result


def _density_batch(options: Namespace) -> int:
    """What a chunk holds whole: as many images as keep a GPU, or every thread of a CPU, busy.

    Up to six threads have enough in the usual chunk. On more its size, and whether a call can use what another left, depends
    on their number.
    """
    if torch.device(options.device).type == "cuda":
        return DECODING_BATCH[1]
    return max(chunks.CHUNK, SMALLEST_BATCH * torch.get_num_threads())


def _write(options: Namespace, batch: Batch, **arrays) -> None:
    write_archive(options.output, data_set=batch.data_set, **arrays)
    remove_parts(options.output)


def _accuracy(predictions: Tensor, batch: Batch) -> float:
    return (predictions == batch.labels).double().mean().item()
