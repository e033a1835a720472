"""The sub-commands of ``pixeldefend``: what each does, how it is described, and which options it has."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass

from . import bench, images, training


@dataclass(frozen=True)
class Command:
    """A sub-command: the function that does it, the one that declares its options, and a line of help."""

    run: Callable[[Namespace], None]
    arguments: Callable[[ArgumentParser], None]
    help: str


COMMANDS = {
    "train pixelcnn": Command(
        training.train_pixelcnn, training.train_pixelcnn_arguments, "train a density and save its weights"
    ),
    "train classifier": Command(
        training.train_a_classifier, training.train_classifier_arguments, "train a classifier and save its weights"
    ),
    "score": Command(images.score, images.score_arguments, "bits per dimension of images, and p-values"),
    "attack": Command(images.attack, images.attack_arguments, "make adversarial images"),
    "purify": Command(images.purify, images.purify_arguments, "move images towards the density (PixelDefend)"),
    "bench": Command(bench.bench, bench.bench_arguments, "measure what scoring, purifying, sampling and training cost"),
    "book": Command(training.build_book, training.book_arguments, "run the notebooks and build the book"),
}
GROUPS = {"train": "train a density or a classifier"}
