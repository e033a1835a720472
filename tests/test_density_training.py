"""Training the density: the recipe's arithmetic, resume bit for bit, and what a finished run leaves behind."""

import json
import math
import os
import shutil
import signal

import numpy as np
import pytest
import torch
from nets import random_images, small_density
from test_images import idx

from pixeldefend import PixelCNN, images, load_images, loop
from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn import card, training
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig
from pixeldefend.pixelcnn.training import OPTIMIZERS, DensityJob, Recipe, save_density, train_density
from pixeldefend.weights import BEFORE, EARLIER, SECONDS_BEFORE

STEPS = 9


def stripes(count: int, seed: int = 0) -> torch.Tensor:
    """Images that are easy to model: bright and dark rows take turns, from either start, with a little noise."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(8).expand(count, 8) + torch.randint(0, 2, (count, 1), generator=generator)
    levels = 60 + 120 * (rows % 2)[:, None, :, None].expand(count, 1, 8, 8)
    return (levels + torch.randint(-2, 3, levels.shape, generator=generator)).to(torch.uint8)


def job(*, dropout: float = 0.0, data: torch.Tensor | None = None, compiled: bool = False, **changes) -> DensityJob:
    network = Network(PixelCNNConfig(1, filters=4, blocks=1, mixtures=2, dropout=dropout))
    recipe = Recipe(**{"steps": STEPS, "cooldown_steps": 3, "warmup_steps": 4, "bfloat16": False} | changes)
    return DensityJob(network, stripes(20) if data is None else data, recipe, compiled=compiled)


def run(job: DensityJob, folder, *, steps: int = STEPS, **changes) -> int:
    usual = {"seed": 1, "log_every": 2, "save_every_seconds": 1e9}
    return loop.run(job, loop.Plan(len(job.images), 5, steps, **usual | changes), folder, progress=False)


def log(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / loop.LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def tensors(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list | tuple) else ()
    return [tensor for value in values for tensor in tensors(value)]


def assert_same_state(one: DensityJob, other: DensityJob):
    """Weights, their average and the optimizer's moments."""
    pairs = list(zip(tensors(one.state_dict()), tensors(other.state_dict()), strict=True))
    assert len(pairs) >= 2 * len(one.parameters)
    assert all(torch.equal(a, b) for a, b in pairs)


# -- the recipe -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, 0.1 / 10),
        (4, 0.1 * 5 / 10 * 0.99**4),
        (9, 0.1 * 0.99**9),
        (50, 0.1 * 0.99**50),
        (80, 0.1 * 0.99**80),
        (90, 0.1 * 0.99**90 / 2),
        (99, 0.1 * 0.99**99 / 20),
    ],
    ids=["first", "warming up", "warm", "decaying", "before cool-down", "half cooled", "last"],
)
def test_learning_rate_warms_up_decays_and_cools_down(step, expected):
    recipe = Recipe(steps=100, cooldown_steps=20, learning_rate=0.1, decay=0.99, warmup_steps=10)
    assert recipe.learning_rate * recipe.schedule(step) == pytest.approx(expected)


def test_without_warm_up_and_cool_down_the_learning_rate_is_the_authors():
    recipe = Recipe(steps=1000, warmup_steps=0)
    assert [recipe.learning_rate * recipe.schedule(step) for step in (0, 1, 999)] == pytest.approx(
        [1e-3, 1e-3 * 0.999995, 1e-3 * 0.999995**999], rel=1e-9
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_optimizers_use_the_recipe_s_learning_rates(optimizer):
    trained = job(learning_rate=0.02, muon_rate=0.05, optimizer=optimizer)
    highest = [0.02, 0.05] if optimizer == "muon" else [0.02]
    for step in (0, 1, STEPS - 1):
        before = [p.detach().clone() for p in trained.parameters]
        numbers = trained.step(torch.arange(5), step)
        rates = [rate * trained.recipe.schedule(step) for rate in highest]
        assert numbers["learning_rate"] == rates[0]
        assert [{g["lr"] for g in o.param_groups} for _, o in trained.optimizers] == [{rate} for rate in rates]
        if step == 0:  # Adam's first update moves each weight by the learning rate, whatever its gradient
            adams = {p for group in trained.optimizers[0][1].param_groups for p in group["params"]}
            pairs = [pair for pair in zip(trained.parameters, before, strict=True) if pair[0] in adams]
            moved = max(float((p.detach() - b).abs().max()) for p, b in pairs)
            assert moved == pytest.approx(rates[0], rel=1e-2)


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_compiled_a_step_is_the_same_up_to_rounding():
    plain, compiled = job(), job(compiled=True)
    for step in (0, 1):
        one, other = (of.step(torch.arange(5), step)["bits_per_dim"] for of in (plain, compiled))
        assert other == pytest.approx(one, rel=1e-5)
    pairs = zip(plain.parameters, compiled.parameters, strict=True)
    assert all(torch.allclose(p, q, rtol=1e-3, atol=1e-4) for p, q in pairs)


def test_adam_alone_updates_all_parameters_and_with_muon_the_rest():
    for optimizer, count in (("adam", 1), ("muon", 2)):
        trained = job(optimizer=optimizer)
        shares = [[p for group in o.param_groups for p in group["params"]] for _, o in trained.optimizers]
        assert len(shares) == count and {p for share in shares for p in share} == set(trained.parameters)
        assert sum(map(len, shares)) == len(trained.parameters), "none is updated twice"
    outer = {trained.network.head.v, trained.network.vertical_input.v}
    assert outer <= set(shares[0]) and set(shares[1]) == {layer.v for layer in trained.network.hidden_layers()}


@pytest.mark.parametrize("ema", [0.9995, 0.2], ids=["warming up", "at its limit"])
def test_the_average_is_the_exponential_moving_average_of_the_weights(ema):
    trained = job(ema=ema)
    by_hand = [p.detach().double() for p in trained.parameters]
    assert all(torch.equal(a, p) for a, p in zip(trained.average, trained.parameters, strict=True))
    for step in range(6):
        trained.step(torch.arange(5), step)
        decay = min(ema, (1 + step) / (10 + step))
        by_hand = [decay * a + (1 - decay) * p.detach().double() for a, p in zip(by_hand, trained.parameters, strict=True)]
    named = dict(trained.network.named_parameters())
    averaged = trained.averaged_state()
    assert list(averaged) == list(named)
    for (name, value), expected in zip(averaged.items(), by_hand, strict=True):
        assert torch.allclose(value.double(), expected, atol=1e-6), name
        assert value.shape == named[name].shape
        assert not value.requires_grad, "it would remember every step before it"
    assert not all(torch.equal(averaged[name], named[name]) for name in named)


def test_what_is_minimised_is_bits_per_dimension():
    """The first step's loss is that of the freshly initialised network, as `PixelCNN` scores it."""
    trained, model = job(), PixelCNN(channels=1, height=8, width=8, filters=4, blocks=1, mixtures=2)
    model.network.load_state_dict(trained.network.state_dict())
    index = torch.tensor([3, 7, 1])
    expected = model.bits_per_dim(trained.images[index]).mean().item()
    assert trained.step(index, 0)["bits_per_dim"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
def test_the_loss_falls_on_stripes(bfloat16, optimizer):
    trained = job(steps=40, cooldown_steps=10, learning_rate=0.01, optimizer=optimizer, bfloat16=bfloat16,
                  data=stripes(40))  # fmt: skip
    bits = []
    for step in range(40):
        with loop.seeded(1, step):
            bits.append(trained.step(torch.randint(0, 40, (10,)), step)["bits_per_dim"])
    assert np.mean(bits[-5:]) < 0.75 * np.mean(bits[:5])
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trained.parameters)


def test_training_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    job(dropout=0.5)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_are_drawn_before_they_are_moved(monkeypatch):
    """They are drawn with a generator of the CPU, which a network on a GPU refuses."""
    calls = []
    for name in ("reset_parameters", "to"):
        real = getattr(Network, name)

        def noted(self, *given, name=name, real=real, **options):
            calls.append(name)
            return real(self, *given, **options)

        monkeypatch.setattr(Network, name, noted)
    job()
    assert calls.count("to") == 1 and calls[-1] == "to"


def test_the_seed_decides_the_start():
    starts = [job(seed=seed) for seed in (1, 1, 2)]
    assert_same_state(starts[0], starts[1])
    assert not torch.equal(starts[0].parameters[0], starts[2].parameters[0])


@pytest.mark.parametrize(
    "changes",
    [{"cooldown_steps": STEPS + 1}, {"cooldown_steps": -1}, {"learning_rate": 0.0}, {"learning_rate": -1.0},
     {"learning_rate": math.nan}, {"learning_rate": math.inf}, {"muon_rate": 0.0}, {"optimizer": "sgd"}],
    ids=["cool-down too long", "cool-down negative", "no rate", "rate negative", "no number", "infinite", "no rate of Muon",
         "unknown optimizer"],
)
def test_bad_recipes_are_refused(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        Recipe(**{"steps": STEPS} | changes)


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="1 channel"):
        job(data=random_images(4, 3, 8, 8))


# -- resume -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stop", "dropout", "bfloat16"),
    [(3, 0.5, False), (7, 0.0, False), (7, 0.5, True)],
    ids=["while warming up, dropout", "while cooling down", "while cooling down, dropout, bfloat16"],
)
def test_resumed_training_equals_uninterrupted(stop, dropout, bfloat16, tmp_path):
    whole, again = (job(dropout=dropout, bfloat16=bfloat16) for _ in range(2))
    run(whole, tmp_path / "whole")
    run(job(dropout=dropout, bfloat16=bfloat16), tmp_path / "parts", steps=stop)  # as one that a signal ended
    assert run(again, tmp_path / "parts") == STEPS
    assert_same_state(whole, again)
    kept = sum(len(optimizer.state) for _, optimizer in whole.optimizers)
    assert kept == len(whole.parameters), "the optimizers' averages are among what is compared"
    assert log(tmp_path / "parts") == log(tmp_path / "whole")
    assert not torch.equal(whole.parameters[0], job().parameters[0])


def test_dropout_is_in_force_while_training():
    plain, dropped = job(), job(dropout=0.5)
    losses = []
    for trained in (plain, dropped):
        with loop.seeded(1, 0):
            losses.append(trained.step(torch.arange(5), 0)["bits_per_dim"])
    assert losses[0] != losses[1]


def test_killed_between_checkpoints_and_resumed(tmp_path):
    """The steps after the last checkpoint are lost and run again; so are their lines of the log."""
    whole = job(dropout=0.3)
    run(whole, tmp_path / "whole")
    killed = job(dropout=0.3)
    step, folder = killed.step, tmp_path / "killed"

    def step_until_killed(index, number):
        if number == 7:
            raise MemoryError("killed")
        return step(index, number)

    killed.step = step_until_killed
    run(killed, folder, steps=3)
    with pytest.raises(MemoryError):
        run(killed, folder)
    assert log(folder)[-1]["step"] == 6 and loop.load_checkpoint(folder / loop.CHECKPOINT)["step"] == 3
    again = job(dropout=0.3)
    run(again, folder)
    assert_same_state(whole, again)
    assert log(folder) == log(tmp_path / "whole")


def test_a_finished_run_is_made_longer_from_before_its_cool_down(tmp_path):
    whole = job(steps=12)
    run(whole, tmp_path / "whole", steps=12)
    folder = tmp_path / "short"
    run(job(steps=9), folder, steps=9, keep_step=6)
    os.replace(folder / loop.KEPT_CHECKPOINT, folder / loop.CHECKPOINT)
    longer = job(steps=12)
    run(longer, folder, steps=12)
    assert_same_state(whole, longer)


@pytest.mark.parametrize(
    "changes",
    [{"learning_rate": 0.5}, {"ema": 0.5}, {"betas": (0.5, 0.5)}, {"warmup_steps": 1}, {"dropout": 0.1},
     {"bfloat16": True}, {"muon_rate": 0.5}, {"optimizer": "adam"}],
    ids=lambda changes: next(iter(changes)),
)
def test_resuming_with_another_recipe_is_refused(changes, tmp_path):
    run(job(), tmp_path, steps=2)
    with pytest.raises(ValueError, match=rf"other settings \([a-z_, ]*{next(iter(changes))}"):
        run(job(**changes), tmp_path)


# -- what is saved ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 1e6], ids=["infinite", "not a number", "beyond float16"])
def test_diverged_weights_are_refused(value, tmp_path):
    density = small_density(1)
    with torch.no_grad():
        density.network.head.g[0] = value
    with pytest.raises(ValueError, match="diverged"):
        save_density(density, tmp_path / "weights", run=tmp_path, test=random_images(1, 1, 8, 8), settings={})
    assert not list(tmp_path.iterdir())


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Fashion-MNIST's layout with 12 images to train on, 3 held out and 6 to test on."""
    folder = tmp_path / "images"
    folder.mkdir()
    for seed, (part, count) in enumerate({"train": 15, "t10k": 6}.items()):
        pixels = stripes(count, seed)[:, 0].repeat(1, 4, 4)[:, :28, :28].numpy()
        (folder / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))
    monkeypatch.setattr(images, "HELD_OUT", 3)
    monkeypatch.setattr(card, "PROBE_IMAGES", 3)
    monkeypatch.setenv(images.ENVIRONMENT, str(folder))
    return folder


def train(tmp_path, where: str = "run", **changes) -> PixelCNN:
    usual = {"images": 24, "batch_size": 4, "filters": 4, "blocks": 1, "bfloat16": False, "progress": False,
             "folder": tmp_path / where, "weights": tmp_path / f"{where}-weights"}
    return train_density("fashion-mnist", **usual | changes)


def test_a_finished_run_is_saved_scored_and_loads_again(data, tmp_path, monkeypatch):
    seen = []
    step = DensityJob.step
    monkeypatch.setattr(DensityJob, "step", lambda job, index, number: seen.append(job) or step(job, index, number))
    model = train(tmp_path)
    assert len(seen) == 24 // 4
    assert torch.equal(seen[0].images, load_images("fashion-mnist", "train").images), "held-out images are not trained on"
    assert len(seen[0].images) == 12
    loaded = PixelCNN.from_pretrained(tmp_path / "run-weights")
    assert not model.training and fingerprint(loaded) == fingerprint(model)
    for name, value in seen[0].averaged_state().items():
        assert torch.equal(loaded.network.state_dict()[name], value.half().float()), "the average is what is saved"
    scores = json.loads((tmp_path / "run-weights" / training.SCORES).read_text())
    bits = loaded.bits_per_dim(load_images("fashion-mnist", "test").images)
    assert scores["test_images"] == 6 and scores["images_seen"] == 24
    assert scores["test_bits_per_dim"] == pytest.approx(bits.mean().item(), abs=2e-4)
    assert scores["fingerprint"] == fingerprint(loaded)
    assert scores["settings"]["batch_size"] == 4 and scores["settings"]["cooldown_steps"] == 4
    how = {"compiled": False, "device": "cpu", "processes": 1}
    assert scores["settings"] | how == scores["settings"] and "calls" not in scores
    assert scores["settings"]["dropout"] == model.network.config.dropout == 0, "the default"
    assert (tmp_path / "run-weights" / training.LOG).read_text() == (tmp_path / "run" / loop.LOG).read_text()
    assert scores["probes"] and (tmp_path / "run-weights" / card.SAMPLES).is_file()
    assert (tmp_path / "run-weights" / card.CARD).read_text() == card.card(tmp_path / "run-weights")


def test_a_stopped_run_raises_and_goes_on_to_the_same_weights(data, tmp_path, monkeypatch):
    whole = train(tmp_path, "whole", dropout=0.2)
    step = DensityJob.step

    def step_and_stop(job, index, number):
        if number == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(job, index, number)

    with monkeypatch.context() as patch:
        patch.setattr(DensityJob, "step", step_and_stop)
        with pytest.raises(InterruptedError, match="stopped after 3 of 6 steps") as stopped:
            train(tmp_path, "parts", dropout=0.2, minutes=60)
        assert not isinstance(stopped.value, loop.TimeIsUp)
    assert not (tmp_path / "parts-weights").exists()
    assert fingerprint(train(tmp_path, "parts", dropout=0.2)) == fingerprint(whole)


def test_calls_of_different_kinds_are_told(data, tmp_path):
    with pytest.raises(loop.TimeIsUp):
        train(tmp_path, minutes=1e-9)
    kept = tmp_path / "run" / loop.CHECKPOINT
    state = loop.load_checkpoint(kept)
    state["calls"][0]["device"] = "cuda"
    torch.save(state, kept)
    train(tmp_path)
    scores = json.loads((tmp_path / "run-weights" / training.SCORES).read_text())
    assert [call["device"] for call in scores["calls"]] == ["cuda", "cpu"] and scores["settings"]["device"] == "cpu"
    said = "not all alike (device: cuda; compiled: False; processes: 1, then device: cpu;"
    assert said in (tmp_path / "run-weights" / card.CARD).read_text()


def test_damaged_scores_of_a_start_are_named(data, tmp_path):
    train(tmp_path, "first")
    path = tmp_path / "first-weights" / training.SCORES
    path.write_text(path.read_text()[:-20])
    with pytest.raises(ValueError, match="scores.json is damaged .*; restore it"):
        train(tmp_path, "second", start=tmp_path / "first-weights")


def test_a_run_can_start_from_another_density_s_weights(data, tmp_path, monkeypatch):
    first = train(tmp_path, "first")
    begun = []
    init = DensityJob.__init__

    def watched(job, network, *arguments, **options):
        init(job, network, *arguments, **options)
        begun.append({name: value.clone() for name, value in network.state_dict().items()})

    monkeypatch.setattr(DensityJob, "__init__", watched)
    second = train(tmp_path, "second", start=tmp_path / "first-weights", filters=4, optimizer="adam")
    assert all(torch.equal(value, first.network.state_dict()[name]) for name, value in begun[0].items())
    assert fingerprint(second) != fingerprint(first) and second.network.config == first.network.config
    scores = json.loads((tmp_path / "second-weights" / training.SCORES).read_text())
    assert scores["settings"]["start"] == fingerprint(first) and scores["images_seen"] == 24
    assert fingerprint(first) in (tmp_path / "second-weights" / card.CARD).read_text()
    assert "start" not in json.loads((tmp_path / "first-weights" / training.SCORES).read_text())["settings"]


def test_a_start_has_its_own_size_but_dropout_may_change(data, tmp_path):
    train(tmp_path, "first", dropout=0.5)
    for name, value in {"filters": 5, "blocks": 2}.items():
        with pytest.raises(ValueError, match=f"has . {name}, not {value}"):
            train(tmp_path, "second", start=tmp_path / "first-weights", **{name: value})
    options = {"start": tmp_path / "first-weights", "filters": None, "blocks": None}
    assert train(tmp_path, "same", **options).network.config.dropout == 0.5
    other = train(tmp_path, "other", **options, dropout=0.25)
    assert (other.network.config.dropout, other.network.config.filters, other.network.config.blocks) == (0.25, 4, 1)


def test_weights_are_not_replaced_unless_that_is_wanted(data, tmp_path, monkeypatch):
    first = train(tmp_path)
    with pytest.raises(FileExistsError, match="run-weights holds weights"):
        train(tmp_path, "other", weights=tmp_path / "run-weights", seed=2)
    assert not (tmp_path / "other").exists(), "no time is lost"
    for folder in (tmp_path, tmp_path / "run"):  # all in it would be replaced
        with pytest.raises(FileExistsError, match="weights need a folder of their own"):
            train(tmp_path, "other", weights=folder, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError, match="is a file"):
        train(tmp_path, "other", weights=tmp_path / "file", force=True)
    options = {"weights": tmp_path / "run-weights", "start": tmp_path / "run-weights", "force": True}
    with monkeypatch.context() as patch:
        patch.setattr(PixelCNN, "bits_per_dim", lambda *_, **__: 1 / 0)  # killed while it scores
        with pytest.raises(ZeroDivisionError):
            train(tmp_path, "other", **options)
    assert fingerprint(PixelCNN.from_pretrained(tmp_path / "run-weights")) == fingerprint(first), "the old ones are whole"
    second = train(tmp_path, "other", **options)
    assert fingerprint(PixelCNN.from_pretrained(tmp_path / "run-weights")) == fingerprint(second) != fingerprint(first)
    assert json.loads((tmp_path / "run-weights" / training.SCORES).read_text())["fingerprint"] == fingerprint(second)
    assert not list(tmp_path.glob("*.partial")) and not list(tmp_path.glob("*.old"))


def test_a_run_stops_when_its_minutes_are_over(data, tmp_path):
    with pytest.raises(loop.TimeIsUp, match="stopped after 1 of 6 steps"):
        train(tmp_path, minutes=1e-9)
    with pytest.raises(ValueError, match="minutes must be positive"):
        train(tmp_path, "other", minutes=0)
    assert fingerprint(train(tmp_path)) == fingerprint(train(tmp_path, "whole"))


def test_a_density_of_images_of_another_size_is_no_start(data, tmp_path):
    small_density(1).save_pretrained(tmp_path / "small")
    with pytest.raises(ValueError, match=r"for images of shape \(1, 8, 8\)"):
        train(tmp_path, start=tmp_path / "small")
    assert not (tmp_path / "run").exists()


def test_folders_default_to_the_repository_s_under_the_density_s_name(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training.paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(training.paths, "WEIGHTS", tmp_path / "shipped")
    train(tmp_path, folder=None, weights=None, name="small", images=4)
    assert (tmp_path / "runs" / "pixelcnn-small" / loop.CHECKPOINT).is_file()
    assert fingerprint(PixelCNN.from_pretrained("small"))


@pytest.mark.parametrize(
    ("changes", "error", "mention"),
    [
        ({"images": 0}, ValueError, "images"),
        ({"images": 1.5}, TypeError, "images"),
        ({"batch_size": 0}, ValueError, "batch_size"),
        ({"batch_size": 13}, ValueError, "batch_size"),
        ({"cooldown": 1.1}, ValueError, "cooldown"),
        ({"learning_rate": 0.0}, ValueError, "learning_rate"),
        ({"blocks": 0}, ValueError, "blocks"),
        ({"filters": 0}, ValueError, "filters"),
        ({"dropout": 1.0}, ValueError, "dropout"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_bad_arguments_are_refused_before_anything_is_written(changes, error, mention, data, tmp_path):
    with pytest.raises(error, match=mention):
        train(tmp_path, **changes)
    assert not (tmp_path / "run").exists()


def test_an_unknown_data_set_is_refused():
    with pytest.raises(ValueError, match="cifar10, fashion-mnist"):
        train_density("mnist", images=4)


def test_what_an_earlier_run_had_seen_is_noted_and_adds_up(data, tmp_path):
    train(tmp_path, "first")
    scores = {}
    for name, start in (("second", "first"), ("third", "second")):
        train(tmp_path, name, start=tmp_path / f"{start}-weights", images=16)
        scores[name] = json.loads((tmp_path / f"{name}-weights" / training.SCORES).read_text())
    assert (scores["second"][BEFORE], scores["third"][BEFORE]) == (24, 24 + 16)
    assert scores["third"]["images_seen"] == 16
    assert scores["third"][SECONDS_BEFORE] > scores["second"][SECONDS_BEFORE] > 0
    assert "**56 images seen**" in (tmp_path / "third-weights" / card.CARD).read_text()
    first = json.loads((tmp_path / "first-weights" / training.SCORES).read_text())
    assert not {BEFORE, EARLIER} & first.keys()
    runs = scores["third"][EARLIER]
    assert [run["fingerprint"] for run in runs] == [first["fingerprint"], scores["second"]["fingerprint"]]
    assert [run["settings"] for run in runs] == [first["settings"], scores["second"]["settings"]]
