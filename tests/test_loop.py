"""The training loop: every example once an epoch, and a resumed run that cannot be told from an uninterrupted one."""

import json
import math
import os
import signal

import pytest
import torch

from pixeldefend import loop
from pixeldefend.loop import CHECKPOINT, LOG, Plan


class Walk:
    """A job with every kind of randomness: it moves by its examples' numbers plus global noise."""

    def __init__(self, *, settings=None, crash_at=None, stop_at=None):
        self.settings = {"size": 3} if settings is None else settings
        self.execution = {"device": "cpu"}
        self.crash_at, self.stop_at = crash_at, stop_at
        self.position = torch.zeros(3)
        self.steps_run = []

    def step(self, index, step):
        if step == self.crash_at:
            raise MemoryError("killed")
        if step == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        self.steps_run.append(step)
        self.position += 0.9 * index.float().mean() + torch.randn(3)
        return {"distance": self.position.norm().item(), "first": float(index[0])}

    def state_dict(self):
        return {"position": self.position.clone()}

    def load_state_dict(self, state):
        self.position = state["position"].clone()


def plan(steps=20, **changes) -> Plan:
    usual = {"examples": 10, "batch_size": 3, "steps": steps, "log_every": 4, "save_every_seconds": 1e9}
    return Plan(**usual | changes)


def run(job, plan, folder):
    return loop.run(job, plan, folder, progress=False)


def log(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def uninterrupted(tmp_path):
    job = Walk()
    assert run(job, plan(), tmp_path / "whole") == 20
    return job.position, log(tmp_path / "whole")


def assert_same(job, folder, uninterrupted):
    position, lines = uninterrupted
    assert torch.equal(job.position, position)
    assert log(folder) == lines


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_run_that_has_diverged_ends_and_keeps_the_checkpoint_from_before(tmp_path, value):
    class Diverging(Walk):
        def step(self, index, step):
            return super().step(index, step) | ({"loss": value} if step == 7 else {"loss": 1.0})

    with pytest.raises(FloatingPointError, match=f"after 7 steps loss is {value}"):
        run(Diverging(), plan(save_every_seconds=0), tmp_path)
    assert loop.load_checkpoint(tmp_path / CHECKPOINT)["step"] == 7


def test_a_checkpoint_never_holds_weights_that_are_not_finite(tmp_path):
    class Spoiled(Walk):
        def step(self, index, step):
            numbers = super().step(index, step)
            self.position += math.nan if step == 7 else 0  # the update after a loss that is all right
            return numbers

    with pytest.raises(FloatingPointError, match="after 8 steps weights or averages are not finite"):
        run(Spoiled(), plan(save_every_seconds=0), tmp_path)
    assert loop.load_checkpoint(tmp_path / CHECKPOINT)["step"] == 7


def test_minutes_stop_a_run_with_a_checkpoint(tmp_path, uninterrupted):
    done = [run(Walk(), plan(minutes=1e-9), tmp_path / "cut") for _ in range(3)]
    assert done == [1, 2, 3]
    job = Walk()
    assert run(job, plan(), tmp_path / "cut") == 20
    assert_same(job, tmp_path / "cut", uninterrupted)


def test_an_epoch_has_every_example_once_but_the_last_incomplete_batch():
    chosen = [loop.batch_indices(plan(), step) for step in range(6)]
    first, second = torch.cat(chosen[:3]), torch.cat(chosen[3:])
    assert all(len(batch) == 3 for batch in chosen)
    assert len(set(first.tolist())) == len(set(second.tolist())) == 9
    assert not torch.equal(first, second)
    assert first.min() >= 0 and first.max() < 10


def test_order_follows_the_seed():
    orders = [torch.cat([loop.batch_indices(plan(seed=seed), step) for step in range(3)]) for seed in (0, 0, 1)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])


def test_the_order_does_not_follow_torch_s_default_device():
    expected = loop.batch_indices(Plan(20, 5, 3), 2)
    with torch.device("meta"):
        assert torch.equal(loop.batch_indices(Plan(20, 5, 3), 2), expected)


@pytest.mark.parametrize("progress", [True, False])
def test_the_progress_bar_is_there_when_it_is_wanted(progress, tmp_path, capsys):
    loop.run(Walk(), Plan(20, 5, 3), tmp_path, progress=progress)
    assert ("3/3" in capsys.readouterr().err) == progress


def test_a_step_has_its_own_noise_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    draws = []
    for seed, step in ((0, 5), (0, 5), (0, 6), (1, 5)):
        with loop.seeded(seed, step):
            draws.append(torch.randn(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2]) and not torch.equal(draws[0], draws[3])


def test_log_holds_means_over_its_interval(tmp_path):
    class Count(Walk):
        def step(self, index, step):
            return {"step_number": float(step)}

    run(Count(), plan(steps=10), tmp_path)
    assert log(tmp_path) == [
        {"step": 4, "images": 12, "step_number": 1.5},
        {"step": 8, "images": 24, "step_number": 5.5},
    ]


@pytest.mark.parametrize("at", [4, 6, 19], ids=["between log lines", "inside an interval", "before the last step"])
def test_stopped_by_a_signal_and_resumed(at, tmp_path, uninterrupted):
    handlers = [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)]
    stopped = Walk(stop_at=at)
    assert run(stopped, plan(), tmp_path) == at + 1
    assert [signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)] == handlers
    job = Walk()
    assert run(job, plan(), tmp_path) == 20
    assert job.steps_run == list(range(at + 1, 20))
    assert_same(job, tmp_path, uninterrupted)


@pytest.mark.parametrize("checkpoint_at", [4, 6], ids=["between log lines", "inside an interval"])
@pytest.mark.parametrize("crash_at", [7, 15], ids=["soon after", "long after"])
def test_killed_after_its_checkpoint_and_resumed(checkpoint_at, crash_at, tmp_path, uninterrupted):
    """Steps after the last checkpoint are run again; their lines in the log are replaced."""
    run(Walk(), plan(steps=checkpoint_at), tmp_path)
    with pytest.raises(MemoryError):
        run(Walk(crash_at=crash_at), plan(), tmp_path)
    assert log(tmp_path)[-1]["step"] == crash_at // 4 * 4
    job = Walk()
    assert run(job, plan(), tmp_path) == 20
    assert job.steps_run[0] == checkpoint_at
    assert_same(job, tmp_path, uninterrupted)


def test_killed_while_writing_a_log_line(tmp_path, uninterrupted):
    run(Walk(), plan(steps=8), tmp_path)
    with open(tmp_path / LOG, "a") as file:
        file.write('{"step": 12, "ima')
    job = Walk()
    run(job, plan(), tmp_path)
    assert_same(job, tmp_path, uninterrupted)


def test_killed_while_writing_a_checkpoint(tmp_path, monkeypatch, uninterrupted):
    """The checkpoint of before is still whole."""
    run(Walk(), plan(steps=8), tmp_path)
    save = torch.save

    def half(state, path):
        save(state, path)
        path.write_bytes(path.read_bytes()[:100])
        raise MemoryError("killed")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(MemoryError):
        run(Walk(), plan(steps=12), tmp_path)
    monkeypatch.undo()
    job = Walk()
    run(job, plan(), tmp_path)
    assert job.steps_run[0] == 8
    assert_same(job, tmp_path, uninterrupted)


def test_a_full_disk_leaves_checkpoint_and_log_whole(tmp_path, monkeypatch, uninterrupted):
    run(Walk(), plan(steps=8), tmp_path)
    before = (tmp_path / LOG).read_bytes()

    def full(*_):
        raise RuntimeError("PytorchStreamWriter failed writing file")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match=f"{CHECKPOINT} could not be written .* MB are free"):
        run(Walk(), plan(), tmp_path)
    assert not list(tmp_path.glob("*.partial"))
    with monkeypatch.context() as patch:  # not even on going on is the log ever less than it was
        patch.setattr(loop.os, "replace", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(Walk(), plan(), tmp_path)
    assert (tmp_path / LOG).read_bytes().startswith(before)
    monkeypatch.undo()
    job = Walk()
    run(job, plan(), tmp_path)
    assert job.steps_run[0] == 8
    assert_same(job, tmp_path, uninterrupted)


def test_killed_before_any_checkpoint_starts_afresh(tmp_path, uninterrupted):
    with pytest.raises(MemoryError):
        run(Walk(crash_at=9), plan(), tmp_path)
    job = Walk()
    run(job, plan(), tmp_path)
    assert job.steps_run == list(range(20))
    assert_same(job, tmp_path, uninterrupted)


def test_saves_as_often_as_planned(tmp_path):
    with pytest.raises(MemoryError):
        run(Walk(crash_at=7), plan(save_every_seconds=-1), tmp_path)
    assert loop.load_checkpoint(tmp_path / CHECKPOINT)["step"] == 7


def test_keeps_the_checkpoint_of_one_step(tmp_path):
    run(Walk(), plan(keep_step=6), tmp_path)
    assert loop.load_checkpoint(tmp_path / loop.KEPT_CHECKPOINT)["step"] == 6
    assert loop.load_checkpoint(tmp_path / CHECKPOINT)["step"] == 20


def test_a_finished_run_does_nothing(tmp_path, uninterrupted):
    run(Walk(), plan(), tmp_path)
    job = Walk()
    assert run(job, plan(), tmp_path) == 20
    assert job.steps_run == []
    assert_same(job, tmp_path, uninterrupted)


@pytest.mark.parametrize("job, changes, mention", [
    (Walk(settings={"size": 4}), {}, "size"),
    (Walk(settings={"size": 3, "rate": 0.1}), {}, "rate"),
    (Walk(), {"seed": 1}, "seed"),
    (Walk(), {"batch_size": 5}, "batch_size"),
    (Walk(), {"examples": 11}, "examples"),
], ids=["setting changed", "setting added", "seed", "batch size", "examples"])
def test_resuming_with_other_settings_is_refused(job, changes, mention, tmp_path):
    run(Walk(), plan(steps=4), tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=rf"other settings \({mention}\)"):
        run(job, plan(**changes), tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize("at, changes", [(9, {"steps": 24}), (9, {"keep_step": 12}), (6, {"keep_step": 5})],
                         ids=["longer", "later cool-down", "earlier cool-down than now"])  # fmt: skip
def test_another_end_is_refused_once_one_was_begun(at, changes, tmp_path):
    run(Walk(stop_at=at - 1), plan(keep_step=8), tmp_path)
    says = rf"step {at} of a run whose cool-down is from step 8 to 20; .*kept.pt, of step 8"
    with pytest.raises(ValueError, match=says):
        run(Walk(), plan(**{"keep_step": 8} | changes), tmp_path)
    assert run(Walk(), plan(keep_step=8), tmp_path) == 20
    (tmp_path / loop.KEPT_CHECKPOINT).rename(tmp_path / CHECKPOINT)
    assert run(Walk(), plan(keep_step=10, steps=24), tmp_path) == 24, "before its end a run may get another"


def test_how_a_run_was_executed_is_kept(tmp_path):
    run(Walk(), plan(steps=4), tmp_path)
    run(Walk(), plan(steps=8), tmp_path)
    other = Walk()
    other.execution = {"device": "cuda"}
    run(other, plan(steps=12), tmp_path)
    calls = [{"device": "cpu", "processes": 1}, {"device": "cuda", "processes": 1}]
    assert loop.load_checkpoint(tmp_path / CHECKPOINT)["calls"] == calls


@pytest.mark.parametrize("lacking", ["settings", "job", "seconds", "calls"])
def test_a_checkpoint_that_lacks_something_is_named(lacking, tmp_path):
    run(Walk(), plan(steps=4), tmp_path)
    state = loop.load_checkpoint(tmp_path / CHECKPOINT)
    del state[lacking]
    torch.save(state, tmp_path / CHECKPOINT)
    if lacking == "calls":  # those of earlier versions
        assert run(Walk(), plan(), tmp_path) == 20
        return
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is no checkpoint of a training run; remove it"):
        run(Walk(), plan(), tmp_path)
    torch.save([state], tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is no checkpoint of a training run; remove it"):
        run(Walk(), plan(), tmp_path)


def test_a_checkpoint_beyond_the_plan_is_refused(tmp_path):
    """Its weights would be those of another, longer run, before its cool-down."""
    run(Walk(), plan(steps=12), tmp_path)
    with pytest.raises(ValueError, match="step 12, beyond the 10 asked for"):
        run(Walk(), plan(steps=10), tmp_path)


def test_a_checkpoint_runs_no_code(tmp_path):
    torch.save({"step": math.sqrt}, tmp_path / CHECKPOINT)
    with pytest.raises(ValueError, match="damaged, or no checkpoint") as caught:
        loop.load_checkpoint(tmp_path / CHECKPOINT)
    assert "weights_only" in str(caught.value.__cause__).lower().replace(" ", "_")


@pytest.mark.parametrize("damage", [lambda content: b"", lambda content: content[:-100], lambda content: b"text"],
                         ids=["empty", "cut off", "foreign"])  # fmt: skip
def test_a_damaged_checkpoint_is_named(damage, tmp_path):
    run(Walk(), plan(steps=4), tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{CHECKPOINT} is damaged"):
        run(Walk(), plan(), tmp_path)


@pytest.mark.parametrize("changes, mention", [
    ({"batch_size": 0}, "1..10"), ({"batch_size": 11}, "1..10"), ({"steps": 0}, "at least 1"),
], ids=["no batch", "more than there is", "no steps"])
def test_impossible_plans_are_refused(changes, mention):
    with pytest.raises(ValueError) as caught:
        plan(**changes)
    assert mention in str(caught.value)
