"""Data parallelism: several devices share each batch of one training, also in processes on several hosts.

Each device has the whole model and computes on its part of each batch; gradients are summed. The loss is that of one
device, up to rounding. Uses `keras.distribution.DataParallel` on JAX and `tf.distribute.MirroredStrategy` on
TensorFlow. Importing this module starts no backend.
"""

import hashlib
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from tiny_imagenet.common.errors import UserError

_ADDRESSES = "KERAS_DISTRIBUTION_JOB_ADDRESSES"
_NUM_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
_PROCESS_ID = "KERAS_DISTRIBUTION_PROCESS_ID"
_PATIENCE_SECONDS = 300  # as long as JAX waits
Arrays = TypeVar("Arrays", bound=tuple[NDArray[Any], ...])


class WholeBatch(np.ndarray[Any, Any]):
    """A batch that the devices cannot divide equally. On JAX each device computes all of it, with the same result."""


@dataclass(frozen=True)
class BatchShare:
    """The part of each batch that this process loads."""

    devices: int = 1
    """Number of devices that share a batch, in all processes."""
    processes: int = 1
    process: int = 0
    """Index of this process, from 0."""

    def part(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the images of a batch that this process loads: all if the devices cannot divide them equally."""
        if self.processes == 1 or len(images) % self.devices:
            return images
        size = len(images) // self.processes
        return images[self.process * size : (self.process + 1) * size]

    def marked(self, batch: Arrays, num_images: int) -> Arrays:
        """Return a loaded batch; as `WholeBatch` if the devices cannot divide its `num_images` equally."""
        if num_images % self.devices == 0:
            return batch
        return cast(Arrays, tuple(array.view(WholeBatch) for array in batch))

    def check(self, batch_size: int, num_images: Mapping[str, int]) -> None:
        """Raise UserError for batches that the devices cannot divide equally; on TensorFlow also for smaller last ones.

        They would change the result. A batch has `batch_size` images on all devices together. `num_images` is purpose
        ("training") -> number of images per epoch.
        """
        if batch_size % self.devices:
            raise UserError(
                f"batches of {batch_size} images cannot be shared equally by {self.devices} devices: set `batch_size` "
                f"to a multiple of {self.devices}, or change `devices`"
            )
        if _backend() != "tensorflow":  # on JAX, each device computes a smaller batch as a whole
            return
        for purpose, number in num_images.items():
            rest = number % batch_size
            if rest % self.devices:
                raise UserError(
                    f"{number:,} {purpose} images leave a last batch of {rest}, which {self.devices} devices cannot "
                    "share equally, so that TensorFlow would weight its images unequally: change `batch_size`, "
                    "`batches_per_epoch` or `images_per_class`, set fewer `devices`, or use KERAS_BACKEND=jax, which "
                    "accepts any number"
                )


ALONE = BatchShare()
"""One device, one process."""


def process() -> int:
    """Return the index of this process among those of a training, from 0. Process 0 writes the files and the run.

    Raise UserError if some of KERAS_DISTRIBUTION_* are missing or invalid.
    """
    return _processes()[1]


def _processes() -> tuple[int, int]:
    """Return the number of processes and the index of this one, from the variables that Keras reads."""
    given = {name: os.environ[name] for name in (_ADDRESSES, _NUM_PROCESSES, _PROCESS_ID) if os.environ.get(name)}
    if not given:
        return 1, 0
    try:
        number, own = int(given[_NUM_PROCESSES]), int(given[_PROCESS_ID])
        if _ADDRESSES not in given or not 0 <= own < number:
            raise ValueError
    except (KeyError, ValueError):
        settings = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(
            f"found {settings}; for a training in several processes, set {_ADDRESSES} to host:port of the first "
            f"process, {_NUM_PROCESSES} to their number, and {_PROCESS_ID} to 0, 1, ..."
        ) from None
    return number, own


def join() -> None:
    """Join the other processes of this training, if there are any. Call it after `runtime.prepare`, before computing.

    Raise UserError if the backend is not JAX, or the first process does not answer within five minutes. If another
    process does not answer, JAX ends the first one after the same time.
    """
    number, own = _processes()
    if number == 1:
        return
    if _backend() != "jax":
        raise UserError(f"several processes ({_NUM_PROCESSES}={number}) need KERAS_BACKEND=jax, not {_backend()}")
    if own > 0:
        _wait_for(os.environ[_ADDRESSES].split(",")[0])
    import keras

    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {number} processes at {os.environ[_ADDRESSES]} cannot connect to each other: {error}"
        ) from None


def _wait_for(address: str) -> None:
    """Wait until the first process listens. If it never does, JAX would abort with a page of its stack."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError, OverflowError) as error:
            if time.monotonic() > deadline or not isinstance(error, OSError):
                raise UserError(
                    f"the first process does not answer at {address!r} ({error}): start it with {_PROCESS_ID}=0, and "
                    f"set {_ADDRESSES} to its host:port"
                ) from None
            time.sleep(1)
        else:
            return


def require_same(subject: str, value: str) -> None:
    """Raise UserError in all processes if their values differ; `subject` describes the value for the message."""
    if _processes()[0] == 1:
        return
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(digest))
    if (digests != digests[0]).any():
        raise UserError(f"the processes differ in {subject}")


def count(wanted: int | Literal["all"]) -> int:
    """Return the number of devices that share a batch, in all processes. Call it after `join`.

    Raise UserError if this process has fewer than `wanted` devices, or the backend cannot share batches.
    """
    if _backend() == "torch":
        if wanted != 1:
            raise UserError(
                f"devices: {wanted} is not possible on torch, which trains on one device: set `devices: 1`, or use "
                "KERAS_BACKEND=jax or tensorflow"
            )
        return 1
    available = _local_devices()
    if wanted != "all" and wanted > len(available):
        raise UserError(
            f"devices: {wanted} in params.yaml, but {_backend()} has {len(available)} here ({', '.join(available)}): "
            f"set it to {len(available)} at most, or to `all`"
        )
    own = len(available) if wanted == "all" else wanted
    return own * _processes()[0]


@contextmanager
def shared_by(number: int) -> Iterator[BatchShare]:
    """Share batches among `number` devices (from `count`), for models that are built and trained in the block."""
    processes, own = _processes()
    share = BatchShare(number, processes, own)
    if number == 1:
        yield share
    elif _backend() == "tensorflow":
        import tensorflow

        with tensorflow.distribute.MirroredStrategy(_local_devices()[:number]).scope():
            yield share
    else:
        with _data_parallel(number // processes):
            yield share


@contextmanager
def _data_parallel(per_process: int) -> Iterator[None]:
    """Share batches among the first `per_process` devices of each process of JAX.

    Keras uses the layout of the first batch of an epoch for all batches, and JAX divides into equal parts only. A
    smaller last batch would fail (keras#21167). Here each device gets all of a `WholeBatch`.
    """
    import jax
    import keras
    from keras.src.backend.jax import distribution_lib

    by_process: dict[int, list[str]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(device.process_index, []).append(f"{device.platform}:{device.id}")
    names = [name for own in by_process.values() for name in own[:per_process]]
    distribute_as_keras = distribution_lib.distribute_data_input

    def distribute(batch: Any, layout: Any, batch_dim_name: str) -> Any:
        if isinstance(batch, WholeBatch):
            layout = jax.sharding.NamedSharding(layout.mesh, jax.sharding.PartitionSpec())
        return distribute_as_keras(np.asarray(batch), layout, batch_dim_name)

    distribution_lib.distribute_data_input = distribute
    try:
        # A batch is already the part of this process: Keras must not divide it.
        with keras.distribution.DataParallel(devices=names, auto_shard_dataset=False).scope():
            yield
    finally:
        distribution_lib.distribute_data_input = distribute_as_keras


def _local_devices() -> list[str]:
    """Return the names of this process's devices: its GPUs, or the CPU if it has none."""
    if _backend() == "tensorflow":
        import tensorflow

        devices = tensorflow.config.list_logical_devices("GPU") or tensorflow.config.list_logical_devices("CPU")
        return [device.name for device in devices]
    import jax

    return [f"{device.platform}:{device.id}" for device in jax.local_devices()]


def _backend() -> str:
    import keras

    return str(keras.backend.backend())
