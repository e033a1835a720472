"""Options that every sub-command has."""

import argparse
import inspect
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable

import torch

from .. import distributed


def add_run_options(parser: ArgumentParser) -> None:
    """``--device`` and ``--quiet``."""
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda or cuda:N; with torchrun cpu or cuda")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def shows_progress(options: Namespace) -> bool:
    """Whether to draw progress bars: on a terminal only, and by one process only."""
    return not options.quiet and distributed.rank() == 0 and sys.stderr.isatty()


def device(text: str) -> str:
    """``text`` if it names a device that is there; ``argparse.ArgumentTypeError`` if not."""
    try:
        chosen = torch.device(text)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is no device: cpu, cuda or cuda:N")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise argparse.ArgumentTypeError(f"{text} is not available here ({torch.cuda.device_count()} CUDA devices); use cpu")
    return text


def shard(text: str) -> tuple[int, int]:
    """"K/N", the K-th of N parts, as (K - 1, N); ``argparse.ArgumentTypeError`` where K is not in 1..N."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: K/N with K in 1..N, for example 2/4")
    return int(match[1]) - 1, int(match[2])


def defaults_of(function: Callable) -> dict:
    """The defaults in a function's signature, by parameter: so that no default stands in two places."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
