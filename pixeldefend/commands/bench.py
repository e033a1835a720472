"""The sub-command that measures what the density costs."""

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .. import distributed
from ..images import DATA_SETS, load_images
from ..pixelcnn import PixelCNN
from ..study import speed
from ..study.conditions import EPS_DEFEND
from ..study.lab import Lab
from ..study.records import write_signed
from .options import add_run_options


def bench_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("data_set", choices=DATA_SETS, help="whose test images are used")
    parser.add_argument("--density", help="a shipped density or a folder (default: the data set's, the smaller of two)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 64, 256, 1000], metavar="N",
                        help="images purified in one call")  # fmt: skip
    parser.add_argument("--naive", type=int, default=2, metavar="N", help="images that the naive algorithm purifies")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of which the best counts")
    parser.add_argument("--compile", dest="compiled", action="store_true", help="try compiled scoring too")
    parser.add_argument("--output", type=Path, metavar="FILE.json", help="record (default: data/records/speed)")
    add_run_options(parser)


def bench(options: Namespace) -> None:
    distributed.refuse("bench")
    if min(options.batches) < 1 or options.repeats < 1 or options.naive < 0:
        raise ValueError("--batches and --repeats must be at least 1, --naive at least 0")
    name = options.density or Lab(options.data_set).density_name
    density = PixelCNN.from_pretrained(name).to(options.device)
    images = load_images(options.data_set, "test", limit=max(options.batches)).images
    content = speed.measure(
        density, images, name=Path(name).name, eps_defend=EPS_DEFEND[options.data_set], batches=tuple(options.batches),
        naive_images=options.naive, repeats=options.repeats, compiled=options.compiled,
        report=lambda line: None if options.quiet else print(line, file=sys.stderr, flush=True),
    )  # fmt: skip
    path = options.output or speed.speed_path(Path(name).name, density.device)
    write_signed(content, path)
    print(speed.speed_table(content))
    print(f"written: {os.path.relpath(path)}")
