"""In what arithmetic the density's network is computed, whatever the process around it has chosen for itself."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def dtype_of(precision: str) -> torch.dtype:
    """The type that "float32" or "bfloat16" names; ``ValueError`` for anything else."""
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


class _FullFloat32:
    """No reduced precision in products of float32, in the whole process, as long as any of its threads is inside."""

    def __init__(self):
        self.lock, self.inside, self.changed = threading.Lock(), 0, []

    def __enter__(self) -> None:
        with self.lock:
            if not self.inside:
                self.changed = []
                for owner, name, wanted in _settings():
                    before = getattr(owner, name)
                    if before != wanted:
                        setattr(owner, name, wanted)
                        self.changed.append((owner, name, before))
            self.inside += 1

    def __exit__(self, *error) -> None:
        with self.lock:
            self.inside -= 1
            if not self.inside:
                for owner, name, before in reversed(self.changed):
                    setattr(owner, name, before)


def _settings() -> list[tuple[object, str, object]]:
    """torch's settings, as owner, name and wanted value, the most general first.

    What a general one says goes for those after it that are not set themselves. So one that still reads otherwise is set
    itself, and can be put back as it was. The older settings are an error to read once the newer ones were used.
    """
    backends = torch.backends
    if not hasattr(backends.cudnn, "conv"):
        return [(owner, "allow_tf32", False) for owner in (backends.cudnn, backends.cuda.matmul)]
    single = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    return [(owner, "fp32_precision", "ieee") for owner in (backends, backends.cudnn, *single)]


_FULL_FLOAT32 = _FullFloat32()


@contextmanager
def full_products(device: torch.device) -> Iterator[None]:
    """Convolutions and matrix products in all of their arguments' precision, on ``device`` and on the calling thread.

    float32 is not rounded to TF32, which cuDNN does by itself, nor by the autocast that a caller may be in; that is a
    thread's own, so each thread that computes enters this.
    """
    with _FULL_FLOAT32, torch.autocast(device.type, enabled=False):
        yield
