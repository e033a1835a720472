"""The console command ``pixeldefend``: one sub-command for each long job, see ``pixeldefend --help``.

Bad input ends with exit code 1, or 2 if the command line itself is wrong, and one line on stderr. An interrupted command
goes on where it stopped when it is given again: 75 says that the minutes of a training are over, 130 that a signal stopped
it. Training, ``score``, ``attack`` and ``purify`` run under torchrun too, which turns each of these codes into its own.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from . import __version__, distributed
from .commands import COMMANDS, GROUPS
from .commands.chunks import ShardError
from .loop import TimeIsUp
from .pages import BookError

PROGRAM = "pixeldefend"
REFUSED = (ValueError, TypeError, FloatingPointError, OSError, ImportError, BookError, torch.OutOfMemoryError, ShardError)
INTERRUPTED = 130  # what a shell reports of a command that Ctrl-C ended
UNFINISHED = 75  # EX_TEMPFAIL of sysexits.h: a script may give the command again until it ends otherwise


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Adds an option's default to its help, where it is one that says something."""

    def _get_help_string(self, action):
        silent = action.default is None or isinstance(action.default, bool)
        return action.help if silent else super()._get_help_string(action)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage before it."""

    def __init__(self, **options):
        super().__init__(formatter_class=_Formatter, allow_abbrev=False, **options)

    def error(self, message: str):
        self.exit(2, f"{PROGRAM}: error: {_one_line(message)} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command line; the chosen command's function is the attribute ``run`` of what it returns."""
    parser = _Parser(prog=PROGRAM, description="PixelDefend (Song et al., ICLR 2018): its long jobs.")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    top = parser.add_subparsers(required=True, metavar="COMMAND")
    groups = {}
    for words, command in COMMANDS.items():
        *group, name = words.split()
        if group and group[0] not in groups:
            child = top.add_parser(group[0], help=GROUPS[group[0]], description=GROUPS[group[0]])
            groups[group[0]] = child.add_subparsers(required=True, metavar="WHAT")
        parent = groups[group[0]] if group else top
        child = parent.add_parser(name, help=command.help, description=command.help)
        child.set_defaults(run=command.run, device="cpu")  # for a command without --device
        command.arguments(child)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0, 1 after one line on stderr, 75 or 130 when interrupted."""
    try:
        options = make_parser().parse_args(argv)
        with distributed.process_group(options.device) as options.device:
            options.run(options)
    except KeyboardInterrupt:
        print(f"{PROGRAM}: error: interrupted; the same command goes on from what was finished", file=sys.stderr)
        return INTERRUPTED
    except InterruptedError as error:
        print(f"{PROGRAM}: {_one_line(str(error))}", file=sys.stderr)
        return UNFINISHED if isinstance(error, TimeIsUp) else INTERRUPTED
    except REFUSED as error:
        print(f"{PROGRAM}: error: {_one_line(str(error)) or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


def _one_line(text: str) -> str:
    return " ".join(text.split())
