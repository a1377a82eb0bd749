"""Stage `architecture@<model>`: copy the source of the model's architecture beside the model.

Training depends on this copy, not on all of src/tiny_imagenet/architectures: a new architecture file retrains no other
model.
"""

import sys

from tiny_imagenet import entry
from tiny_imagenet.common.files import write_text
from tiny_imagenet.models.registry import architecture_source
from tiny_imagenet.repository.paths import MODELS


def main(model: str) -> None:
    """Copy the source of MODEL's architecture to models/MODEL/architecture.py."""
    architecture = entry.checked_params().job(model).recipe.architecture
    write_text(MODELS / model / "architecture.py", architecture_source(architecture))


if __name__ == "__main__":
    sys.exit(entry.run_for_model(main))
