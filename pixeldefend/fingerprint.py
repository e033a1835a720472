"""Which weights made a result: a short hash of a module's parameters and buffers."""

import hashlib

from torch import nn


def fingerprint(module: nn.Module) -> str:
    """SHA-256 over the names and float32 values of the module's state, the first 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for key, value in sorted(module.state_dict().items()):
        digest.update(key.encode())
        digest.update(value.detach().cpu().float().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
