"""What is due when, and when several processes ask one another for signals."""

import signal

import pytest

from deeplab_jax.config import TrainConfig
from deeplab_jax.train import preemption
from deeplab_jax.train.preemption import Preempted, Preemption
from deeplab_jax.train.schedule import Schedule

SCHEDULE = Schedule(TrainConfig(steps=11, log_every=2, validate_every=5, save_every=3))


def test_everything_is_due_every_so_many_steps_and_at_the_last():
    due = {
        name: [step for step in range(1, 12) if getattr(SCHEDULE, name)(step)]
        for name in ("log", "validate", "save", "sync")
    }
    assert due == {
        "log": [2, 4, 6, 8, 10, 11],
        "validate": [5, 10, 11],
        "save": [3, 6, 9, 11],
        "sync": [2, 4, 5, 6, 8, 10, 11],
    }


def test_one_process_asks_for_signals_after_every_step():
    with Preemption(SCHEDULE) as preempted:
        assert (preempted.signal(), preempted.signal_after(1)) == (0, 0)
        signal.raise_signal(signal.SIGTERM)
        assert preempted.signal() == signal.SIGTERM
        assert [preempted.signal_after(step) for step in (1, 2)] == [signal.SIGTERM] * 2
        with pytest.raises(Preempted, match="SIGINT") as error:
            signal.raise_signal(signal.SIGINT)
    assert error.value.exit_status == 128 + signal.SIGINT


def test_several_processes_ask_one_another_now_and_then(monkeypatch):
    """Another one was sent a signal: this one learns of it where all of them ask."""
    monkeypatch.setattr(preemption, "is_alone", lambda: False)
    monkeypatch.setattr(preemption, "largest_of_all", lambda own: max(own, signal.SIGTERM))
    with Preemption(SCHEDULE) as preempted:
        assert [step for step in range(1, 12) if preempted.signal_after(step)] == [2, 4, 5, 6, 8, 10, 11]
        assert preempted.signal() == signal.SIGTERM
