"""How several devices share each batch of one training: `devices` of params.yaml, and processes on several hosts.

Every device has the whole model and computes on its part of each batch; gradients are summed. JAX through
`keras.distribution.DataParallel`, TensorFlow through `tf.distribute.MirroredStrategy`. The loss is that of one device,
to rounding. Beside `runtime`, since it names backends too; `import tiny_imagenet.devices` starts none of them.
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


class Whole(np.ndarray[Any, Any]):
    """A batch that no share can be made of: JAX has every device compute all of it, which changes no result."""


@dataclass(frozen=True)
class Share:
    """What this process loads of every batch."""

    devices: int = 1
    """That share a batch, those of all processes counted."""
    processes: int = 1
    process: int = 0
    """From 0."""

    def of(self, images: NDArray[Any]) -> NDArray[Any]:
        """Return the images of a batch that this process loads: all of them where there is no equal part for each."""
        if self.processes == 1 or len(images) % self.devices:
            return images
        part = len(images) // self.processes
        return images[self.process * part : (self.process + 1) * part]

    def marked(self, batch: Arrays, num_images: int) -> Arrays:
        """Return a loaded batch, marked as `Whole` where its `num_images` do not give each device as many."""
        return batch if num_images % self.devices == 0 else cast(Arrays, tuple(array.view(Whole) for array in batch))

    def check(self, batch_size: int, num_images: Mapping[str, int]) -> None:
        """Refuse batches that the devices cannot share without changing the result.

        Args:
            batch_size: of all devices together.
            num_images: how many images an epoch visits, by what they are for.

        Raises:
            UserError: the batches, or on TensorFlow the last, smaller batches, do not give each device as many images.
        """
        if batch_size % self.devices:
            raise UserError(
                f"batches of {batch_size} images cannot be shared equally by {self.devices} devices: choose a "
                f"`batch_size` that is a multiple of {self.devices}, or other `devices`"
            )
        if _backend() != "tensorflow":  # JAX has every device compute a smaller batch whole
            return
        for kind, number in num_images.items():
            rest = number % batch_size
            if rest % self.devices:
                raise UserError(
                    f"{number:,} {kind} images leave a last batch of {rest}, which {self.devices} devices cannot share "
                    "equally, and TensorFlow would give its images unequal weights: choose another `batch_size`, "
                    "`batches_per_epoch` or `images_per_class`, fewer `devices`, or KERAS_BACKEND=jax, which takes any "
                    "number"
                )


ALONE = Share()
"""One device, one process."""


def process() -> int:
    """Return the number of this process among those of a training, from 0; 0 writes the files and the run.

    Raises:
        UserError: KERAS_DISTRIBUTION_* are set in part, or to what cannot be.
    """
    return _processes()[1]


def _processes() -> tuple[int, int]:
    """Return how many processes there are, and which of them this is, by the variables that Keras reads."""
    given = {name: os.environ[name] for name in (_ADDRESSES, _NUM_PROCESSES, _PROCESS_ID) if os.environ.get(name)}
    if not given:
        return 1, 0
    try:
        number, own = int(given[_NUM_PROCESSES]), int(given[_PROCESS_ID])
        if _ADDRESSES not in given or not 0 <= own < number:
            raise ValueError
    except (KeyError, ValueError):
        found = ", ".join(f"{name}={value}" for name, value in given.items())
        raise UserError(
            f"for a training in several processes, set {_ADDRESSES} to host:port of the first, {_NUM_PROCESSES} to "
            f"their number and {_PROCESS_ID} to 0, 1, ...; found {found}"
        ) from None
    return number, own


def join() -> None:
    """Join the other processes of this training, if there are any: after `runtime.prepare`, before all computation.

    Raises:
        UserError: the backend is not JAX, or the first process does not answer within five minutes. (Where one of the
            others does not come, JAX itself ends the first after as long.)
    """
    number, own = _processes()
    if number == 1:
        return
    if _backend() != "jax":
        raise UserError(f"several processes ({_NUM_PROCESSES}={number}) need KERAS_BACKEND=jax, not {_backend()}")
    if own > 0:
        _await(os.environ[_ADDRESSES].split(",")[0])
    import keras

    try:
        keras.distribution.initialize()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"the {number} processes at {os.environ[_ADDRESSES]} do not find together: {error}") from None


def _await(address: str) -> None:
    """Return when the first process listens: where none does, JAX would end this one with a page of its stack."""
    host, _, port = address.rpartition(":")
    given_up = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except (OSError, ValueError, OverflowError) as error:
            if time.monotonic() > given_up or not isinstance(error, OSError):
                raise UserError(
                    f"the first process does not answer at {address!r} ({error}): start it with {_PROCESS_ID}=0, and "
                    f"give its host:port as {_ADDRESSES}"
                ) from None
            time.sleep(1)
        else:
            return


def require_same(what: str, value: str) -> None:
    """Return where all processes have the same `value`, and raise UserError in each of them where they do not."""
    if _processes()[0] == 1:
        return
    from jax.experimental import multihost_utils

    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.uint8)
    digests = np.asarray(multihost_utils.process_allgather(digest))
    if (digests != digests[0]).any():
        raise UserError(f"the processes differ in {what}")


def count(wanted: int | Literal["all"]) -> int:
    """Return how many devices share a batch, those of all processes counted; call it after `join`.

    Args:
        wanted: of each process; "all" that it has.

    Raises:
        UserError: the process does not have so many, or the backend cannot share.
    """
    if _backend() == "torch":
        if wanted != 1:
            raise UserError(
                f"devices: {wanted} is not possible on torch, which trains on one: `devices: 1`, or KERAS_BACKEND=jax "
                "or tensorflow"
            )
        return 1
    found = _local_devices()
    if wanted != "all" and wanted > len(found):
        raise UserError(
            f"devices: {wanted} in params.yaml, but {_backend()} has {len(found)} here ({', '.join(found)}): ask for "
            f"{len(found)} at most, or for `all`"
        )
    own = len(found) if wanted == "all" else wanted
    return own * _processes()[0]


@contextmanager
def shared_by(number: int) -> Iterator[Share]:
    """Have the models that are built and fitted in the block share their batches among `number` devices.

    Args:
        number: as `count` gives it.
    """
    processes, own = _processes()
    share = Share(number, processes, own)
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
def _data_parallel(of_each_process: int) -> Iterator[None]:
    """Share batches among the first devices of each process of JAX.

    Keras takes the layout of an epoch's first batch for all its batches, and JAX splits into equal parts alone, so that
    a smaller last batch fails (keras#21167). Here a batch marked as `Whole` is given to every device as it is.
    """
    import jax
    import keras
    from keras.src.backend.jax import distribution_lib

    by_process: dict[int, list[str]] = {}
    for found in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        by_process.setdefault(found.process_index, []).append(f"{found.platform}:{found.id}")
    chosen = [name for names in by_process.values() for name in names[:of_each_process]]
    as_keras_does = distribution_lib.distribute_data_input

    def distribute(batch: Any, layout: Any, batch_dim_name: str) -> Any:
        if isinstance(batch, Whole):
            layout = jax.sharding.NamedSharding(layout.mesh, jax.sharding.PartitionSpec())
        return as_keras_does(np.asarray(batch), layout, batch_dim_name)

    distribution_lib.distribute_data_input = distribute
    try:
        # The batches come as this process's part already, so Keras has not to make parts of them.
        with keras.distribution.DataParallel(devices=chosen, auto_shard_dataset=False).scope():
            yield
    finally:
        distribution_lib.distribute_data_input = as_keras_does


def _local_devices() -> list[str]:
    """Return the names of this process's devices: GPUs where there are any, else the CPU."""
    if _backend() == "tensorflow":
        import tensorflow

        found = tensorflow.config.list_logical_devices("GPU") or tensorflow.config.list_logical_devices("CPU")
        return [device.name for device in found]
    import jax

    return [f"{device.platform}:{device.id}" for device in jax.local_devices()]


def _backend() -> str:
    import keras

    name: str = keras.backend.backend()
    return name
