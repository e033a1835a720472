"""Training a classifier: the recipe's arithmetic, resume bit for bit, and what a finished run leaves behind."""

import json

import pytest
import torch
import torch.nn.functional as F

from pixeldefend import loop
from pixeldefend.classifiers import ResNet, load_classifier, predict, train_classifier, training
from pixeldefend.classifiers.losses import TRAININGS
from pixeldefend.classifiers.training import ClassifierJob, Recipe
from pixeldefend.fingerprint import fingerprint
from pixeldefend.images import Images
from pixeldefend.scaling import to_unit

SIZE = {"channels": 1, "width": 2, "units": 1}
ADVERSARIAL = ("adversarial-fgsm", "adversarial-bim")


def squares(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ten easy classes: a bright square at one of ten places on dark noise."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 1, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (count,), generator=generator)
    for image, label in zip(images, labels.tolist(), strict=True):
        row, column = divmod(label, 4)
        image[0, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3] = 255
    return images, labels


def job(**changes) -> ClassifierJob:
    return ClassifierJob(ResNet(**SIZE), *squares(40, 0), Recipe(**{"steps": 9, "bfloat16": False} | changes))


def run(job, folder, *, steps=9, seed=0):
    return loop.run(job, loop.Plan(40, 8, steps, seed=seed, log_every=2), folder, progress=False)


def assert_same_state(a: ClassifierJob, b: ClassifierJob):
    for one, other in zip(flat(a.state_dict()), flat(b.state_dict()), strict=True):
        assert torch.equal(one, other)


def flat(state) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state]
    return [t for value in state.values() for t in flat(value)] if isinstance(state, dict) else []


@pytest.mark.parametrize("steps, step, rate", [
    (80_000, 0, 0.1), (80_000, 39_999, 0.1), (80_000, 40_000, 0.01), (80_000, 59_999, 0.01), (80_000, 60_000, 0.001),
    (80_000, 79_999, 0.001), (10, 4, 0.1), (10, 5, 0.01), (10, 7, 0.01), (10, 8, 0.001),
])
def test_learning_rate_falls_where_the_authors_did_scaled_to_the_run(steps, step, rate):
    assert Recipe(steps=steps).learning_rate_at(step) == pytest.approx(rate)


def test_first_two_updates_by_hand():
    """Momentum 0.9 on the gradient of cross-entropy + 5e-4 sum(w^2) / 2 over every trainable variable."""
    trained = job(steps=100, flip=False)
    reference = ResNet(**SIZE)
    reference.load_state_dict(trained.model.state_dict())
    reference.train()
    velocity = [torch.zeros_like(p) for p in reference.parameters()]
    for step, index in enumerate((torch.arange(8), torch.arange(8, 16))):
        trained.step(index, step)
        loss = F.cross_entropy(reference(to_unit(trained.images[index])), trained.labels[index])
        loss = loss + 5e-4 / 2 * sum(p.square().sum() for p in reference.parameters())
        gradients = torch.autograd.grad(loss, list(reference.parameters()))
        with torch.no_grad():
            for p, v, g in zip(reference.parameters(), velocity, gradients, strict=True):
                v.mul_(0.9).add_(g)
                p.sub_(0.1 * v)
    for ours, theirs in zip(trained.model.parameters(), reference.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_about_half_of_the_images_are_flipped_horizontally():
    trained = job()
    index = torch.arange(40)
    with loop.seeded(0, 0):
        pixels, labels = trained._batch(index)
    plain = to_unit(trained.images)
    kept = (pixels == plain).flatten(1).all(1)
    turned = (pixels == plain.flip(-1)).flatten(1).all(1)
    assert (kept | turned).all()
    assert 8 <= kept.sum() <= 32
    assert torch.equal(labels, trained.labels)


@pytest.mark.parametrize("bfloat16", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("training", ["normal", *ADVERSARIAL])
@pytest.mark.parametrize("stop", [3, 6], ids=["before the rate falls", "after it"])
def test_resumed_training_equals_uninterrupted(bfloat16, training, stop, tmp_path):
    recipe = {"bfloat16": bfloat16, "training": training}
    whole, again = (job(**recipe) for _ in range(2))
    run(whole, tmp_path / "whole")
    run(job(**recipe), tmp_path / "parts", steps=stop)  # as a run that a signal ended
    run(again, tmp_path / "parts")
    assert_same_state(whole, again)
    assert not torch.equal(whole.model.classify.weight, job().model.classify.weight)


@pytest.mark.parametrize("change", [{"learning_rate": 0.05}, {"steps": 20}, {"flip": False}, {"penalty": 0.0}],
                         ids=lambda change: next(iter(change)))
def test_resuming_with_another_recipe_is_refused(change, tmp_path):
    run(job(), tmp_path, steps=2)
    with pytest.raises(ValueError, match=next(iter(change))):
        run(job(**change), tmp_path)


def test_resuming_with_another_adversarial_std_is_refused(tmp_path):
    run(job(training="adversarial-fgsm"), tmp_path, steps=2)
    with pytest.raises(ValueError, match="adversarial_std"):
        run(job(training="adversarial-fgsm", adversarial_std=25.0), tmp_path)


@pytest.mark.parametrize("training", ["normal", "label-smoothing"])
def test_settings_have_no_adversarial_std_where_nothing_is_attacked(training):
    """Older checkpoints have none, and must still resume."""
    settings = job(training=training).settings
    assert settings.keys() == SIZE.keys() | {"steps", "training", "learning_rate", "momentum", "penalty", "milestones",
                                             "flip", "bfloat16", "seed"}


@pytest.mark.parametrize("training", TRAININGS)
def test_every_way_of_training_lowers_its_loss(training):
    trained = job(steps=60, training=training, bfloat16=True)
    numbers = []
    for step in range(60):
        with loop.seeded(0, step):
            numbers.append(trained.step(loop.batch_indices(loop.Plan(40, 20, 60), step), step))
    first, last = ({name: sum(n[name] for n in part) / 10 for name in part[0]} for part in (numbers[:10], numbers[-10:]))
    assert last["loss"] < 0.8 * first["loss"]
    assert last["accuracy"] > first["accuracy"] + 0.2
    assert first.keys() == {"loss", "accuracy", "learning_rate"} | ({"adversarial_accuracy"} & set(last))
    assert ("adversarial_accuracy" in last) == (training in ADVERSARIAL)


@pytest.fixture
def small_data(monkeypatch):
    """`train_classifier` on ten easy classes and a tiny network."""
    splits = {"train": squares(160, 0), "test": squares(100, 1)}

    def load(name, split):
        return Images(name, split, *splits[split], tuple("0123456789"), "made up")

    monkeypatch.setattr(training, "load_images", load)
    monkeypatch.setitem(training.SIZES, ("fashion-mnist", "resnet"), {"channels": 1, "width": 4, "units": 1})
    return splits


def test_train_score_save_and_load(small_data, tmp_path):
    model = train_classifier(
        "fashion-mnist", epochs=10, batch_size=16, folder=tmp_path / "run", weights=tmp_path, progress=False
    )
    images, labels = small_data["test"]
    folder = tmp_path / "fashion-mnist-resnet-normal"
    scores = json.loads((folder / "scores.json").read_text())
    right = (predict(model, images) == labels).double().mean().item()
    assert not model.training
    assert right > 0.5  # chance is 0.1
    assert scores["test_accuracy"] == right
    assert (scores["test_images"], scores["images_seen"]) == (100, 1600)
    assert scores["training_seconds"] > 0
    assert json.loads((folder / "config.json").read_text())["settings"]["epochs"] == 10
    assert [json.loads(line)["step"] for line in (folder / "log.jsonl").read_text().splitlines()] == [50, 100]
    again = load_classifier("fashion-mnist", "resnet", root=tmp_path)
    assert torch.equal(predict(again, images), predict(model, images))


@pytest.mark.parametrize("training, change", [
    ("label-smoothing", {}), ("adversarial-fgsm", {"adversarial_std": 25.0}), ("adversarial-bim", {"adversarial_std": 8.0}),
])
def test_other_ways_of_training_are_saved_under_their_name(training, change, small_data, tmp_path):
    train_classifier("fashion-mnist", "resnet", training, epochs=5, batch_size=16, folder=tmp_path / "run",
                     weights=tmp_path, progress=False, **change)
    folder = tmp_path / f"fashion-mnist-resnet-{training}"
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert {"training": training, **change}.items() <= settings.items()
    assert [name for name in settings if name.startswith("adversarial")] == list(change)
    (line,) = (folder / "log.jsonl").read_text().splitlines()
    assert ("adversarial_accuracy" in json.loads(line)) == (training in ADVERSARIAL)
    assert not load_classifier("fashion-mnist", "resnet", training=training, root=tmp_path).training


def test_a_warm_start_goes_on_from_the_shipped_weights(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(training.paths, "WEIGHTS", tmp_path)
    settings = {"batch_size": 16, "progress": False}
    first = train_classifier("fashion-mnist", epochs=10, folder=tmp_path / "run", **settings)
    second = train_classifier(
        "fashion-mnist", training="adversarial-fgsm", start="normal", epochs=1, folder=tmp_path / "second", **settings
    )
    kept = json.loads((tmp_path / "classifiers" / "fashion-mnist-resnet-adversarial-fgsm" / "config.json").read_text())
    assert kept["settings"]["start"] == fingerprint(first) != fingerprint(second)
    assert kept["settings"]["learning_rate"] == 0.01
    scores = json.loads((tmp_path / "classifiers" / "fashion-mnist-resnet-adversarial-fgsm" / "scores.json").read_text())
    assert (scores["images_seen"], scores["images_seen_before"]) == (160, 1600)
    drawn = ResNet(channels=1, width=4, units=1)
    drawn.reset_parameters(torch.Generator().manual_seed(0))
    near, far = ((first.classify.weight - net.classify.weight).norm() for net in (second, drawn))
    assert 0 < near < 0.3 * far, "ten small steps away, not drawn anew"
    again = {"training": "adversarial-fgsm", "epochs": 1, "folder": tmp_path / "second", **settings}
    with pytest.raises(FileExistsError, match="adversarial-fgsm holds weights"):
        train_classifier("fashion-mnist", **again)
    with pytest.raises(ValueError, match="start"):  # the checkpoint knows what it started from
        train_classifier("fashion-mnist", **again, force=True)


def test_a_warm_start_needs_weights_to_start_from(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(training.paths, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="no classifier 'fashion-mnist-resnet-normal'"):
        train_classifier("fashion-mnist", training="adversarial-bim", start="normal", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stopped_run_says_so_and_saves_no_weights(small_data, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "run", lambda *_, **__: 7)
    with pytest.raises(InterruptedError, match="7 of 20 steps"):
        train_classifier("fashion-mnist", epochs=2, batch_size=16, folder=tmp_path / "run", weights=tmp_path)
    assert not (tmp_path / "fashion-mnist-resnet-normal").exists()


BAD_CALLS = {
    "data set": ({"data_set": "mnist"}, ValueError, "cifar10, fashion-mnist"),
    "network": ({"network": "lenet"}, ValueError, "resnet, vgg"),
    "training": ({"training": "adversarial"}, ValueError, "adversarial-bim, adversarial-fgsm, label-smoothing, normal"),
    "adversarial std": ({"adversarial_std": 0.0}, ValueError, "adversarial_std"),
    "no epochs": ({"epochs": 0}, ValueError, "epochs"),
    "half an epoch": ({"epochs": 0.5}, TypeError, "epochs"),
    "empty batches": ({"batch_size": 0}, ValueError, "batch_size"),
}


@pytest.mark.parametrize("change, kind, mention", BAD_CALLS.values(), ids=BAD_CALLS)
def test_bad_calls(change, kind, mention, tmp_path):
    with pytest.raises(kind) as caught:
        train_classifier(**{"data_set": "fashion-mnist", "folder": tmp_path} | change)
    assert mention in str(caught.value)


def test_one_cycle_rises_for_a_fifth_of_the_run_and_falls_to_zero():
    recipe = Recipe(steps=999, schedule="one-cycle", learning_rate=0.2)
    rates = [recipe.learning_rate_at(step) for step in range(999)]
    assert rates[199] == max(rates) == pytest.approx(0.2)
    assert rates[0] == pytest.approx(0.2 / 200) and rates[99] == pytest.approx(0.1)
    assert rates[599] == pytest.approx(0.1) and rates[-1] == pytest.approx(0.2 / 800)
    assert min(rates) > 0, "every update moves"


def test_settings_hold_what_the_schedule_uses():
    assert "schedule" not in Recipe(steps=1).settings(), "as in the runs from before there was a choice"
    one_cycle = Recipe(steps=1, schedule="one-cycle").settings()
    assert one_cycle["schedule"] == "one-cycle" and "milestones" not in one_cycle


def test_bad_recipes():
    with pytest.raises(ValueError, match="choose one of: adversarial-bim"):
        Recipe(steps=1, training="smooth")
    with pytest.raises(ValueError, match="schedule"):
        Recipe(steps=1, schedule="cosine")
    with pytest.raises(ValueError, match="learning_rate"):
        Recipe(steps=1, learning_rate=0.0)
    for std in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="adversarial_std"):
            Recipe(steps=1, adversarial_std=std)


@pytest.mark.parametrize("images, labels, kind", [
    (lambda i, y: i.float(), lambda i, y: y, TypeError), (lambda i, y: i, lambda i, y: y[:3], ValueError),
], ids=["float images", "too few labels"])
def test_bad_training_data(images, labels, kind):
    data = squares(8, 0)
    with pytest.raises(kind):
        ClassifierJob(ResNet(**SIZE), images(*data), labels(*data), Recipe(steps=1))
