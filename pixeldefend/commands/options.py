"""Options that every sub-command has."""

import argparse
import inspect
from argparse import ArgumentParser
from collections.abc import Callable

import torch


def add_run_options(parser: ArgumentParser) -> None:
    """``--device`` and ``--quiet``."""
    parser.add_argument("--device", type=device, default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


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


def defaults_of(function: Callable) -> dict:
    """The defaults in a function's signature, by parameter: so that no default stands in two places."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}
