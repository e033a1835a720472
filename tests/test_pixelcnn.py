"""The network and its 256-way head: size, causality, normalisation, sampling, storage, bad input."""

import json
import math
from pathlib import Path

import pytest
import torch
from nets import random_images, small_density

from pixeldefend import PixelCNN, load_images
from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn import model, shipped_densities
from pixeldefend.pixelcnn.incremental import bytes_per_image
from pixeldefend.pixelcnn.logistic import Room, bin_log_mass, level_log_probs
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig, initialise_from_data

CHANNELS = pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])


@pytest.mark.parametrize(
    ("channels", "filters", "count"),
    [(3, 160, 53_659_080), (1, 40, 3_369_500)],
    ids=["cifar10", "fashion-mnist"],
)
def test_parameter_count_is_the_papers(channels, filters, count):
    with torch.device("meta"):
        network = Network(PixelCNNConfig(channels=channels, filters=filters))
    assert sum(p.numel() for p in network.parameters()) == count


@CHANNELS
def test_a_sub_pixel_changes_no_prediction_at_or_before_it(channels):
    density = small_density(channels)
    image = random_images(1, channels, 8, 8, seed=1)
    sub_pixels = [(i, j, k) for i in range(8) for j in range(8) for k in range(channels)]  # in order of prediction
    changed = image.repeat(len(sub_pixels), 1, 1, 1)
    for t, (i, j, k) in enumerate(sub_pixels):
        changed[t, k, i, j] = (int(image[0, k, i, j]) + 128) % 256
    same = image.expand_as(changed)  # the same batch size: the same arithmetic, so equality is exact
    before, after = (density.conditional_log_probs(x).permute(0, 2, 3, 1, 4).flatten(1, 3) for x in (same, changed))
    moved = (after != before).any(-1)  # (which was changed, which prediction moved)
    assert not moved.tril().any()
    assert moved[:-1].any(dim=1).all(), "every sub-pixel but the last must matter to some later one"


@CHANNELS
def test_each_channel_is_conditioned_on_the_earlier_ones_of_its_pixel(channels):
    density = small_density(channels)
    image = random_images(1, channels, 8, 8, seed=2)
    moves = {}
    for k in range(channels):
        other = image.clone()
        other[0, k, 3, 4] ^= 128
        difference = density.conditional_log_probs(other) - density.conditional_log_probs(image)
        moves[k] = [bool(difference[0, later, 3, 4].abs().max() > 1e-6) for later in range(channels)]
    assert moves == {k: [later > k for later in range(channels)] for k in range(channels)}


@CHANNELS
def test_probabilities_sum_to_one_and_agree_with_the_likelihood(channels):
    density = small_density(channels)
    images = random_images(3, channels, 8, 12, seed=3)
    log_probs = density.conditional_log_probs(images)
    assert log_probs.shape == (*images.shape, 256)
    assert torch.allclose(log_probs.exp().sum(-1), torch.ones(images.shape), atol=1e-5)
    observed = log_probs.gather(-1, images.long()[..., None])[..., 0].sum((1, 2, 3))
    assert torch.allclose(observed, density.log_likelihood(images), rtol=1e-5)
    assert torch.allclose(density.bits_per_dim(images), -observed / (images[0].numel() * math.log(2)), rtol=1e-5)


@pytest.mark.parametrize("name", shipped_densities())
def test_the_shipped_densities_probabilities_sum_to_one_on_real_images(name):
    """On a random twentieth of the sub-pixels, as scored in either precision."""
    density = PixelCNN.from_pretrained(name)
    images = load_images(name.removesuffix("-small"), "test", limit=2).images
    chosen = torch.rand(images.shape, generator=torch.Generator().manual_seed(0)) < 0.05
    for precision in ("float32", "bfloat16"):
        sums = density.conditional_log_probs(images, precision=precision)[chosen].double().exp().sum(-1)
        assert len(sums) > 50 and (sums - 1).abs().max() < 1e-4


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 3.0])
@pytest.mark.parametrize("mean", [-1.5, -1.0, 0.1, 1.0, 4.0])
def test_bin_masses_are_exact_and_sum_to_one_for_narrow_wide_and_distant_components(mean, log_scale):
    levels = torch.arange(256, dtype=torch.float64)
    mass = bin_log_mass(torch.tensor(mean).double(), torch.tensor(log_scale).double(), levels)
    edges = torch.linspace(-1, 1, 257, dtype=torch.float64)
    cdf = torch.sigmoid((edges - mean) / math.exp(log_scale))
    cdf[0], cdf[-1] = 0.0, 1.0
    assert torch.allclose(mass.exp(), cdf.diff(), atol=1e-12)
    assert mass.isfinite().all()
    one, room = torch.zeros(1, dtype=torch.float64), Room()
    for first, count in ((0, 256), (7, 33), (0, 5), (200, 56), (255, 1)):
        for _ in range(2):  # the second time in used memory
            part = level_log_probs(one, one + mean, one + log_scale, torch.tensor(first), count, room=room)
            assert torch.allclose(part, mass[first : first + count], atol=1e-9)


def test_windows_of_levels_that_start_anywhere():
    """Each image has its own window of levels; the numbers are those of the whole distribution."""
    generator = torch.Generator().manual_seed(3)
    log_weights = torch.randn(5, 4, generator=generator).log_softmax(-1)
    means, log_scales = torch.randn(5, 4, generator=generator), 3 * torch.randn(5, 4, generator=generator) - 3
    first = torch.tensor([0, 1, 100, 222, 223])
    whole = level_log_probs(log_weights, means, log_scales, torch.zeros(5, dtype=torch.long), 256)
    part = level_log_probs(log_weights, means, log_scales, first, 33)
    for b, start in enumerate(first):
        assert torch.allclose(part[:, b], whole[start : start + 33, b], rtol=1e-5, atol=1e-5)
    assert torch.allclose(whole.exp().sum(0), torch.ones(5), atol=1e-5)


def test_data_dependent_initialisation_standardises_every_layer():
    network = Network(PixelCNNConfig(channels=1, filters=6, blocks=1, dropout=0.0))
    network.reset_parameters(torch.Generator().manual_seed(0))
    x = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    initialise_from_data(network, x)
    outputs = {}
    for layer in network.normalised_layers():
        layer.register_forward_hook(lambda layer, _, y: outputs.update({layer: y}))
    network(x)
    for layer, y in outputs.items():
        std, mean = torch.std_mean(y, dim=(0, 2, 3), correction=0)
        assert mean.abs().max() < 1e-4
        assert torch.allclose(std, torch.full_like(std, layer.init_scale), rtol=1e-3)


@CHANNELS
def test_sampling_follows_the_generator_and_the_distribution(channels):
    density = small_density(channels, 4, 4)
    draw = [density.sample(600, generator=torch.Generator().manual_seed(seed), batch_size=250) for seed in (0, 0, 1)]
    assert draw[0].shape == (600, channels, 4, 4) and draw[0].dtype == torch.uint8
    assert torch.equal(draw[0], draw[1]) and not torch.equal(draw[0], draw[2])
    # the first sub-pixel's distribution is the same for every image: compare means, within five standard errors
    probs = density.conditional_log_probs(draw[0][:1])[0, 0, 0, 0].exp()
    levels = torch.arange(256.0)
    mean = (probs * levels).sum()
    error = ((probs * levels.square()).sum() - mean**2).sqrt() / math.sqrt(600)
    assert abs(draw[0][:, 0, 0, 0].float().mean() - mean) < 5 * error


def test_a_caller_may_be_in_inference_mode():
    """What works on the images, on threads of its own, is not; there must be more than one."""
    density, images = small_density(1, 4, 4), random_images(240, 1, 4, 4)

    def draw():
        return density.sample(200, generator=torch.Generator().manual_seed(0))

    expected = density.log_likelihood(images), draw()
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.inference_mode():
            scores, drawn = density.log_likelihood(images.clone()), draw()
    finally:
        torch.set_num_threads(threads)
    assert torch.allclose(scores, expected[0], atol=1e-4) and torch.equal(drawn, expected[1])


def test_a_batch_is_smaller_where_many_threads_decode_at_once(monkeypatch):
    """On one or two threads, and for few images, it is the one that suits a thread."""
    with torch.device("meta"):
        large = PixelCNN(channels=3, height=32, width=32, filters=160, blocks=5)  # the paper's
    monkeypatch.setattr(PixelCNN, "device", torch.device("cpu"))
    batches, needed = {}, bytes_per_image(large.network.config, 32, torch.float32)
    for threads in (1, 2, 8, 64, 10_000):
        monkeypatch.setattr(torch, "get_num_threads", lambda n=threads: n)
        batches[threads] = large._decoding_batch(torch.Size((100_000, 3, 32, 32)), torch.float32)
        assert batches[threads] * threads * needed <= model.DECODING_MEMORY or batches[threads] == 1
        assert large._decoding_batch(torch.Size((512, 3, 32, 32)), torch.float32) == 512
    assert list(batches.values()) == sorted(batches.values(), reverse=True)
    assert batches[1] == 512 and 1 < batches[64] < 20 and batches[10_000] == 1


@pytest.mark.parametrize("name", shipped_densities())
@pytest.mark.parametrize("threads", [1, 2])
def test_the_shipped_densities_batches_are_the_same_on_one_and_on_two_threads(name, threads, monkeypatch):
    density = PixelCNN.from_pretrained(name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert density._decoding_batch(torch.Size((10_000, *density.shape)), torch.float32) == 512


def test_save_and_load_round_trip(tmp_path):
    density = small_density(3)
    density.save_pretrained(tmp_path / "net")
    again = PixelCNN.from_pretrained(tmp_path / "net")
    images = random_images(2, 3, 8, 8)
    assert not again.training
    assert torch.equal(density.bits_per_dim(images), again.bits_per_dim(images))
    assert fingerprint(density) == fingerprint(again)
    assert json.loads((tmp_path / "net" / "config.json").read_text())["filters"] == 6


def test_damaged_or_missing_weights_are_named(tmp_path):
    folder = tmp_path / "net"
    small_density(1).save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        PixelCNN.from_pretrained(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="model.safetensors is missing"):
        PixelCNN.from_pretrained(folder)


@pytest.mark.parametrize("name", ["mnist", "./runs/mnist", "runs/pixelcnn/mnist", "~/mnist", "/mnist", "../mnist", "runs/",
                                  "a b/c", Path("owner/net"), Path("fashion-mnist")])  # fmt: skip
def test_a_folder_that_is_not_there_is_never_asked_for_on_a_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(model, "snapshot_download", lambda *args, **options: pytest.fail("it was asked for"))
    with pytest.raises(ValueError, match=f"no such folder, and no shipped density .*'{name}'; shipped are: .*fashion-mnist"):
        PixelCNN.from_pretrained(name)


def test_a_folder_of_a_shipped_density_s_name_is_asked_for_as_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small_density(1).save_pretrained("fashion-mnist")
    assert PixelCNN.from_pretrained(Path("fashion-mnist")).network.config.filters == 6
    assert PixelCNN.from_pretrained("fashion-mnist").network.config.filters == 40


def test_a_density_is_loaded_where_it_is_wanted(tmp_path):
    small_density(1).save_pretrained(tmp_path)
    assert PixelCNN.from_pretrained(tmp_path).device.type == "cpu"
    assert PixelCNN.from_pretrained(tmp_path, device="meta").device.type == "meta"
    with pytest.raises(TypeError, match="devise"):
        PixelCNN.from_pretrained(tmp_path, devise="cuda")


def test_torch_s_default_device_is_where_a_new_density_is_and_does_not_matter_otherwise(tmp_path):
    """The generator of its first weights is the CPU's."""
    density, images = small_density(1), random_images(3, 1, 8, 8)
    density.save_pretrained(tmp_path)

    def computed():
        loaded = PixelCNN.from_pretrained(tmp_path)
        drawn = loaded.sample(2, generator=torch.Generator().manual_seed(0))
        return loaded.bits_per_dim(images), loaded.conditional_log_probs(images), drawn

    expected = computed()
    with torch.device("meta"):
        assert PixelCNN(channels=1, height=8, width=8, filters=4, blocks=1).device.type == "meta"
        found = computed()
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


@pytest.mark.parametrize("content", [b'{"channels": 1', b"\xff", b"[]", b'{"channels": 1}', b'{"channels": "one"}'],
                         ids=["cut off", "scrambled", "a list", "incomplete", "no number"])  # fmt: skip
def test_a_damaged_or_missing_configuration_is_named(content, tmp_path):
    small_density(1).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ValueError, match="config.json is damaged"):
        PixelCNN.from_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match="config.json is missing"):
        PixelCNN.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.zeros(1, 1, 8, 8), TypeError, "uint8"),
        (torch.full((1, 1, 8, 8), float("nan")), TypeError, "uint8"),
        ([[0]], TypeError, "uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), ValueError, "1 channel"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), ValueError, "shape"),
        (torch.zeros(1, 1, 8, 10, dtype=torch.uint8), ValueError, "multiples of 4"),
        (torch.zeros(1, 1, 0, 8, dtype=torch.uint8), ValueError, "multiples of 4"),
    ],
    ids=["float", "nan", "list", "channels", "dimensions", "size", "empty size"],
)
@pytest.mark.parametrize("method", ["log_likelihood", "bits_per_dim", "conditional_log_probs"])
def test_bad_images_are_refused(method, images, error, message):
    with pytest.raises(error, match=message):
        getattr(small_density(1), method)(images)


def test_other_bad_input_is_refused():
    density = small_density(1)
    images = random_images(1, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match="float32, bfloat16"):
        density.bits_per_dim(images, precision="float16")
    with pytest.raises(ValueError, match="at least 1"):
        density.sample(0, generator=generator)
    with pytest.raises(TypeError, match="torch.Generator"):
        density.sample(1, generator=None)
    density.train()
    with pytest.raises(ValueError, match="training mode"):
        density.bits_per_dim(images)
    with pytest.raises(ValueError, match="training mode"):
        density.sample(1, generator=generator)
    with pytest.raises(ValueError, match="channels must be 1 or 3"):
        PixelCNN(channels=2, height=8, width=8)
    with pytest.raises(ValueError, match="multiple of 4"):
        PixelCNN(channels=1, height=9, width=8)


def test_no_images_give_no_scores():
    assert small_density(1).bits_per_dim(torch.zeros(0, 1, 8, 8, dtype=torch.uint8)).shape == (0,)


@pytest.mark.parametrize("given", [(), (torch.zeros(2, 3, 8, 8),), (torch.zeros(2, 1, 8, 7),), (torch.zeros(1, 8, 8),),
                                   (torch.zeros(2, 1, 8, 8), torch.zeros(3, 1, 8, 8))])  # fmt: skip
def test_decode_refuses_tensors_that_are_no_images_of_its_own(given):
    with pytest.raises(ValueError, match="decode needs|multiples of 4"):
        small_density(1).decode(lambda log_probs, *values: values[0], *given)
