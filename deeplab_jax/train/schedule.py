"""What is due when."""

from dataclasses import dataclass

from deeplab_jax.config import TrainConfig


@dataclass(frozen=True)
class Schedule:
    """What is due after a step, counted from 1. After the last one everything is."""

    config: TrainConfig  # its epochs made steps

    def log(self, step: int) -> bool:
        return self._due(step, self.config.log_every)

    def validate(self, step: int) -> bool:
        return self._due(step, self.config.validate_every)

    def save(self, step: int) -> bool:
        return self._due(step, self.config.save_every)

    def sync(self, step: int) -> bool:
        """Whether the host waits for the devices after this step, to log or to validate."""
        return self.log(step) or self.validate(step)

    def _due(self, step: int, every: int) -> bool:
        return step % every == 0 or step == self.config.steps
