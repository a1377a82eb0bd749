"""A small training whose batches several devices share, in its own process. Prints history and weights as JSON.

python tests/shared_training.py '{"devices": 2, ...}', with KERAS_BACKEND and KERAS_DISTRIBUTION_* as for a stage.
"""

import hashlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

CPU_DEVICES = 2
MARK = "outcome: "


class Stopped(Exception):  # noqa: N818 - nothing went wrong
    """A training was stopped after an epoch."""


def as_processes(number: int) -> list[dict[str, str]]:
    """Return the environment variables of each of `number` processes that share a training on this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return [
        {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": str(number),
            "KERAS_DISTRIBUTION_PROCESS_ID": str(process),
        }
        for process in range(number)
    ]


def have_two_cpu_devices_of_tensorflow() -> None:
    """Make TensorFlow treat the CPU as two devices. For JAX, XLA_FLAGS does so."""
    import tensorflow

    one = tensorflow.config.LogicalDeviceConfiguration()
    cpu = tensorflow.config.list_physical_devices("CPU")[0]
    tensorflow.config.set_logical_device_configuration(cpu, [one] * CPU_DEVICES)


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train with `settings`: `devices`, `recipe` (changes of `small_recipe`), `num_train`, `num_val`, `stop_after`,
    `folder`, `cpu_devices` (of JAX)."""
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={settings.get('cpu_devices', CPU_DEVICES)}"
    from tiny_imagenet.backend import devices, runtime

    runtime.prepare(7)
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        have_two_cpu_devices_of_tensorflow()
    devices.join()
    import keras
    import numpy as np
    from standin import packed_digits, small_recipe

    from tiny_imagenet.training import train
    from tiny_imagenet.training.checkpoint import Checkpoint

    def stop(epoch: int, logs: dict[str, float]) -> None:
        if epoch + 1 == settings.get("stop_after"):
            raise Stopped

    checkpoint = Checkpoint(Path(settings["folder"]), "key") if "folder" in settings else None
    if checkpoint:
        Path(settings["folder"]).mkdir(exist_ok=True)
    recipe = small_recipe(**settings.get("recipe", {}))
    packed = packed_digits(settings.get("num_train", 200), settings.get("num_val", 100))
    with devices.shared_by(devices.count(settings["devices"])) as share:
        trained = train.train(
            recipe,
            packed,
            seed=7,
            checkpoint=checkpoint,
            callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=stop)],
            share=share,
        )
    weights = [np.asarray(keras.ops.convert_to_numpy(weight)) for weight in trained.model.weights]
    return {
        "devices": share.devices,
        "history": trained.history.to_dict("list"),
        "weights": hashlib.sha256(b"".join(weight.tobytes() for weight in weights)).hexdigest(),
        "finite": all(np.isfinite(weight).all() for weight in weights),
        "predicted": trained.model.predict_on_batch(packed.val.images[:4])[:4].tolist(),
        "resumed_from": trained.resumed_from,
    }


if __name__ == "__main__":
    from tiny_imagenet.common.errors import UserError

    try:
        sys.stdout.write(MARK + json.dumps(main(json.loads(sys.argv[1]))) + "\n")
    except Stopped:
        sys.stdout.write(MARK + json.dumps({"stopped": True}) + "\n")
    except UserError as error:
        sys.exit(f"error: {error}")
