"""Long computations over many images, piece by piece: on every CPU thread at once, and smaller where memory runs out."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

log = logging.getLogger(__name__)
Work = Callable[[slice, Callable[[], None]], Tensor | None]


class Piece(NamedTuple):
    """Images to work on together, and those of them, the first ones, whose results are this piece's to keep."""

    rows: slice
    own: slice


def equal_pieces(start: int, end: int, size: int) -> list[Piece]:
    """Pieces of one size, at most ``size``, that cover start..end-1; the last two may share images, the last one's own."""
    if start == end:
        return []
    count = -(-(end - start) // size)
    size = -(-(end - start) // count)
    starts = [min(start + n * size, end - size) for n in range(count)]
    return [Piece(slice(first, first + size), slice(first, following)) for first, following in pairwise([*starts, end])]


def work_through(count: int, size: int, work: Work, *, device: torch.device, out: Tensor | None = None, smallest: int = 1,
                 steps: int = 1, unit: str = "image", progress: bool = False) -> None:  # fmt: skip
    """Call ``work(rows, step)`` for slices ``rows`` of at most ``size`` that cover 0..count-1.

    ``work`` calls ``step`` ``steps`` times while it is at it, which moves the progress bar and is where it may be stopped.
    On a CPU the pieces are at most as large as makes use of all of torch's threads, but not smaller than ``smallest`` for
    that, and each thread works on a piece of its own: nothing is lost on waiting for each other after each of many short
    operations. What ``work`` returns, (rows, ...), is put into ``out``, (count, ...); of an image that two pieces share the
    later one's.

    A piece for which there is no memory is halved, as are all that follow, with a warning in the log. This serves GPUs and
    processes with a hard limit; elsewhere on Linux more memory is granted than there is, and the process is killed when it
    uses it, so that ``size`` should be one that fits on all threads at once.

    Raises whatever ``work`` raises; out of memory only for a single image.
    """
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    size = min(size, -(-count // max(1, min(threads, count // smallest))))
    waiting = equal_pieces(0, count, size)
    with tqdm(total=len(waiting) * steps, unit=unit, disable=not progress) as bar:
        while waiting:
            failed = _attempt(waiting, work, out, threads, bar)
            if not failed:
                return
            if size == 1:
                raise failed[0][1]
            size = -(-size // 2)
            log.warning("a batch does not fit in memory; going on with %d images at a time", size)
            if device.type == "cuda":
                torch.cuda.empty_cache()
            waiting = [piece for own, _ in failed for piece in equal_pieces(own.start, own.stop, size)]
            bar.total = bar.n + len(waiting) * steps


def _attempt(pieces: list[Piece], work: Work, out: Tensor | None, threads: int, bar: tqdm) -> list[tuple[slice, Exception]]:
    """Work on all pieces; what is lacking of those for which memory did not suffice, with the error."""
    stop = threading.Event()

    def step() -> None:
        if stop.is_set():
            raise _Stopped
        bar.update()

    def attempt(piece: Piece) -> tuple[slice, Exception] | None:
        if stop.is_set():
            raise _Stopped
        rows, own = piece
        try:
            result = work(rows, step)
        except (RuntimeError, MemoryError) as error:
            if not _out_of_memory(error):
                raise
            return own, error.with_traceback(None)  # the traceback would keep the buffers alive
        if out is not None:
            out[own] = result[: own.stop - own.start]  # never another piece's rows, so that nothing hangs on who is first
        return None

    if threads == 1 or len(pieces) == 1:
        results = [attempt(piece) for piece in pieces]
    else:
        results = _in_threads(attempt, pieces, threads, stop)
    return [result for result in results if result is not None]


def _in_threads(attempt: Callable, pieces: list[Piece], threads: int, stop: threading.Event) -> list:
    """``attempt`` for every piece, each on a thread of its own in which torch starts no others."""
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            futures = [pool.submit(attempt, piece) for piece in pieces]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                stop.set()  # what is not finished by now will not be wanted
    finally:
        torch.set_num_threads(threads)
    errors = [future.exception() for future in futures]
    for error in errors:
        if error is not None and not isinstance(error, _Stopped):
            raise error
    return [future.result() for future in futures]


def _out_of_memory(error: Exception) -> bool:
    """torch has a class for GPUs only; a CPU's allocator raises a plain ``RuntimeError``."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class _Stopped(Exception):
    """Another piece failed, or the user interrupted: what is under way is given up."""
