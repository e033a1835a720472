"""Products in all of float32, whatever the process around has chosen, which finds its own settings again."""

import threading

import pytest
import torch
from nets import random_images, small_density

from pixeldefend import PixelDefend, lbfgs_purify
from pixeldefend.defenses import UnrolledPurification
from pixeldefend.defenses.lbfgs import log_likelihood_and_gradient
from pixeldefend.pixelcnn.incremental import Decoder
from pixeldefend.pixelcnn.precision import PRECISIONS, dtype_of, full_products
from pixeldefend.study import speed

# some versions of torch say so of the older settings, which are used here on purpose
pytestmark = pytest.mark.filterwarnings("ignore:Please use the new API:UserWarning")
CPU = torch.device("cpu")
newer = pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has the older settings only")


def settings() -> list[str]:
    """What torch says of convolutions and matrix products, on a GPU and on a CPU."""
    backends = torch.backends
    owners = (backends.cudnn.conv, backends.cuda.matmul, backends.mkldnn.conv, backends.mkldnn.matmul)
    return [owner.fp32_precision for owner in owners]


def set_all(value: str) -> None:
    torch.backends.fp32_precision = value


def set_convolutions(value: str) -> None:
    torch.backends.cudnn.conv.fp32_precision = value


CHOICES = {
    "nothing": lambda: None,
    "all, newer": lambda: set_all("tf32"),
    "convolutions, newer": lambda: set_convolutions("tf32"),
    "both, newer": lambda: (set_all("ieee"), set_convolutions("tf32")),
    "convolutions, older": lambda: setattr(torch.backends.cudnn, "allow_tf32", True),
    "products, older": lambda: torch.set_float32_matmul_precision("medium"),
    "both APIs": lambda: (torch.set_float32_matmul_precision("high"), set_convolutions("ieee")),
}


@pytest.fixture(autouse=True)
def as_it_was():
    """Later tests find what torch has by itself."""
    yield
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = True
    if hasattr(torch.backends.cudnn, "conv"):
        set_all("none")
        torch.backends.cuda.matmul.fp32_precision = torch.backends.mkldnn.matmul.fp32_precision = "none"


@newer
@pytest.mark.parametrize("choose", CHOICES.values(), ids=CHOICES)
def test_nothing_is_rounded_and_every_choice_is_put_back(choose):
    choose()
    before = settings()
    with full_products(CPU):
        assert settings() == ["ieee"] * 4
        with full_products(CPU):
            assert settings() == ["ieee"] * 4
        assert settings() == ["ieee"] * 4
    assert settings() == before


@newer
def test_a_choice_for_everything_still_reaches_convolutions_and_products_afterwards():
    """They would no longer follow it if they had been put back by name."""
    set_convolutions("none")
    set_all("tf32")
    with full_products(CPU):
        pass
    set_all("ieee")
    assert settings() == ["ieee"] * 4


@newer
def test_the_last_thread_to_leave_puts_back():
    before = settings()
    inside, leave = threading.Event(), threading.Event()

    def stay():
        with full_products(CPU):
            inside.set()
            leave.wait(30)

    thread = threading.Thread(target=stay)
    with full_products(CPU):
        thread.start()
        assert inside.wait(30)
    assert settings() == ["ieee"] * 4, "the other thread is still computing"
    leave.set()
    thread.join()
    assert settings() == before


def test_an_error_puts_back_too():
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(ZeroDivisionError), full_products(CPU):
        1 / 0  # noqa: B018
    assert torch.backends.cudnn.allow_tf32 == before


def test_the_older_settings_serve_where_there_are_no_newer(monkeypatch):
    flags = {"cudnn": True, "matmul": True}

    class Older:
        def __init__(self, name):
            object.__setattr__(self, "name", name)

        def __getattr__(self, attribute):
            if attribute == "allow_tf32":
                return flags[self.name]
            raise AttributeError(attribute)

        def __setattr__(self, attribute, value):
            flags[self.name] = value

    monkeypatch.setattr(torch.backends, "cudnn", Older("cudnn"))
    monkeypatch.setattr(torch.backends.cuda, "matmul", Older("matmul"))
    with full_products(CPU):
        assert flags == {"cudnn": False, "matmul": False}
    assert flags == {"cudnn": True, "matmul": True}


def images(count: int = 3) -> torch.Tensor:
    return random_images(count, 1, 8, 8)


def gradient(density):
    """Of unrolled purification, the steps of which are passes forward and backward."""
    pixels = (images() / 255).requires_grad_()
    UnrolledPurification(density, eps_defend=16, temperature=0.5)(pixels).square().sum().backward()
    return pixels.grad


COMPUTATIONS = {
    "scores": lambda density: density.bits_per_dim(images()),
    "scores, on two threads": lambda density: density.bits_per_dim(images(200)),
    "probabilities": lambda density: density.conditional_log_probs(images()),
    "purified": lambda density: PixelDefend(density, eps_defend=64)(images()),
    "sampled": lambda density: density.sample(3, generator=torch.Generator().manual_seed(0)),
    "likelihood and gradient": lambda density: torch.cat(
        [part.flatten().double() for part in log_likelihood_and_gradient(density, images().float())]
    ),
    "found by L-BFGS-B": lambda density: lbfgs_purify(density, images(1), eps_defend=16, starts=1, max_iterations=3,
                                                      generator=torch.Generator().manual_seed(0)).real_bits,
    "unrolled": lambda density: UnrolledPurification(density, eps_defend=16, temperature=0.5)(images() / 255),
    "gradient of the unrolled": gradient,
    "purified naively": lambda density: speed.purify_naively(density, images(1), 64),
}  # fmt: skip


@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_a_caller_s_autocast_changes_nothing(compute):
    density = small_density(1)
    expected = compute(density)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(compute(density), expected)


@newer
@pytest.mark.parametrize("compute", COMPUTATIONS.values(), ids=COMPUTATIONS)
def test_the_network_s_products_are_exact_in_every_computation(compute, monkeypatch):
    """On a CPU this can be seen from the settings only: in passes forward, backward and pixel by pixel."""
    density, seen, row = small_density(1), [], Decoder.compute_row

    def look(*_):
        seen.append(settings())

    def look_both_ways(module, inputs, output):
        look()
        if output.requires_grad:
            output.register_hook(look)

    density.network.head.register_forward_hook(look_both_ways)
    monkeypatch.setattr(Decoder, "compute_row", lambda decoder, i: look() or row(decoder, i))
    set_all("tf32")
    set_convolutions("tf32")
    compute(density)
    assert seen and all(found == ["ieee"] * 4 for found in seen)
    assert settings() == ["tf32"] * 4


@newer
def test_the_forward_passes_that_are_timed_are_exact_too():
    density, seen = small_density(1), []
    density.network.register_forward_hook(lambda *_: seen.append((*settings(), torch.is_autocast_enabled("cpu"))))
    bench = speed._Bench(density, images(8), 16, 1, lambda line: None)
    set_all("tf32")
    with torch.autocast("cpu", torch.bfloat16):
        for dtype in PRECISIONS.values():
            bench._forward(density.network, images(8), 4, torch.channels_last, dtype)()
    assert seen == [("ieee",) * 4 + (half,) for half in (False, True) for _ in range(2)]


@newer
@pytest.mark.parametrize("choose", [lambda: set_convolutions("ieee"), lambda: set_all("ieee")], ids=["convolutions", "all"])
def test_scoring_works_once_the_newer_settings_were_used(choose):
    """The older one is an error to read from then on."""
    choose()
    assert small_density(1).bits_per_dim(images()).isfinite().all()


def test_unknown_precisions_are_named():
    with pytest.raises(ValueError, match="float32, bfloat16"):
        dtype_of("half")
