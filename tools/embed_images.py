#!/usr/bin/env python3
"""Rebuild the images embedded in data/images from local copies of the data sets.

Fashion-MNIST: the two official test files, byte for byte. Debian ships the same deflate streams under a gzip header
without name and time; the official header is put back and the result must match the official checksum.
CIFAR-10: the first records of test_batch.bin, as cifar-10-binary.tar.xz in the layout of the official archive.
The same input gives the same bytes, as far as the installed liblzma allows.
"""

import argparse
import hashlib
import io
import lzma
import struct
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pixeldefend.formats import CIFAR10_RECORD  # noqa: E402
from pixeldefend.images import DATA_SETS  # noqa: E402

FASHION_MNIST_TIME = 1504176627  # 31 August 2017, from the official files' gzip headers
GZIP_HEADER = 10  # bytes of a header without optional fields


def official_gzip(file: Path) -> bytes:
    """The official bytes of one Fashion-MNIST test file; ValueError when they cannot be had from ``file``."""
    content = file.read_bytes()
    # flag 8: a name follows; extra flags 0 and system 3 (Unix) as in the official files
    header = b"\x1f\x8b\x08\x08" + struct.pack("<I", FASHION_MNIST_TIME) + b"\x00\x03" + file.stem.encode() + b"\x00"
    for candidate in (content, header + content[GZIP_HEADER:]):
        if hashlib.sha256(candidate).hexdigest() == DATA_SETS["fashion-mnist"].checksums[file.name]:
            return candidate
    raise ValueError(f"{file} does not have the official content; take Debian's or the official file")


def cifar10_archive(batch: Path, count: int) -> bytes:
    """The first ``count`` records of ``batch`` as a .tar.xz with the official archive's layout."""
    records = batch.read_bytes()[: count * CIFAR10_RECORD]
    if len(records) < count * CIFAR10_RECORD:
        raise ValueError(f"{batch} holds fewer than {count} records")
    member = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")  # time and owner stay 0: reproducible bytes
    member.size = len(records)
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(member, io.BytesIO(records))
    # four literal context bits suit photographs: 2 % smaller than the strongest preset
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
    return lzma.compress(plain.getvalue(), filters=filters)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion-mnist", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--cifar10", type=Path, default=ROOT / "cache" / "cifar-10-batches-bin")
    parser.add_argument("--out", type=Path, default=ROOT / "data" / "images")
    options = parser.parse_args()
    files = {}
    try:
        for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
            files[f"fashion-mnist/{name}"] = official_gzip(options.fashion_mnist / name)
        count = DATA_SETS["cifar10"].embedded["test"]
        files["cifar-10-binary.tar.xz"] = cifar10_archive(options.cifar10 / "test_batch.bin", count)
    except (OSError, ValueError) as error:
        sys.exit(f"embed_images: {error}")
    for name, content in files.items():
        target = options.out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        print(f"{len(content):>9,} bytes  {hashlib.sha256(content).hexdigest()}  {name}")


if __name__ == "__main__":
    main()
