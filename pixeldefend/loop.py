"""The training loop that density and classifiers share: batches, checkpoints, a log, progress.

Everything random in step t follows from (seed, t) alone: the order of the examples, and, through a reseeded and then
restored global generator, dropout and augmentation. So a checkpoint needs no random state, and a run that was stopped,
or killed, goes on exactly as if it had not been. Under torchrun (see `distributed`) that noise follows from the rank as
well, so several processes give what one gives, up to rounding, where there is none.
"""

import json
import math
import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from . import distributed

CHECKPOINT = "checkpoint.pt"
KEPT_CHECKPOINT = "kept.pt"  # a copy of the checkpoint at Plan.keep_step
LOG = "log.jsonl"
RANKS_APART = 0x9E3779B1  # spreads the ranks over 2^32 seeds, of which more are the same to torch's CPU generator


class TimeIsUp(InterruptedError):
    """The minutes that a run had are over; it is to be gone on with."""


class Job(Protocol):
    """What is being trained. `settings` must not change when a run is resumed; `execution` (the device, whether it is
    compiled), which changes a result by rounding alone, may, and is noted in the checkpoint."""

    settings: dict
    execution: dict

    def step(self, index: Tensor, step: int) -> dict[str, float]:
        """Update once on the examples ``index`` (int64, (B,)); return numbers to log, averaged over the batch.

        Under torchrun ``index`` is this process's part of the batch.
        """

    def state_dict(self) -> dict: ...

    def load_state_dict(self, state: dict) -> None: ...


@dataclass(frozen=True)
class Plan:
    """How long to train, on how many examples, and how often to keep what there is."""

    examples: int
    batch_size: int
    steps: int
    seed: int = 0
    save_every_seconds: float = 300.0
    log_every: int = 50  # steps
    keep_step: int | None = None  # keep a copy of the checkpoint made at this step, to branch off from later
    minutes: float | None = None  # that one call may train before it stops with a checkpoint; None: no limit

    def __post_init__(self):
        if not 1 <= self.batch_size <= self.examples:
            allowed = f"1..{self.examples} (the number of examples)"
            raise ValueError(f"batch_size must lie in {allowed}, not {self.batch_size}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, not {self.steps}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be positive, not {self.minutes}")


def batch_indices(plan: Plan, step: int) -> Tensor:
    """The examples of one step: a fresh permutation every epoch, its incomplete last batch dropped."""
    epoch, position = divmod(step, plan.examples // plan.batch_size)
    generator = torch.Generator().manual_seed(_mix(plan.seed, epoch))
    order = torch.randperm(plan.examples, generator=generator, device=generator.device)
    return order[position * plan.batch_size : (position + 1) * plan.batch_size]


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Run a block with torch's global generators seeded from (seed, step, rank), and put them back afterwards."""
    with own_randomness(_mix(seed, step + distributed.rank() * RANKS_APART)):
        yield


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Run a block with torch's global generators seeded with ``seed``, and put them back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):  # left to itself, torch warns of several GPUs
        torch.manual_seed(seed)
        yield


def _mix(seed: int, number: int) -> int:
    return (seed * 1_000_003 + number) % 2**63


def save_atomically(state: dict, path: Path) -> None:
    """Write ``state`` so that ``path`` is, at every moment, either the old file or the whole new one.

    Raises ``OSError`` where it cannot be written; the old file is still there then.
    """
    partial = path.with_suffix(".partial")
    try:
        torch.save(state, partial)
    except (OSError, RuntimeError) as error:  # torch's own writer raises the second
        partial.unlink(missing_ok=True)
        free = f"{shutil.disk_usage(path.parent).free / 1e6:,.0f} MB are free there"
        raise OSError(f"{path} could not be written ({free}); what was there is whole, and a run goes on from it") from error
    os.replace(partial, path)


def load_checkpoint(path: Path) -> dict:
    """Read a checkpoint; only tensors and plain values are accepted, no code is run.

    Raises ``ValueError`` for a damaged or foreign file.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # whatever the reader stumbles over: of a file that is none it may be anything
        raise ValueError(f"{path} is damaged, or no checkpoint; remove it to start again") from error


def run(job: Job, plan: Plan, folder: Path, *, progress: bool = True) -> int:
    """Train until ``plan.steps``, from the checkpoint in ``folder`` if there is one; return the steps done.

    SIGTERM, Ctrl-C and the end of ``plan.minutes`` end the run after the current step, with a checkpoint. ``folder`` then
    holds ``checkpoint.pt`` and ``log.jsonl``, one line every ``log_every`` steps with the mean of the job's numbers since
    the line before.

    Under torchrun each process works on its part of every batch, a signal to one ends all after the same step, and
    rank 0 alone writes ``folder``, which all must see. A run may be resumed with another number of processes.

    Raises:
        ValueError: the checkpoint is damaged, was made with other settings, seed or batch size, or for another end that the
            run has begun to approach, or is beyond ``plan.steps``; the processes cannot share a batch equally, or found
            different checkpoints.
        FloatingPointError: a number of the job is not finite; the last checkpoint is from before that.
        OSError: a checkpoint could not be written; the one before is still there.
    """
    if plan.batch_size % distributed.world_size():
        raise ValueError(f"{distributed.world_size()} processes cannot share batch_size {plan.batch_size} equally")
    first = distributed.rank() == 0
    done, seconds, sums, calls = _resume(job, plan, folder)
    stop, stopped = _StopRequest(), False
    started = saved = time.monotonic()
    last_moment = started + 60 * (math.inf if plan.minutes is None else plan.minutes)
    bar = tqdm(total=plan.steps, initial=done, unit="step", disable=not (progress and first))
    with stop, bar:
        while done < plan.steps and not stopped:
            with seeded(plan.seed, done):
                numbers = job.step(distributed.own_part(batch_indices(plan, done)), done)
            numbers, stopped = _agree(numbers, stop.requested or time.monotonic() > last_moment)
            _check_finite(numbers, done, folder)
            done += 1
            for name, value in numbers.items():
                sums[name] = sums.get(name, 0.0) + value
            bar.update()
            elapsed = seconds + time.monotonic() - started
            if done % plan.log_every == 0:
                means = {name: value / plan.log_every for name, value in sums.items()}
                sums = {}
                bar.set_postfix({name: f"{value:.4g}" for name, value in means.items()})
                if first:
                    entry = {"step": done, "images": done * plan.batch_size, "seconds": round(elapsed, 1)}
                    _write_line(folder / LOG, entry | means)
            due = time.monotonic() - saved > plan.save_every_seconds
            if first and (due or stopped or done in (plan.steps, plan.keep_step)):
                _save(job, plan, folder, {"step": done, "sums": sums, "seconds": elapsed, "calls": calls})
                saved = time.monotonic()
    return done


def run_to_end(job: Job, plan: Plan, folder: Path, *, progress: bool = True) -> None:
    """`run`, and ``InterruptedError`` if that has ended before ``plan.steps``: `TimeIsUp` where its minutes are over."""
    began = time.monotonic()
    done = run(job, plan, folder, progress=progress)
    if done < plan.steps:
        over = plan.minutes is not None and time.monotonic() - began > 60 * plan.minutes
        kind = TimeIsUp if over else InterruptedError
        raise kind(f"stopped after {done} of {plan.steps} steps; the same call goes on from {folder}")


def _save(job: Job, plan: Plan, folder: Path, state: dict) -> None:
    own = job.state_dict()
    if not all(value.isfinite().all() for value in _tensors(own)):
        raise FloatingPointError(_diverged(f"after {state['step']} steps weights or averages are not finite", folder))
    end = {"steps": plan.steps, "keep_step": plan.keep_step}
    save_atomically(state | end | {"settings": _settings(job, plan), "job": own}, folder / CHECKPOINT)
    if state["step"] == plan.keep_step:
        partial = (folder / KEPT_CHECKPOINT).with_suffix(".partial")
        shutil.copyfile(folder / CHECKPOINT, partial)
        os.replace(partial, folder / KEPT_CHECKPOINT)


def _check_finite(numbers: dict[str, float], step: int, folder: Path) -> None:
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise FloatingPointError(_diverged(f"after {step} steps {name} is {value}", folder))


def _diverged(what: str, folder: Path) -> str:
    return (f"{what}: the training has diverged. A checkpoint in {folder} is from before; a lower learning rate, in another "
            "folder, may help")  # fmt: skip


def _tensors(state) -> Iterator[Tensor]:
    """All floating-point tensors in nested dictionaries and lists."""
    if isinstance(state, Tensor):
        yield from [state] if state.is_floating_point() else []
    elif isinstance(state, dict | list | tuple):
        for value in state.values() if isinstance(state, dict) else state:
            yield from _tensors(value)


def _agree(numbers: dict[str, float], stop: bool) -> tuple[dict[str, float], bool]:
    """The numbers' means over the processes, and whether any of these wants to stop."""
    *means, stops = distributed.mean([*numbers.values(), float(stop)])
    return dict(zip(numbers, means, strict=True)), stops > 0


def _resume(job: Job, plan: Plan, folder: Path) -> tuple[int, float, dict[str, float], list[dict]]:
    state = _load(job, plan, folder / CHECKPOINT)
    steps = distributed.gather(state["step"])  # and nobody goes on, perhaps to the next checkpoint, before all have read
    if len(set(steps)) > 1:
        raise ValueError(f"the processes found checkpoints of different steps {steps}: do all of them see {folder}?")
    if distributed.rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        _drop_lines_after(folder / LOG, state["step"])
    return state["step"], state["seconds"], state["sums"], _with_this_call(state["calls"], job)


def _load(job: Job, plan: Plan, path: Path) -> dict:
    if not path.exists():
        return {"step": 0, "seconds": 0.0, "sums": {}, "calls": []}
    state = load_checkpoint(path)
    try:
        found, step, own, *_ = (state[key] for key in ("settings", "step", "job", "seconds", "sums"))
        state = {"calls": [], "keep_step": None, "steps": plan.steps} | state  # older checkpoints have none of these
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is no checkpoint of a training run; remove it to start again") from error
    now = _settings(job, plan)
    if found != now:
        changed = sorted(k for k in now.keys() | found.keys() if now.get(k) != found.get(k))
        raise ValueError(f"{path} was made with other settings ({', '.join(changed)}); use those, or another folder")
    if step > plan.steps:
        raise ValueError(f"{path} is of step {step}, beyond the {plan.steps} asked for; use another folder")
    _check_same_end(state, plan, path)
    try:
        job.load_state_dict(own)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} lacks a part of the training's state ({error}); remove it to start again") from error
    return state


def _check_same_end(state: dict, plan: Plan, path: Path) -> None:
    """Refuse another end than before once a job has begun to approach one of them, from ``keep_step`` to ``steps``."""
    before, now = (state["keep_step"], state["steps"]), (plan.keep_step, plan.steps)
    if before != now and None not in before + now and state["step"] > min(before[0], now[0]):
        raise ValueError(
            f"{path} is of step {state['step']} of a run whose cool-down is from step {before[0]} to {before[1]}; it is too "
            f"late for one from {now[0]} to {now[1]}: ask for the first, or put {KEPT_CHECKPOINT}, of step {before[0]}, "
            "in its place"
        )


def _with_this_call(calls: list[dict], job: Job) -> list[dict]:
    """How the calls that a run consists of were made, in their order, one after another of the same kind as one."""
    this = {**job.execution, "processes": distributed.world_size()}
    return calls if calls[-1:] == [this] else [*calls, this]


def _settings(job: Job, plan: Plan) -> dict:
    return {**job.settings, "batch_size": plan.batch_size, "seed": plan.seed, "examples": plan.examples}


def _write_line(path: Path, entry: dict) -> None:
    with open(path, "a") as log:
        log.write(json.dumps(entry) + "\n")


def _drop_lines_after(path: Path, step: int) -> None:
    """A killed run may have logged steps after its last checkpoint; they will be run, and logged, again."""
    text = path.read_text(errors="replace") if path.exists() else ""
    kept = [line for line in text.splitlines() if (at := _step_of(line)) is not None and at <= step]
    cleaned = "".join(line + "\n" for line in kept)
    path.touch()  # that of a run too short for a line is empty
    if cleaned != text:
        partial = path.with_suffix(".partial")
        partial.write_text(cleaned)
        os.replace(partial, path)


def _step_of(line: str) -> int | None:
    """``None`` for a line that a kill, or a full disk, has cut off."""
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None


class _StopRequest:
    """Turns SIGTERM and SIGINT into a flag while it is entered; does nothing outside the main thread."""

    requested = False

    def _handle(self, signum, frame) -> None:
        self.requested = True

    def __enter__(self):
        try:
            self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not the main thread
            self._previous = {}
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
