"""Stage `download`: put the verified archive of the dataset at data/raw/dataset.zip."""

import sys
from pathlib import Path

from tiny_imagenet import entry
from tiny_imagenet.common.download import obtain
from tiny_imagenet.common.files import require_free
from tiny_imagenet.dataset.digits import write_digits_archive
from tiny_imagenet.repository import dvc
from tiny_imagenet.repository.paths import ARCHIVE

TERMS = (
    "Tiny ImageNet's images are from ImageNet: use them for non-commercial research and education only, "
    "see https://image-net.org/download"
)


def main() -> None:
    """Fetch, copy or write the archive of the chosen profile."""
    dataset = entry.checked_params().dataset
    require_free(Path("data"), dataset.expected_bytes, f"the dataset {dataset.name}, decoded,")
    if dataset.embedded:
        write_digits_archive(ARCHIVE)
        print(f"wrote the embedded digits to {ARCHIVE}")
        return
    if dataset.name == "tiny-imagenet-200":
        print(TERMS)
    # Another profile's archive may be here now, but DVC's cache may have this one: no second download.
    archive = Path(dataset.archive).expanduser() if dataset.archive else dvc.cached_file(dataset.md5)
    obtain(ARCHIVE, urls=dataset.urls, archive=archive, size=dataset.bytes, md5=dataset.md5)


if __name__ == "__main__":
    sys.exit(entry.run(main))
