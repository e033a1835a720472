"""Several processes as one: what `torchrun` starts trains one network, or shares the images of one command.

Each process is a *rank*. In training all have the same weights, each computes the gradient on its equal part of every
batch, and the gradients are averaged. Without torchrun, or with one process, nothing here does anything: there is no
process group, the rank is 0 and the world 1.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

# Long, because rank 0 scores while the others wait, and shards differ. For a process that dies nobody waits: torchrun
# ends the others at once.
PATIENCE = timedelta(days=1)


def rank() -> int:
    """The number of this process, from 0; rank 0 alone writes, logs and prints."""
    return dist.get_rank() if _together() else 0


def world_size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if _together() else 1


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


@contextmanager
def process_group(device: str = "cpu") -> Iterator[str]:
    """Join the processes that torchrun has started, for a block; yield the device that this one is to use.

    They talk through gloo, and on GPUs, of which each takes its own, through nccl for what lies there. All leave the
    block together. Where one fails, the others are bound to fail too, in the same way or for lack of it: only the first
    to do so raises its error, the others a ``SystemExit`` with code 1.

    Raises ``ValueError`` for a numbered GPU with several processes and for more processes than GPUs.
    """
    if not _launched():
        yield device
        return
    device = _own_device(device)
    on_gpu = device != "cpu"
    store, number, world = next(dist.rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if on_gpu else "gloo"
    dist.init_process_group(backend, store=store, rank=number, world_size=world, timeout=PATIENCE)
    try:
        yield device
        wait()
    except BaseException as error:
        first = store.add("failed", 1) == 1
        if not on_gpu:  # nccl would wait for the other processes; it ends with this one
            dist.destroy_process_group()
        if first:
            raise
        raise SystemExit(1) from error
    dist.destroy_process_group()


def _launched() -> bool:
    return dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1


def _own_device(device: str) -> str:
    if device == "cpu":
        return device
    if device != "cuda":
        raise ValueError(f"torchrun gives each process a GPU of its own; the device must be cuda, not {device}")
    local = int(os.environ["LOCAL_RANK"])
    if local >= torch.cuda.device_count():
        raise ValueError(f"process {local + 1} of this machine has no GPU: there are {torch.cuda.device_count()}")
    torch.cuda.set_device(local)
    return f"cuda:{local}"


def refuse(command: str) -> None:
    """``ValueError`` for a command that several processes would only repeat."""
    if world_size() > 1:
        raise ValueError(f"{command} runs in one process: start it without torchrun")


def mean(values: Sequence[float]) -> list[float]:
    """Each number's mean over the processes, in float64."""
    if world_size() == 1:
        return list(values)
    total = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(total)
    return (total / world_size()).tolist()


def gather(value: Any) -> list:
    """The ``value`` of every process, in the order of their ranks."""
    values = [value]
    if world_size() > 1:
        values *= world_size()
        dist.all_gather_object(values, value)
    return values


def wait() -> None:
    """Return when all processes have come here."""
    mean([0.0])


def own_part(batch: Tensor) -> Tensor:
    """This process's equal share of a batch, whose length the number of processes divides."""
    return batch.chunk(world_size())[rank()]


def parallel(network: nn.Module) -> nn.Module:
    """``network``, whose gradients are from now on the mean over the processes; rank 0's weights become everyone's.

    On GPUs batch normalisation uses the statistics of the whole batch. torch cannot do that on a CPU: there each process
    uses those of its part, and rank 0's running averages are everyone's. With one process the network itself is returned.
    """
    if world_size() == 1:
        return network
    device = next(network.parameters()).device
    if device.type == "cpu":
        return _Parallel(network)
    synchronise_batch_norm(network)
    return _Parallel(network, device_ids=[device])


class _Parallel(DistributedDataParallel):
    """In eval mode the plain network, which adversarial training attacks: each process with steps of its own number."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs) if self.training else self.module(*inputs)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Make every batch normalisation of ``network``, in place, use the statistics of the whole batch (GPUs only).

    torch's own conversion puts a plain layer in place of a subclass, here of `resnet.Activation`, and its ReLU is lost.
    """
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            kind = type(layer)
            layer.__class__ = type(f"Synchronised{kind.__name__}", (kind, nn.SyncBatchNorm), {"process_group": None})
