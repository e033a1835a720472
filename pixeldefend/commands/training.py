"""The sub-commands that train, and the one that builds the book."""

import inspect
import os
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable
from pathlib import Path

from .. import book, distributed
from ..classifiers import train_classifier
from ..classifiers.losses import TRAININGS
from ..classifiers.training import SCHEDULES
from ..images import DATA_SETS
from ..pixelcnn.training import OPTIMIZERS, train_density
from .options import add_run_options, defaults_of, shows_progress


def train_pixelcnn_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(**defaults_of(train_density), quiet=False)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("--images", type=int, required=True, help="training images to show in all, with repetitions")
    parser.add_argument("--name", help="among the shipped densities (default: the data set's)")
    parser.add_argument("--filters", type=int, help="default: the paper's")
    parser.add_argument("--blocks", type=int, help="per level and stream (default: the paper's 5)")
    parser.add_argument("--dropout", type=float, help="between 0 and 1 (default: 0, or as in --start-from)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, help="Adam for all parameters, or Muon where it applies")
    parser.add_argument("--learning-rate", type=float, help="of Adam, its highest value")
    parser.add_argument("--muon-rate", type=float, help="of Muon, its highest value")
    parser.add_argument("--cooldown", type=float, help="final fraction of the run in which the learning rates fall to 0")
    parser.add_argument("--start-from", dest="start", metavar="DENSITY",
                        help="start from its weights, which give the size (default: from scratch)")  # fmt: skip
    parser.add_argument("--compile", dest="compiled", action="store_true", help="needs a C++ compiler")
    _training_arguments(parser)


def train_classifier_arguments(parser: ArgumentParser) -> None:
    parser.set_defaults(**defaults_of(train_classifier), quiet=False)
    parser.add_argument("data_set", choices=DATA_SETS)
    parser.add_argument("network", nargs="?", help="architecture")
    parser.add_argument("--training", choices=TRAININGS, help="way of training")
    parser.add_argument("--epochs", type=int, help="passes over the training images")
    parser.add_argument("--schedule", choices=SCHEDULES, help="of the learning rate")
    parser.add_argument("--learning-rate", type=float, help="its highest value (default: 0.1, with --start-from 0.01)")
    parser.add_argument("--adversarial-std", type=float, metavar="LEVELS", help="of the eps of adversarial training")
    parser.add_argument("--start-from", dest="start", choices=TRAININGS,
                        help="start from the shipped classifier trained this way (default: from scratch)")  # fmt: skip
    _training_arguments(parser)


def _training_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--batch-size", type=int, help="images per step")
    parser.add_argument("--bfloat16", action=BooleanOptionalAction, help="train in mixed precision (default: yes)")
    parser.add_argument("--seed", type=int, help="of everything random")
    parser.add_argument("--folder", type=Path, help="for checkpoint and log (default: one in runs)")
    parser.add_argument("--weights", type=Path, help="folder to save to (default: the one in data/weights)")
    parser.add_argument("--force", action="store_true", help="replace weights that are there")
    parser.add_argument("--minutes", type=float, help="stop after so many with a checkpoint and exit code 75; the same "
                        "command goes on")  # fmt: skip
    add_run_options(parser)


def _train(function: Callable, options: Namespace) -> None:
    """Call a training function with those options that it has, whatever else the parser put there."""
    values = vars(options) | {"progress": shows_progress(options)}
    function(**{name: values[name] for name in inspect.signature(function).parameters})


def train_pixelcnn(options: Namespace) -> None:
    _train(train_density, options)


def train_a_classifier(options: Namespace) -> None:
    _train(train_classifier, options)


def book_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--profile", default="laptop", help="of notebooks/params.yml: smoke, laptop or paper")
    parser.add_argument("--notebooks", nargs="+", metavar="NAME", help="run only these, keep the others as they are")
    book.add_recompute(parser)


def build_book(options: Namespace) -> None:
    distributed.refuse("book")
    index = book.build(options.profile, notebooks=options.notebooks, recompute=options.recompute)
    print(f"the book is built: {os.path.relpath(index)}")
