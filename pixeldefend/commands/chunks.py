"""A long computation in chunks: interrupted, it goes on where it stopped; shared among processes, it is the same.

Finished chunks lie in a folder beside the output, a file each, until the output itself is written. The processes that
torchrun starts and the jobs that compute one ``--shard`` each differ only in who waits for whom.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import distributed
from ..checks import check_count
from .archives import UNFINISHED, read_archive, write_archive

CHUNK = 512  # images in a chunk, rounded up to whole batches
FILES = "*-of-*.npz*"  # the chunks in a folder, unfinished ones included
KEY_DIGITS = 16  # of a key, in the names of its chunks
FAILURES = (ValueError, TypeError, OSError, RuntimeError)  # running out of memory is among them


class ShardError(RuntimeError):
    """A shard failed; the message says which one and how to compute it alone."""


@dataclass(frozen=True)
class _Chunks:
    """The chunks of a result for ``images`` images, ``size`` in each, and their files."""

    output: Path
    key: str
    images: int
    size: int

    @property
    def folder(self) -> Path:
        return parts_folder(self.output)

    @property
    def number(self) -> int:
        return -(-self.images // self.size)

    def rows(self, chunk: int) -> slice:
        return slice(chunk * self.size, min((chunk + 1) * self.size, self.images))

    def file(self, chunk: int) -> Path:
        return self.folder / f"{self.key[:KEY_DIGITS]}-{chunk + 1:04}-of-{self.number:04}.npz"

    def drop_others(self, *, force: bool) -> None:
        """Remove the chunks of another computation; ``ValueError`` for them without ``force``."""
        ours = {self.file(chunk).name for chunk in range(self.number)}
        others = [path for path in self.folder.glob(FILES) if path.name.removesuffix(UNFINISHED) not in ours]
        if others and not force:
            raise ValueError(f"{self.folder} holds parts made from other input or settings, or with many more threads; "
                             "remove it, or begin anew with --force")  # fmt: skip
        for path in others:
            path.unlink(missing_ok=True)  # another process may have been faster

    def compute(self, chunk: int, compute: Callable[[slice], Tensor]) -> None:
        result = compute(self.rows(chunk)).cpu()
        self.folder.mkdir(exist_ok=True)
        write_archive(self.file(chunk), result=result)

    def read(self, chunk: int) -> Tensor:
        path, rows = self.file(chunk), self.rows(chunk)
        if not path.exists():
            raise FileNotFoundError(f"there is no {path}: do all processes see the same folder?")
        try:
            result = torch.from_numpy(read_archive(path, "result")["result"])
            if len(result) != rows.stop - rows.start:
                raise ValueError(f"{path} holds {len(result)} results instead of {rows.stop - rows.start}")
        except ValueError as error:
            raise ValueError(f"{error}; remove it, and the same command computes it again") from error
        return result


def parts_folder(output: Path) -> Path:
    """Where `in_chunks` keeps the finished chunks of ``output``."""
    return output.with_suffix(".parts")


def remove_parts(output: Path) -> None:
    """Remove the chunks of ``output``, and their folder if there is nothing else in it."""
    for path in parts_folder(output).glob(FILES):
        path.unlink()
    with suppress(OSError):  # it is not there, or not empty
        parts_folder(output).rmdir()


def in_chunks(compute: Callable[[slice], Tensor], count: int, *, batch_size: int, output: Path, key: str,
              force: bool = False, shard: tuple[int, int] | None = None) -> Tensor | None:  # fmt: skip
    """``compute(rows)`` for all of 0..count-1, chunk by chunk; a finished chunk is not computed again.

    Chunks are whole batches of ``batch_size``, always the same ones, so the result depends neither on interruptions nor
    on the number of processes. Each is kept in a file beside the output; the caller removes them once it has written
    the result. Shard k of n has every n-th chunk from the k-th on. Under torchrun every process computes one shard and
    only rank 0 gets the result, the others ``None``. With ``shard`` (k - 1, n) only that one is computed, for a later
    call without it, and the result is ``None``.

    Args:
        key: says what is computed, from which input; see `digest`.
        force: begin anew where the finished chunks were made with another key.

    Raises ``ShardError`` when a shard fails, after the other processes have finished theirs; ``ValueError`` for chunks
    with another key without ``force``, for a damaged one, for a batch size below 1, and for ``shard`` under torchrun.
    """
    check_count(batch_size, name="batch_size")
    if shard and distributed.world_size() > 1:
        raise ValueError("torchrun shares out the images by itself: leave out --shard")
    chunks = _Chunks(output, key, count, batch_size * -(-CHUNK // batch_size))
    chunks.drop_others(force=force)
    index, shards = shard or (distributed.rank(), distributed.world_size())
    failures = [text for text in distributed.gather(_compute_shard(compute, chunks, index, shards)) if text]
    if failures:
        raise ShardError("; ".join(failures))
    if shard or distributed.rank() > 0:
        return None
    return torch.cat([chunks.read(chunk) for chunk in range(chunks.number)])


def _compute_shard(compute: Callable[[slice], Tensor], chunks: _Chunks, index: int, shards: int) -> str | None:
    """Compute the missing chunks of one of several shards. What went wrong, in a line; where it is the only shard, the
    error itself is raised."""
    for chunk in range(index, chunks.number, shards):
        try:
            if not chunks.file(chunk).exists():
                chunks.compute(chunk, compute)
        except FAILURES as error:
            if shards == 1:
                raise
            rows, name = chunks.rows(chunk), f"{index + 1}/{shards}"
            reason = " ".join(str(error).split())[:200]
            return (f"shard {name} failed on images {rows.start}..{rows.stop - 1} ({type(error).__name__}: {reason}); "
                    f"what is finished is kept; --shard {name} computes it alone")  # fmt: skip
    return None
