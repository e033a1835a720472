"""Weights on disk: pieces, their hashes, what is refused, and that no two pieces are held at once."""

import hashlib
import json
import shutil
import stat

import pytest
import torch
from huggingface_hub import split_torch_state_dict_into_shards
from nets import small_density
from safetensors.torch import load_file, save_file

from pixeldefend import PixelCNN, load_classifier, paths, weights
from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig
from pixeldefend.weights import CONFIG, INDEX, RESTORE, SUMS, WEIGHTS, load_weights, save_weights, write_checksums

PIECE_SIZE = 35_000  # bytes: three pieces of the toy density
FIRST = "model-00001-of-00003.safetensors"


def toy(*, filters: int = 6, seed: int = 0) -> PixelCNN:
    return small_density(1, filters=filters, seed=seed)


@pytest.fixture
def folder(tmp_path):
    """A density in three pieces."""
    toy().save_pretrained(tmp_path / "net", max_piece_size=PIECE_SIZE)
    return tmp_path / "net"


def pieces(folder) -> list[str]:
    return sorted(path.name for path in folder.glob("*.safetensors"))


def test_pieces_are_small_and_named_and_indexed_as_is_usual(folder):
    assert pieces(folder) == [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
    held = {name: load_file(folder / name) for name in pieces(folder)}
    assert all(sum(value.nbytes for value in tensors.values()) <= PIECE_SIZE for tensors in held.values())
    index = json.loads((folder / INDEX).read_text())["weight_map"]
    assert index == {key: name for name, tensors in held.items() for key in tensors}
    assert set(index) == set(toy().state_dict())


def test_pieces_give_the_network_back(folder):
    assert fingerprint(PixelCNN.from_pretrained(folder)) == fingerprint(toy())


def test_types_are_stored_as_they_are_and_loaded_as_the_network_s(tmp_path):
    toy().half().save_pretrained(tmp_path, max_piece_size=PIECE_SIZE)
    assert {value.dtype for name in pieces(tmp_path) for value in load_file(tmp_path / name).values()} == {torch.float16}
    loaded = PixelCNN.from_pretrained(tmp_path)
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert fingerprint(loaded) == fingerprint(toy().half().float())


def test_one_piece_stays_one_file_and_replaces_earlier_pieces(folder):
    toy(seed=1).save_pretrained(folder)
    assert pieces(folder) == [WEIGHTS] and not (folder / INDEX).exists()
    assert (folder / SUMS).read_text().split()[1::2] == [CONFIG, WEIGHTS]
    assert fingerprint(PixelCNN.from_pretrained(folder)) == fingerprint(toy(seed=1))


def test_pieces_replace_an_earlier_single_file(tmp_path):
    toy().save_pretrained(tmp_path)
    toy(seed=1).save_pretrained(tmp_path, max_piece_size=PIECE_SIZE)
    assert FIRST in pieces(tmp_path) and not (tmp_path / WEIGHTS).exists()
    assert fingerprint(PixelCNN.from_pretrained(tmp_path)) == fingerprint(toy(seed=1))


def test_the_paper_s_cifar10_network_takes_three_pieces_below_50_mb():
    with torch.device("meta"):
        state = Network(PixelCNNConfig(channels=3, filters=160)).half().state_dict()
    split = split_torch_state_dict_into_shards(state, max_shard_size=weights.MAX_PIECE_SIZE).filename_to_tensors
    assert len(split) == 3
    headers = 200  # bytes for each tensor, at most
    assert all(sum(state[key].nbytes + headers for key in keys) < 50e6 for keys in split.values())


def test_hashes_are_those_of_all_files_of_weights(folder):
    lines = [line.split("  ") for line in (folder / SUMS).read_text().splitlines()]
    assert [name for _, name in lines] == [CONFIG, *pieces(folder), INDEX]
    assert all(digest == hashlib.sha256((folder / name).read_bytes()).hexdigest() for digest, name in lines)


def test_files_can_be_read_by_every_user(folder):
    assert all((folder / name).stat().st_mode & stat.S_IROTH for name in [*pieces(folder), INDEX, SUMS])


@pytest.mark.parametrize(("size", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("1MB", TypeError)])
def test_bad_piece_sizes_are_refused(size, error, tmp_path):
    with pytest.raises(error, match="max_piece_size"):
        toy().save_pretrained(tmp_path, max_piece_size=size)
    assert not list(tmp_path.iterdir())


def test_no_two_pieces_are_held_at_once(folder, monkeypatch):
    opened, most = [], 0
    original = weights.safe_open

    class Watched:
        def __init__(self, path, framework):
            self.file = original(path, framework=framework)

        def __enter__(self):
            nonlocal most
            opened.append(self)
            most = max(most, len(opened))
            return self.file.__enter__()

        def __exit__(self, *error):
            opened.remove(self)
            return self.file.__exit__(*error)

    monkeypatch.setattr(weights, "safe_open", Watched)
    PixelCNN.from_pretrained(folder)
    assert most == 1


# -- what is refused --------------------------------------------------------------------------------------------------


def flip_a_bit(path):
    """In the last tensor's values: safetensors itself would not notice."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def take_from_another_density(path):
    """Of the same sizes."""
    toy(seed=1).save_pretrained(path.parent.parent / "other", max_piece_size=PIECE_SIZE)
    shutil.copyfile(path.parent.parent / "other" / path.name, path)


DAMAGE = {  # file to damage, how, error, what it says
    "piece changed": (FIRST, flip_a_bit, ValueError, "SHA-256"),
    "piece cut off": (FIRST, lambda path: path.write_bytes(path.read_bytes()[:-10]), ValueError, "SHA-256"),
    "piece empty": (FIRST, lambda path: path.write_bytes(b""), ValueError, "SHA-256"),
    "piece of another density": (FIRST, take_from_another_density, ValueError, "another network"),
    "piece missing": (FIRST, lambda path: path.unlink(), FileNotFoundError, "missing"),
    "index missing": (INDEX, lambda path: path.unlink(), FileNotFoundError, "missing"),
    "index changed": (INDEX, lambda path: path.write_text('{"weight_map": {}}'), ValueError, "SHA-256"),
    "hashes missing": (SUMS, lambda path: path.unlink(), FileNotFoundError, "missing"),
    "hashes empty": (SUMS, lambda path: path.write_text(""), ValueError, "has no hash of"),
    "hashes scrambled": (SUMS, lambda path: path.write_bytes(b"\xff\xfe\n"), ValueError, "line 1"),
}


@pytest.mark.parametrize(("name", "damage", "error", "says"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_missing_and_foreign_files_are_named_with_what_to_do(name, damage, error, says, folder):
    damage(folder / name)
    with pytest.raises(error) as caught:
        PixelCNN.from_pretrained(folder)
    message = str(caught.value)
    assert message.startswith(str(folder / name)) and says in message
    assert message.endswith(RESTORE) and "\n" not in message


def test_an_index_that_is_none_is_named_even_with_its_hash(folder):
    (folder / INDEX).write_text("[]")
    write_checksums(folder)
    with pytest.raises(ValueError, match=f"{INDEX} is damaged"):
        PixelCNN.from_pretrained(folder)


SIZES = {"height": 12, "width": 12, "filters": 64, "blocks": 2, "mixtures": 5, "dropout": 0.1}  # some show in no tensor
IMPOSSIBLE = {"height": 27, "filters": -1, "channels": 2, "dropout": 3, "mixtures": 0}


@pytest.mark.parametrize("changed", SIZES.items(), ids=SIZES)
def test_sizes_of_another_network_are_noticed(changed, folder):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | dict([changed])))
    with pytest.raises(ValueError, match="SHA-256") as caught:
        PixelCNN.from_pretrained(folder)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(RESTORE)


@pytest.mark.parametrize("changed", IMPOSSIBLE.items(), ids=IMPOSSIBLE)
def test_impossible_sizes_are_named_even_with_their_hash(changed, folder):
    path = folder / CONFIG
    path.write_text(json.dumps(json.loads(path.read_text()) | dict([changed])))
    write_checksums(folder)
    with pytest.raises(ValueError) as caught:
        PixelCNN.from_pretrained(folder)
    assert str(caught.value).startswith(str(path)) and str(caught.value).endswith(RESTORE)


def test_a_configuration_without_a_hash_is_taken_as_it_is(folder):
    lines = (folder / SUMS).read_text().splitlines(keepends=True)
    (folder / SUMS).write_text("".join(line for line in lines if CONFIG not in line))
    assert fingerprint(PixelCNN.from_pretrained(folder)) == fingerprint(toy())


def lack_a_tensor(state):
    del state["network.head.b"]


def hold_another_tensor(state):
    state["extra"] = torch.zeros(1)


def change_a_size(state):
    state["network.head.b"] = torch.zeros(1)


def hold_no_number(state):
    state["network.head.b"][0] = torch.nan


@pytest.mark.parametrize(
    ("change", "says"),
    [(lack_a_tensor, "lack network.head.b"), (hold_another_tensor, "it holds extra"), (change_a_size, "another network"),
     (hold_no_number, "not finite")],
)  # fmt: skip
@pytest.mark.parametrize("size", [PIECE_SIZE, weights.MAX_PIECE_SIZE], ids=["pieces", "one file"])
def test_other_weights_are_refused_even_with_their_hashes(change, says, size, tmp_path):
    state = toy().state_dict()
    change(state)
    save_weights(state, tmp_path, max_piece_size=size)
    with pytest.raises(ValueError, match=says):
        load_weights(toy(seed=1), tmp_path)


def test_weights_without_hashes_are_refused_until_they_have_some(tmp_path):
    save_file(toy().state_dict(), tmp_path / WEIGHTS)
    model = toy(seed=1)
    with pytest.raises(FileNotFoundError, match=SUMS):
        load_weights(model, tmp_path)
    write_checksums(tmp_path)
    load_weights(model, tmp_path)
    assert fingerprint(model) == fingerprint(toy())


@pytest.mark.parametrize("content", [b"", b"\xff" * 50], ids=["empty", "scrambled"])
def test_a_file_that_is_no_safetensors_is_named_though_its_hash_is_right(content, tmp_path):
    (tmp_path / WEIGHTS).write_bytes(content)
    write_checksums(tmp_path)
    with pytest.raises(ValueError, match=f"{WEIGHTS} is damaged"):
        load_weights(toy(), tmp_path)


# -- from a hub, and those shipped ------------------------------------------------------------------------------------


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    """huggingface_hub's cache of a repository "owner/net" that was downloaded before."""
    monkeypatch.chdir(tmp_path)
    revision, repository = "0" * 40, tmp_path / "cache" / "models--owner--net"
    shutil.copytree(folder, repository / "snapshots" / revision)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)
    return {"cache_dir": tmp_path / "cache", "local_files_only": True}, repository / "snapshots" / revision


def test_all_pieces_come_from_a_hub(hub):
    options, _ = hub
    assert fingerprint(PixelCNN.from_pretrained("owner/net", **options)) == fingerprint(toy())


def test_what_no_hub_gives_is_said_to_be_no_folder_either(tmp_path):
    with pytest.raises(ValueError, match="there is no folder runs/my-densty, nor can it be had from a hub"):
        PixelCNN.from_pretrained("runs/my-densty", cache_dir=tmp_path, local_files_only=True)


def test_a_damaged_download_is_named(hub):
    options, snapshot = hub
    flip_a_bit(snapshot / FIRST)
    with pytest.raises(ValueError, match=f"{FIRST} is damaged .* download it again"):
        PixelCNN.from_pretrained("owner/net", **options)


def test_what_a_hub_is_asked_for_is_all_that_is_read(folder):
    wanted = {path.name for pattern in weights.WEIGHT_FILES for path in folder.glob(pattern)}
    assert wanted == {*pieces(folder), INDEX, SUMS}


SHIPPED = sorted(paths.WEIGHTS.glob("*/*"))


@pytest.mark.parametrize("folder", SHIPPED, ids=[folder.name for folder in SHIPPED])
def test_shipped_weights_are_those_that_their_hashes_say(folder):
    """Loading compares them; here only that each has hashes, and is small enough for a repository."""
    assert (folder / SUMS).is_file()
    assert all(path.stat().st_size < 50e6 for path in folder.iterdir())
    if folder.parent.name == "pixelcnn":
        scores = json.loads((folder / weights.SCORES).read_text())
        assert fingerprint(PixelCNN.from_pretrained(folder.name)) == scores["fingerprint"]
    else:
        config = json.loads((folder / weights.CONFIG).read_text())
        load_classifier(config["data_set"], config["network"], training=config["training"])


@pytest.mark.parametrize(("name", "limit"), [("fashion-mnist", 2.75), ("cifar10-small", 3.4), ("cifar10", 3.05)])
def test_shipped_densities_are_as_good_as_was_asked(name, limit):
    folder = paths.WEIGHTS / "pixelcnn" / name
    if not folder.is_dir():
        assert name == "cifar10", "all others are trained on a CPU"
        with pytest.raises(ValueError, match="It takes a GPU to train, .* there is cifar10-small"):
            PixelCNN.from_pretrained(name)
        return
    assert weights.read_scores(folder)["test_bits_per_dim"] <= limit


def test_the_shipped_density_is_still_the_one_that_the_records_name():
    assert fingerprint(PixelCNN.from_pretrained("fashion-mnist")) == "fb92872f52dc3014"
