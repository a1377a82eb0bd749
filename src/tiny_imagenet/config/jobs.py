"""A training: its name, model, seed and settings, and its DVC stages."""

from dataclasses import dataclass

from tiny_imagenet.config.recipe import Recipe


@dataclass(frozen=True)
class Job:
    """A training of an active model, or of a replicate: the same model with another seed."""

    name: str
    """"model_2", or "model_2-7" for a replicate: its folder in models/ and results/, and its run in MLflow."""
    model: str
    """The key of its block in `models` of params.yaml."""
    seed: int
    recipe: Recipe
    """The model's settings after profile overrides."""
    fingerprint: str
    """Hash of all settings that can change the trained weights. The data have their own hashes."""

    @property
    def is_replicate(self) -> bool:
        """Whether the seed is not the one of params.yaml."""
        return self.name != self.model

    @property
    def train_stage(self) -> str:
        """The DVC stage that trains it, such as "train@model_2"."""
        return f"{'replicate' if self.is_replicate else 'train'}@{self.name}"

    @property
    def evaluate_stage(self) -> str:
        """The DVC stage that evaluates it."""
        return f"{'evaluate_replicate' if self.is_replicate else 'evaluate'}@{self.name}"
