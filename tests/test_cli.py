"""The command line: what each command writes and prints, going on after an interruption, one line for bad input."""

import inspect
import re
import subprocess
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import random_images, small_density

from pixeldefend import PixelCNN, PixelDefend, attacks, cli, load_images, p_values, paths, predict
from pixeldefend.classifiers import ResNet, load_classifier, save_classifier, train_classifier
from pixeldefend.commands import COMMANDS, archives, chunks, images, training
from pixeldefend.fingerprint import fingerprint
from pixeldefend.loop import TimeIsUp
from pixeldefend.pages import BookError
from pixeldefend.pixelcnn import shipped_densities
from pixeldefend.pixelcnn.training import train_density
from pixeldefend.study.records import Record, load_record, save_record

COUNT = 7


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A folder with a tiny density, a tiny classifier and a file of images; short chunks; it is the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chunks, "CHUNK", 2)
    monkeypatch.setattr(images, "SMALLEST_BATCH", 1)
    small_density(1).save_pretrained("density")
    net = ResNet(channels=1, width=2, units=1)
    net.reset_parameters(torch.Generator().manual_seed(0))
    save_classifier(net, data_set="fashion-mnist", network="resnet", training="normal", scores={}, root="nets")
    labels = torch.arange(COUNT) % 10
    save("in.npz", images=random_images(COUNT, 1, 8, 8), labels=labels, data_set="fashion-mnist")
    return tmp_path


def save(path, **arrays):
    np.savez(path, **{name: np.asarray(value) for name, value in arrays.items()})


def load(path) -> dict:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def images_of(path) -> torch.Tensor:
    return torch.from_numpy(load(path)["images"])


def run(command: str) -> int:
    return cli.main(command.split() + ["--quiet"])


SCORE = "score in.npz --density density --output out.npz"
ATTACK = "attack in.npz --classifiers nets --output out.npz --batch-size 2"
PURIFY = "purify in.npz --density density --eps 20 --output out.npz --batch-size 2"
RESUMABLE = {"score": SCORE, "attack": f"{ATTACK} --attack bim --eps 8", "purify": PURIFY}


# -- what the commands do ---------------------------------------------------------------------------------------------


def test_score_writes_the_density_s_numbers_and_p_values_against_a_reference(lab, capsys, monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK", 512)
    save("reference.npz", images=random_images(20, 1, 8, 8, seed=3))
    assert run("score reference.npz --density density --output bits.npz") == 0
    assert run(f"{SCORE} --reference bits.npz") == 0
    density = small_density(1)
    bits, reference = density.bits_per_dim(images_of("in.npz")), density.bits_per_dim(images_of("reference.npz"))
    found = load("out.npz")
    assert np.array_equal(found["bits_per_dim"], bits)
    assert np.array_equal(found["p_values"], p_values(-bits, -reference))
    said = capsys.readouterr().out.splitlines()
    assert f"{COUNT} images of in.npz: {bits.mean():.3f} bits per dimension on average" in said
    assert said[-1].endswith("against 20 reference images")
    assert "p_values" not in load("bits.npz")


@pytest.mark.parametrize("name", shipped_densities())
def test_the_shipped_reference_scores_belong_to_the_shipped_densities_and_can_be_named(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    density = PixelCNN.from_pretrained(name)
    data_set = name.removesuffix("-small")
    images = load_images(data_set, "test", limit=2).images
    save("few.npz", images=images, data_set=data_set)
    for split, count in (("held-out", 5_000), ("train", {"fashion-mnist": 55_000, "cifar10": 45_000}[data_set])):
        record = load_record(paths.RECORDS / "reference" / f"{name}-{split}.json")
        assert record.config["density"] == fingerprint(density) and 0.99 * count < len(record.bits) <= count
        precision = record.config["precision"]
        assert run(f"score few.npz --reference {split} --precision {precision} --output {split}.npz") == 0
        bits = density.bits_per_dim(images, precision=precision)
        assert np.array_equal(load(f"{split}.npz")["p_values"], p_values(-bits, -record.bits))
        other = {"float32": "bfloat16", "bfloat16": "float32"}[precision]
        assert run(f"score few.npz --reference {split} --precision {other} --output other.npz") == 1
        assert f"give --precision {precision}" in capsys.readouterr().err


@pytest.mark.parametrize("name", attacks.ATTACKS)
def test_attack_writes_what_the_function_returns_and_predictions_before_and_after(name, lab, capsys):
    assert run(f"{ATTACK} --attack {name} --eps 8 --seed 5") == 0
    net = load_classifier("fashion-mnist", "resnet", root="nets")
    images, labels, found = images_of("in.npz"), torch.arange(COUNT) % 10, load("out.npz")
    noise = {"generator": torch.Generator().manual_seed(5)} if name == "rand" else {}
    expected = attacks.ATTACKS[name](net, images, labels, eps=8, **noise)
    before, after = predict(net, images), predict(net, expected)
    assert np.array_equal(found["images"], expected) and found["images"].dtype == np.uint8
    assert np.array_equal(found["labels"], labels)
    assert np.array_equal(found["predictions_before"], before)
    assert np.array_equal(found["predictions_after"], after)
    right = [(p == labels).double().mean() for p in (before, after)]
    assert f"accuracy {right[0]:.1%} before, {right[1]:.1%} after" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "option", "value"), [
    ("deepfool", "rounding", "nearest"), ("carlini_wagner", "rounding", "nearest"), ("carlini_wagner", "setting", "tuned"),
])  # fmt: skip
def test_attack_passes_the_options_of_single_attacks_on(name, option, value, lab, capsys):
    assert run(f"{ATTACK} --attack {name} --eps 8 --label-source predicted --{option} {value}") == 0
    net = load_classifier("fashion-mnist", "resnet", root="nets")

    def attacked(**options):
        images, labels = images_of("in.npz"), torch.arange(COUNT) % 10
        return attacks.ATTACKS[name](net, images, labels, eps=8, label_source="predicted", **options)

    assert np.array_equal(load("out.npz")["images"], attacked(**{option: value}))
    assert not torch.equal(attacked(**{option: value}), attacked())
    assert f"{option} {value}" in capsys.readouterr().out


@pytest.mark.parametrize("threshold", [None, 8.0], ids=["all", "adaptive"])
def test_purify_writes_what_pixeldefend_returns(threshold, lab, capsys):
    more = "" if threshold is None else f" --threshold {threshold}"
    assert run(f"{PURIFY} --network resnet --classifiers nets{more}") == 0
    expected = PixelDefend(small_density(1), eps_defend=20, threshold=threshold)(images_of("in.npz"))
    found = load("out.npz")
    assert np.array_equal(found["images"], expected)
    assert np.array_equal(found["labels"], np.arange(COUNT) % 10)
    net = load_classifier("fashion-mnist", "resnet", root="nets")
    assert np.array_equal(found["predictions"], predict(net, expected))
    assert "accuracy" in capsys.readouterr().out


def test_one_command_s_output_is_the_next_one_s_input(lab):
    assert run(f"{ATTACK} --attack fgsm --eps 8") == 0
    assert run("purify out.npz --density density --eps 20 --output purified.npz --limit 3") == 0
    assert run("score purified.npz --density density --output bits.npz") == 0
    assert len(load("bits.npz")["bits_per_dim"]) == 3
    assert str(load("purified.npz")["data_set"]) == "fashion-mnist"


@pytest.mark.parametrize("data_set", ["fashion-mnist", "cifar10"])
def test_the_density_is_the_best_one_shipped_unless_it_is_given(data_set, lab, monkeypatch):
    asked, tiny = [], {"fashion-mnist": small_density(1), "cifar10": small_density(3)}[data_set]
    monkeypatch.setattr(images.PixelCNN, "from_pretrained", lambda name: asked.append(name) or tiny)
    assert run(f"score {data_set} --limit 1 --output out.npz") == 0
    assert asked == [images.Lab(data_set).density_name] and asked[0] in shipped_densities()


def test_the_reference_scores_of_a_density_in_a_folder_go_by_the_folder_s_name(lab, monkeypatch, capsys):
    monkeypatch.setattr(paths, "RECORDS", lab / "records")
    density = small_density(1)
    config = {"density": fingerprint(density), "precision": "float32"}
    bits = density.bits_per_dim(random_images(9, 1, 8, 8, seed=3)).double().tolist()
    save_record(Record(config, list(range(9)), [], [], bits), lab / "records" / "reference" / "density-held-out.json")
    for folder in ("density", "./density/", str(lab / "density")):
        assert run(f"score in.npz --density {folder} --reference held-out --output out.npz --force") == 0
        assert "against 9 reference images" in capsys.readouterr().out


def test_images_come_from_a_data_set_too(lab):
    assert run("score fashion-mnist --limit 3 --density density --output out.npz") == 0
    images = load_images("fashion-mnist", "test", limit=3).images
    assert np.allclose(load("out.npz")["bits_per_dim"], small_density(1).bits_per_dim(images), atol=1e-5)


@pytest.mark.parametrize(
    ("command", "function", "expected"),
    [
        ("train pixelcnn fashion-mnist --images 900", train_density, {"data_set": "fashion-mnist", "images": 900}),
        (
            "train pixelcnn cifar10 --images 9 --name x --filters 8 --blocks 2 --dropout 0.1 --batch-size 3 --seed 4 "
            "--learning-rate 0.01 --cooldown 0.5 --no-bfloat16 --compile --device cpu --folder f --weights w",
            train_density,
            {"data_set": "cifar10", "images": 9, "name": "x", "filters": 8, "blocks": 2, "dropout": 0.1, "batch_size": 3,
             "seed": 4, "learning_rate": 0.01, "cooldown": 0.5, "bfloat16": False, "compiled": True},
        ),
        ("train classifier fashion-mnist", train_classifier, {"data_set": "fashion-mnist"}),
        (
            "train classifier cifar10 resnet --training adversarial-bim --epochs 3 --batch-size 5 --seed 2 --no-bfloat16 "
            "--adversarial-std 25 --start-from normal",
            train_classifier,
            {"data_set": "cifar10", "network": "resnet", "training": "adversarial-bim", "epochs": 3, "batch_size": 5,
             "seed": 2, "bfloat16": False, "adversarial_std": 25.0, "start": "normal"},
        ),
    ],
    ids=["pixelcnn", "pixelcnn, all options", "classifier", "classifier, all options"],
)
def test_training_commands_pass_their_options_on_and_leave_the_rest_to_the_functions(
    command, function, expected, monkeypatch
):
    seen, signature = {}, inspect.signature(function)

    def trained(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        seen.update(bound.arguments)

    trained.__signature__ = signature
    monkeypatch.setattr(training, function.__name__, trained)
    assert run(command) == 0
    folders = {name: str(seen.pop(name)) for name in ("folder", "weights") if seen[name] is not None}
    assert folders == ({"folder": "f", "weights": "w"} if "--folder" in command else {})
    defaults = {p.name: p.default for p in signature.parameters.values() if p.default is not p.empty}
    assert seen == {name: value for name, value in defaults.items() if name in seen} | expected | {"progress": False}


def test_book_passes_its_options_on_and_says_where_the_book_is(lab, monkeypatch, capsys):
    calls = []

    def build(*args, **kwargs):
        calls.append((args, kwargs))
        return lab / "index.html"

    monkeypatch.setattr(training.book, "build", build)
    assert cli.main("book --profile smoke --notebooks 01 02 --recompute".split()) == 0
    assert calls == [(("smoke",), {"notebooks": ["01", "02"], "recompute": True})]
    assert "index.html" in capsys.readouterr().out


@pytest.mark.parametrize("options", ["", " --quiet"])
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_are_for_terminals(terminal, options, lab, monkeypatch):
    shown = []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(PixelCNN, "bits_per_dim", lambda density, images, *, progress, **_: shown.append(progress)
                        or torch.ones(len(images)))  # fmt: skip
    monkeypatch.setattr(PixelDefend, "purify", lambda defense, images, *, progress: shown.append(progress) or images)
    monkeypatch.setattr(training, "train_density", wraps(train_density)(lambda *, progress, **_: shown.append(progress)))
    for command in (SCORE, f"{PURIFY} --force", "train pixelcnn fashion-mnist --images 9"):
        assert cli.main(f"{command}{options}".split()) == 0
    assert len(shown) == 4 + 4 + 1 and set(shown) == {terminal and not options}


@pytest.mark.parametrize(("threads", "sizes"), [(1, [512, 512, 76]), (6, [512, 512, 76]), (10, [800, 300])])
def test_chunks_have_work_for_all_threads(threads, sizes, lab, monkeypatch):
    monkeypatch.undo()
    monkeypatch.chdir(lab)
    save("many.npz", images=torch.zeros(1100, 1, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = []
    monkeypatch.setattr(PixelDefend, "purify", lambda defense, images, **_: found.append(len(images)) or images)
    assert run("purify many.npz --density density --eps 20 --output out.npz") == 0
    assert found == sizes


# -- interruptions ----------------------------------------------------------------------------------------------------


def interrupt_after(monkeypatch, count: int):
    """Make the given number of chunks finish, then Ctrl-C."""
    write, written = chunks.write_archive, []

    def write_and_stop(path, **arrays):
        write(path, **arrays)
        written.append(path)
        if len(written) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(chunks, "write_archive", write_and_stop)


@pytest.mark.parametrize("finished", [1, 2])
@pytest.mark.parametrize("command", RESUMABLE.values(), ids=RESUMABLE)
def test_an_interrupted_command_goes_on_and_writes_the_same_file(command, finished, lab, monkeypatch, capsys):
    assert run(command) == 0
    whole = (lab / "out.npz").read_bytes()
    (lab / "out.npz").unlink()
    with monkeypatch.context() as patch:
        interrupt_after(patch, finished)
        assert run(command) == cli.INTERRUPTED
    assert re.fullmatch(r"pixeldefend: error: interrupted.*\n", capsys.readouterr().err)
    assert not (lab / "out.npz").exists()
    assert [len(load(path)["result"]) for path in (lab / "out.parts").iterdir()] == [2] * finished
    rows = record_rows(monkeypatch)
    assert run(command) == 0
    assert rows == list(range(2 * finished, COUNT, 2)), "what was finished is not computed again"
    assert (lab / "out.npz").read_bytes() == whole
    assert {path.name for path in lab.iterdir()} == {"density", "nets", "in.npz", "out.npz"}


def record_rows(monkeypatch) -> list[int]:
    """Where each chunk that is computed from now on starts."""
    rows, run_chunks = [], chunks.in_chunks

    def recorded(compute, *args, **kwargs):
        return run_chunks(lambda s: rows.append(s.start) or compute(s), *args, **kwargs)

    monkeypatch.setattr("pixeldefend.commands.images.in_chunks", recorded)
    return rows


@pytest.mark.parametrize(
    "change",
    [" --eps 21", " --threshold 1", " --precision bfloat16", " --limit 5", " --density other", " --batch-size 4"],
    ids=["eps", "threshold", "precision", "images", "density", "batch size"],
)
def test_chunks_of_another_computation_are_refused_until_forced(change, lab, monkeypatch, capsys):
    small_density(1, seed=1).save_pretrained("other")
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run(PURIFY) == cli.INTERRUPTED
    capsys.readouterr()
    assert run(PURIFY + change) == 1
    assert "other input or settings" in capsys.readouterr().err
    assert run(f"{PURIFY}{change} --force") == 0
    assert run(f"{PURIFY.replace('out.npz', 'fresh.npz')}{change}") == 0
    assert np.array_equal(load("out.npz")["images"], load("fresh.npz")["images"])


@pytest.mark.parametrize("change", ["--eps 9", "--label-source predicted", "--rounding nearest", "--setting tuned"])
def test_chunks_of_another_attack_are_refused(change, lab, monkeypatch, capsys):
    command = f"{ATTACK} --attack carlini_wagner --eps 8"
    with monkeypatch.context() as patch:
        interrupt_after(patch, 1)
        assert run(command) == cli.INTERRUPTED
    capsys.readouterr()
    assert run(f"{command} {change}") == 1
    assert_one_line(capsys.readouterr().err, "other input or settings")


@pytest.mark.parametrize("command", [*RESUMABLE.values(), f"{ATTACK} --attack rand --eps 8"], ids=[*RESUMABLE, "one chunk"])
def test_shards_computed_one_by_one_are_gathered_in_order(command, lab, monkeypatch, capsys):
    assert run(command) == 0
    whole = (lab / "out.npz").read_bytes()
    (lab / "out.npz").unlink()
    rows, seen = record_rows(monkeypatch), []
    for shard in ("3/3", "1/3", "2/3"):
        capsys.readouterr()
        assert run(f"{command} --shard {shard}") == 0
        assert capsys.readouterr().out == f"shard {shard} of in.npz is in out.parts\n"
        assert not (lab / "out.npz").exists()
        seen.append(rows.copy())
        rows.clear()
    assert seen == [[], [0], []] if "rand" in command else [[4], [0, 6], [2]]
    assert run(command) == 0
    assert rows == [], "nothing is computed again"
    assert (lab / "out.npz").read_bytes() == whole
    assert not (lab / "out.parts").exists()


@pytest.mark.parametrize("error", [RuntimeError, ValueError, OSError, torch.OutOfMemoryError])
def test_a_shard_that_fails_is_named_keeps_what_is_finished_and_can_be_computed_again(error, lab, monkeypatch, capsys):
    assert run(PURIFY) == 0
    whole = (lab / "out.npz").read_bytes()
    purify = PixelDefend.purify

    def fail_at_the_last(defense, images, **options):
        if len(images) < 2:
            raise error("the lamp\nwent out")
        return purify(defense, images, **options)

    command = PURIFY.replace("out.npz", "again.npz")
    with monkeypatch.context() as patch:
        patch.setattr(PixelDefend, "purify", fail_at_the_last)
        assert run(f"{command} --shard 1/3") == 1
    said = capsys.readouterr().err
    assert_one_line(said, f"shard 1/3 failed on images 6..6 ({error.__name__}: the lamp went out)")
    assert "--shard 1/3 computes it alone" in said
    rows = record_rows(monkeypatch)
    assert run(f"{command} --shard 1/3") == 0
    assert rows == [6]
    assert run(command) == 0
    assert rows == [6, 2, 4], "a call without --shard computes what is missing"
    assert (lab / "again.npz").read_bytes() == whole


def test_a_bug_in_a_shard_is_not_hidden(lab, monkeypatch):
    monkeypatch.setattr(PixelDefend, "purify", lambda *args, **options: {}["bug"])
    with pytest.raises(KeyError):
        run(f"{PURIFY} --shard 1/2")


@pytest.mark.parametrize("content", [b"cut", None], ids=["damaged", "too short"])
def test_a_bad_chunk_is_named(content, lab, capsys):
    assert run(f"{PURIFY} --shard 2/4") == 0
    (chunk,) = (lab / "out.parts").iterdir()
    if content is None:
        save(chunk, result=load(chunk)["result"][:1])
    else:
        chunk.write_bytes(content)
    assert run(PURIFY) == 1
    assert_one_line(capsys.readouterr().err, f"out.parts/{chunk.name}")
    chunk.unlink()
    assert run(PURIFY) == 0


def test_only_chunks_are_removed_from_their_folder(lab):
    (lab / "out.parts").mkdir()
    (lab / "out.parts" / "notes.txt").write_text("mine")
    assert run(PURIFY) == 0
    assert [path.name for path in (lab / "out.parts").iterdir()] == ["notes.txt"]


def test_a_chunk_that_another_process_should_have_left_is_missed(tmp_path):
    parts = chunks._Chunks(tmp_path / "out.npz", "0" * 64, images=7, size=2)
    with pytest.raises(FileNotFoundError, match="-0003-of-0004.npz: do all processes see the same folder"):
        parts.read(2)


def test_an_existing_output_is_kept_unless_forced(lab, capsys):
    (lab / "out.npz").write_bytes(b"precious")
    assert run(SCORE) == 1
    assert (lab / "out.npz").read_bytes() == b"precious"
    assert "--force" in capsys.readouterr().err
    assert run(f"{SCORE} --force") == 0
    assert len(load("out.npz")["bits_per_dim"]) == COUNT


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    archives.write_archive(tmp_path / "a.npz", x=torch.arange(3))
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        archives.write_archive(tmp_path / "a.npz", x=torch.arange(4))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]
    assert len(load(tmp_path / "a.npz")["x"]) == 3


# -- bad input --------------------------------------------------------------------------------------------------------


def put_bad_files():
    images = random_images(3, 1, 8, 8)
    save("floats.npz", images=images / 255)
    save("flat.npz", images=images[0])
    save("wrong-labels.npz", images=images, labels=torch.arange(4))
    save("unlabelled.npz", images=images, data_set="fashion-mnist")
    save("nameless.npz", images=images, labels=torch.arange(3))
    save("empty.npz", images=images[:0])
    save("no-images.npz", pictures=images)
    save("text.npz", images="words")
    np.savez("pickled.npz", images=np.array([{"a": 1}], dtype=object))
    np.save("array.npy", np.asarray(images))
    save("other-bits.npz", bits_per_dim=torch.ones(3), density="0123", precision="float32")
    whole = Path("in.npz").read_bytes()
    Path("cut.npz").write_bytes(whole[:200])
    Path("flipped.npz").write_bytes(whole[:300] + bytes([whole[300] ^ 255]) + whole[301:])
    Path("garbage.npz").write_bytes(b"\x80\x04garbage")
    Path("nothing.npz").write_bytes(b"")


BAD = {
    "no such file": ("score none.npz --output o.npz", "neither a file nor a data set"),
    "float images": ("score floats.npz --density density --output o.npz", "torch.uint8"),
    "one image": ("score flat.npz --density density --output o.npz", "(N, C, H, W)"),
    "labels of others": ("purify wrong-labels.npz --density density --eps 8 --output o.npz", "one per image"),
    "no labels": ("attack unlabelled.npz --attack fgsm --eps 8 --classifiers nets --output o.npz", "labels"),
    "data set unknown": ("attack nameless.npz --attack fgsm --eps 8 --classifiers nets --output o.npz", "--data-set"),
    "density unknown": ("score nameless.npz --output o.npz", "--data-set"),
    "no images": ("score empty.npz --density density --output o.npz", "holds 0 images"),
    "array missing": ("score no-images.npz --density density --output o.npz", "lacks the array"),
    "text": ("score text.npz --density density --output o.npz", "convert"),
    "pickled": ("score pickled.npz --density density --output o.npz", "allow_pickle=False"),
    "npy": ("score array.npy --density density --output o.npz", "not a readable .npz"),
    "cut off": ("score cut.npz --density density --output o.npz", "not a readable .npz"),
    "garbage": ("score garbage.npz --density density --output o.npz", "not a readable .npz"),
    "empty file": ("score nothing.npz --density density --output o.npz", "not a readable .npz"),
    "damaged": ("score flipped.npz --density density --output o.npz", "not a readable .npz"),
    "limit too large": ("score in.npz --density density --limit 8 --output o.npz", "1..7"),
    "limit zero": ("score fashion-mnist --density density --limit 0 --output o.npz", "at least 1"),
    "split of a file": ("score in.npz --split test --density density --output o.npz", "--split"),
    "two data sets": ("score cifar10 --data-set fashion-mnist --density density --output o.npz", "--data-set"),
    "wrong channels": ("score cifar10 --limit 1 --density density --output o.npz", "1 channel"),
    "no density": ("score in.npz --density none --output o.npz", "no shipped density of that name: 'none'"),
    "no classifier": ("attack in.npz --network vgg --attack fgsm --eps 8 --classifiers nets --output o.npz", "vgg"),
    "eps too large": ("purify in.npz --density density --eps 256 --output o.npz", "0..255"),
    "attack without eps": ("attack in.npz --attack fgsm --classifiers nets --output o.npz", "--eps"),
    "unfit option": (
        "attack in.npz --attack rand --eps 8 --label-source true --classifiers nets --output o.npz",
        "rand has no --label-source",
    ),
    "unfit rounding": (
        "attack in.npz --attack fgsm --eps 8 --rounding nearest --classifiers nets --output o.npz",
        "fgsm has no --rounding",
    ),
    "unfit setting": (
        "attack in.npz --attack deepfool --eps 8 --setting tuned --classifiers nets --output o.npz",
        "deepfool has no --setting",
    ),
    "batch size": ("attack in.npz --attack fgsm --eps 8 --batch-size 0 --classifiers nets --output o.npz", "at least 1"),
    "no folder": ("score in.npz --density density --output none/o.npz", "no folder none"),
    "not npz": ("score in.npz --density density --output o.png", ".npz"),
    "reference lacks": ("score in.npz --density density --reference in.npz --output o.npz", "bits_per_dim"),
    "reference differs": ("score in.npz --density density --reference other-bits.npz --output o.npz", "another density"),
    "no reference": ("score in.npz --density density --reference none.npz --output o.npz", "none.npz"),
    "no shipped reference": ("score in.npz --density density --reference held-out --output o.npz", "no scores of held-out"),
    "training size": ("train pixelcnn fashion-mnist --images 0", "at least 1"),
    "network": ("train classifier fashion-mnist lenet", "lenet"),
}
WRONG = {
    "nothing": ("", "COMMAND"),
    "unknown command": ("sell", "sell"),
    "unknown data set": ("train pixelcnn mnist --images 9", "mnist"),
    "no images": ("train pixelcnn fashion-mnist", "--images"),
    "not a number": ("purify in.npz --eps 8.5 --output o.npz", "8.5"),
    "unknown attack": ("attack in.npz --attack magic --eps 8 --output o.npz", "magic"),
    "unknown rounding": ("attack in.npz --attack deepfool --eps 8 --rounding down --output o.npz", "outward"),
    "unknown setting": ("attack in.npz --attack carlini_wagner --eps 8 --setting strong --output o.npz", "as_published"),
    "unknown device": ("score in.npz --output o.npz --device abacus", "no device"),
    "missing device": ("score in.npz --output o.npz --device cuda:99", "cuda:99 is not available"),
    "shard beyond the last": ("score in.npz --output o.npz --shard 5/4", "'5/4' is no shard: K/N with K in 1..N"),
    "shard zero": ("score in.npz --output o.npz --shard 0/4", "no shard"),
    "shard without a number": ("score in.npz --output o.npz --shard 4", "no shard"),
    "abbreviated": ("score in.npz --outp o.npz", "--output"),
}


def assert_one_line(error: str, mention: str):
    assert re.fullmatch(r"pixeldefend: error: .+\n", error), error
    assert mention in error


@pytest.mark.parametrize(("command", "mention"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line_and_exit_code_1(command, mention, lab, capsys):
    put_bad_files()
    before = set(lab.iterdir())
    assert run(command) == 1
    assert_one_line(capsys.readouterr().err, mention)
    assert set(lab.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(("command", "mention"), WRONG.values(), ids=WRONG)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(command, mention, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(command.split())
    assert stop.value.code == 2
    assert_one_line(capsys.readouterr().err, mention)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("a\nb"), 1),
        (TypeError("x"), 1),
        (ConnectionError("no mirror"), 1),
        (FloatingPointError("nan"), 1),
        (BookError("cell 3\n  begins"), 1),
        (ImportError("pooch"), 1),
        (torch.OutOfMemoryError("CUDA"), 1),
        (OSError(), 1),
        (KeyboardInterrupt(), 130),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else str(value),
)
def test_expected_errors_end_in_one_line(error, code, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(training.book, "build", fail)
    assert cli.main(["book"]) == code
    assert_one_line(capsys.readouterr().err, "")


@pytest.mark.parametrize(("kind", "code"), [(TimeIsUp, 75), (InterruptedError, 130)])
def test_a_training_whose_minutes_are_over_says_so_by_its_exit_code(kind, code, monkeypatch, capsys):
    def stop(**options):
        raise kind("stopped after 1 of 2 steps")

    monkeypatch.setattr(training, "train_density", wraps(train_density)(stop))
    assert cli.main("train pixelcnn fashion-mnist --images 9".split()) == code
    assert capsys.readouterr().err == "pixeldefend: stopped after 1 of 2 steps\n"


def test_unexpected_errors_are_not_hidden(monkeypatch):
    monkeypatch.setattr(training.book, "build", lambda *args, **kwargs: {}["bug"])
    with pytest.raises(KeyError):
        cli.main(["book"])


@pytest.mark.parametrize("words", ["", *COMMANDS, "train"], ids=lambda words: words or "all")
def test_help_is_there_and_names_every_command(words, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([*words.split(), "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert f"usage: {' '.join(['pixeldefend', *words.split()])}" in out
    if not words:
        assert all(name.split()[0] in out for name in COMMANDS)


def test_as_a_module_in_a_process_of_its_own():
    done = subprocess.run([sys.executable, "-m", "pixeldefend", "score", "none.npz", "--output", "o.npz"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert_one_line(done.stderr, "none.npz")
    assert done.stdout == ""
