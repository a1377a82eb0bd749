"""What to do about images that stand twice: say so, leave the training copies out, or refuse the dataset."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tiny_imagenet.common.errors import DatasetError, first_ten
from tiny_imagenet.dataset.duplicates import MAX_DISTANCE, DuplicatePairs


def describe_duplicates(pairs: DuplicatePairs, paths: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return the `duplicates` of report.json: counts, and every pair by the paths of its images.

    `paths` maps a split to the paths of its images, in the order of the arrays.
    """
    return {
        "counts": pairs.counts(),
        "flat_images": pairs.num_flat,
        "asked_distance": MAX_DISTANCE,
        "largest_distance": pairs.max_distance,
        "pairs": [
            {
                "kind": kind,
                "a": f"{row['split_a']}/{paths[row['split_a']][row['index_a']]}",
                "b": f"{row['split_b']}/{paths[row['split_b']][row['index_b']]}",
                "distance": row["distance"],
            }
            for kind, frame in (("exact", pairs.exact), ("near", pairs.near))
            for row in frame.to_dict("records")
        ],
    }


def pairs_across(pairs: DuplicatePairs) -> pd.DataFrame:
    """Return the pairs of a training and a validation image, exact ones first."""
    everything = pd.concat([pairs.exact, pairs.near], ignore_index=True)
    return everything[(everything["split_a"] == "train") & (everything["split_b"] == "val")]


def refuse_leakage(description: Mapping[str, Any]) -> None:
    """Raise DatasetError where an image stands in both splits; the first ten pairs and the total."""
    across = [
        f"{pair['a']} and {pair['b']} ({pair['kind']})"
        for pair in description["pairs"]
        if pair["a"].startswith("train/") and pair["b"].startswith("val/")
    ]
    if across:
        raise DatasetError(
            f"{len(across):,} pairs of a training and a validation image are copies:\n{first_ten(across)}\n"
            "In params.yaml, `duplicates: drop_from_train` leaves out the training ones, and `report` keeps all."
        )


def train_copies(pairs: DuplicatePairs) -> NDArray[np.int64]:
    """Return the training images to leave out: those with a copy in validation, and later copies within training."""
    everything = pd.concat([pairs.exact, pairs.near], ignore_index=True)
    within = everything[(everything["split_a"] == "train") & (everything["split_b"] == "train")]["index_b"]
    across = pairs_across(pairs)["index_a"]
    return np.unique(np.concatenate([within, across]).astype(np.int64))
