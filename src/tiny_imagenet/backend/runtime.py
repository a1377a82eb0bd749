"""Set up the Keras backend before it starts, so that a seed gives the same bits on a machine. Describe the machine."""

import ctypes
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distributions, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from tiny_imagenet.backend import processor
from tiny_imagenet.common.cores import cores as cores
from tiny_imagenet.common.errors import UserError
from tiny_imagenet.common.imports import without_garbage_collection

if TYPE_CHECKING:
    import keras

_MMAP_THRESHOLD, _TRIM_THRESHOLD, _ARENA_MAX = -3, -1, -8  # glibc, malloc.h
_LARGEST_KEPT, _LARGEST_KEPT_BY_OLD_GLIBC = 1 << 30, 32 << 20
_RECORDED_PACKAGES = (
    "dvc",
    "jax",
    "keras",
    "mlflow",
    "numpy",
    "opencv-python-headless",
    "scikit-learn",
    "tensorflow",
    "torch",
)
# Prefixes of variables by which libraries choose kernels, precision and threads. A list of names would miss some.
_DECIDING = re.compile(
    r"(TF|XLA|JAX|KERAS|TORCH|PYTORCH|ATEN|ONEDNN|DNNL|ZENDNN|MKL|OMP|GOMP|KMP|OPENBLAS|GOTO|BLIS|VECLIB|EIGEN|NPY"
    r"|CUBLAS|CUBLASLT|CUDNN|MIOPEN|NCCL)_|OPENCV_(CPU_DISABLE|IPP|OPENCL)|NVIDIA_TF32_OVERRIDE$|GLIBC_TUNABLES$"
)
# Variables with such a prefix that decide no result: logs, memory, folders, addresses; those that `prepare` overrides;
# those that Keras and scikit-learn set when they are imported; Terraform's TF_*, which may hold secrets.
_DECIDES_NOTHING = re.compile(
    r"TF_(CPP|CONFIG|VAR|TOKEN|CLI|CLOUD|IN_AUTOMATION|INPUT|PLUGIN|REATTACH|REGISTRY|WORKSPACE)(_|$)"
    r"|TF_FORCE_GPU_ALLOW_GROWTH$|XLA_PYTHON_CLIENT_|KERAS_(BACKEND|NNX_ENABLED|DISTRIBUTION_.*)$"
    r"|KMP_(DUPLICATE_LIB_OK|INIT_AT_FORK)$|NCCL_DEBUG"
    r"|.*(LOG|VERBOSE|DISPLAY|DUMP|TOKEN|SECRET|PASSWORD|CREDENTIAL)|.*_(DIR|HOME|PATH|KEY)$"
)
_OF_GPUS = ("nvidia-", "jax")
"""Prefixes of packages that a backend installs for a GPU, each with its own version."""
_DETERMINISTIC_XLA = "--xla_gpu_deterministic_ops=true"


@dataclass(frozen=True)
class Device:
    """The device of a training."""

    kind: str
    """"cpu" or "gpu"."""
    name: str
    """As reported by the hardware."""
    count: int
    """Cores of a CPU, or number of GPUs."""
    memory_gib: float

    def __str__(self) -> str:
        unit = "cores" if self.kind == "cpu" else "x"
        return f"{self.kind.upper()} {self.name}, {self.count} {unit}, {self.memory_gib:.0f} GiB"


def prepare(seed: int, *, exact: bool = True) -> None:
    """Set up the process for training or evaluation; call it before Keras is imported, or it raises RuntimeError.

    `seed` is that of all random numbers of Keras, such as weights and dropout. `exact` uses only deterministic kernels;
    on a CPU all of them are. Raise UserError if `KERAS_BACKEND` is unknown or not installed.
    """
    if "keras" in sys.modules:
        raise RuntimeError("runtime.prepare() must be called before keras is imported")
    _require_backend(os.environ.setdefault("KERAS_BACKEND", "tensorflow"))
    for name in ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH"):  # would shorten a training
        os.environ.pop(name, None)
    os.environ["KERAS_NNX_ENABLED"] = "false"  # overrides keras.json
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # 1.5 to 2.7 x on a CPU
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # errors and warnings only
    _keep_freed_pages()

    if os.environ["KERAS_BACKEND"] == "jax":  # reads its settings when it starts
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        flags = os.environ.get("XLA_FLAGS", "")
        if exact and _DETERMINISTIC_XLA not in flags.split():
            os.environ["XLA_FLAGS"] = f"{flags} {_DETERMINISTIC_XLA}".strip()
    elif os.environ["KERAS_BACKEND"] == "torch" and exact:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    with _quiet_stderr(), without_garbage_collection():
        import keras

        # These override keras.json: the result must depend on params.yaml only.
        keras.config.set_image_data_format("channels_last")
        keras.config.set_floatx("float32")
        keras.config.set_epsilon(1e-7)
        if keras.backend.backend() == "tensorflow":
            import tensorflow

            for gpu in tensorflow.config.list_physical_devices("GPU"):
                tensorflow.config.experimental.set_memory_growth(gpu, True)
            if exact:
                tensorflow.config.experimental.enable_op_determinism()
        elif keras.backend.backend() == "torch":
            import torch

            torch.use_deterministic_algorithms(exact)
    keras.utils.set_random_seed(seed)


def _require_backend(name: str) -> None:
    if name not in _FIND_GPU:
        raise UserError(f"KERAS_BACKEND is {name!r}, expected one of {', '.join(_FIND_GPU)}")
    if find_spec(name) is None:
        how = {"jax": "`make extras`", "torch": "`pip install torch` in .venv"}.get(name, "`make setup`")
        raise UserError(f"KERAS_BACKEND is {name}, which is not installed: install it with {how}")


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Hide what native code prints to stderr in the block. TensorFlow prints ten lines that no setting turns off.

    They are shown if the block raises. If there is an NVIDIA driver, nothing is hidden: they may explain why no GPU is
    used.
    """
    if Path("/dev/nvidiactl").exists():
        yield
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except Exception:  # not Ctrl-C
            held.seek(0)
            os.write(shown, held.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _keep_freed_pages() -> None:
    """Let glibc keep large buffers instead of returning them to the kernel after each step.

    Otherwise page faults take about a third of the time of a training step. Other C libraries are not changed.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    if not libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT):  # older versions refuse more than half a heap
        libc.mallopt(_MMAP_THRESHOLD, _LARGEST_KEPT_BY_OLD_GLIBC)
    libc.mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_ARENA_MAX, 1)


def backend() -> str:
    """Return the name and version of the Keras backend in use, such as "tensorflow 2.21.0"."""
    import keras

    name = keras.backend.backend()
    return f"{name} {version(name)}"


def device() -> Device:
    """Return the device that the Keras backend computes on."""
    import keras

    if gpu := _FIND_GPU[keras.backend.backend()]():
        return gpu
    import psutil

    return Device("cpu", processor.name(), cores(), psutil.virtual_memory().total / 2**30)


def threads() -> str:
    """Return the number of cores and the environment variables that limit threads or choose kernels."""
    named = [name for name in sorted(os.environ) if _DECIDING.match(name) and not _DECIDES_NOTHING.match(name)]
    return ", ".join([f"{cores()} cores", *(f"{name}={os.environ[name]}" for name in named)])


def thread_settings(num_threads: int) -> dict[str, str]:
    """Return environment variables that limit the threads of TensorFlow and torch. Set them before the backend starts.

    The number of threads decides the last bits of a result. It is part of `numerics`.
    """
    names = ("OMP_NUM_THREADS", "TF_NUM_INTEROP_THREADS", "TF_NUM_INTRAOP_THREADS")
    return dict.fromkeys(names, str(num_threads))


def jit_compile() -> bool | str:
    """Return `jit_compile` for Keras's `compile`: no XLA for TensorFlow on a CPU, otherwise Keras's choice.

    There XLA is several times slower (`python -m benchmarks.training step --xla`) and has no fused kernels.
    """
    import keras

    return False if keras.backend.backend() == "tensorflow" and device().kind == "cpu" else "auto"


def use_fast_kernels(model: "keras.Model") -> None:
    """Make a compiled model use faster kernels than Keras's if it computes with TensorFlow on one CPU.

    If several devices share its batches on TensorFlow, make batch normalization normalize over all of them instead.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow

    from tiny_imagenet.backend import tensorflow_kernels

    if tensorflow.distribute.has_strategy():
        tensorflow_kernels.normalize_across_devices(model)
    elif device().kind == "cpu":
        tensorflow_kernels.use_fused_kernels(model)


def _tensorflow_gpu() -> Device | None:
    import tensorflow

    gpus = tensorflow.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tensorflow.config.experimental.get_device_details(gpus[0])
    return Device("gpu", str(details.get("device_name", "GPU")), len(gpus), _gpu_memory_gib())


def _jax_gpu() -> Device | None:
    import jax

    gpus = [device for device in jax.local_devices() if device.platform == "gpu"]
    return Device("gpu", str(gpus[0].device_kind), len(gpus), _gpu_memory_gib()) if gpus else None


def _torch_gpu() -> Device | None:
    import torch

    if not torch.cuda.is_available():
        return None
    return Device("gpu", torch.cuda.get_device_name(0), torch.cuda.device_count(), _gpu_memory_gib())


_FIND_GPU = {"tensorflow": _tensorflow_gpu, "jax": _jax_gpu, "torch": _torch_gpu}


def _gpu_memory_gib() -> float:
    """Return the memory of the first GPU, or NaN if it is unknown."""
    try:
        return float(_ask_driver("memory.total") or math.nan) / 1024
    except ValueError:
        return math.nan


def _ask_driver(key: str) -> str | None:
    """Return a property of the first GPU from nvidia-smi, or None if that fails."""
    try:
        answer = subprocess.run(
            ["nvidia-smi", f"--query-gpu={key}", "--format=csv,noheader,nounits"],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        return answer.stdout.splitlines()[0].strip()
    except (OSError, subprocess.CalledProcessError, IndexError):
        return None


def requirements() -> list[str]:
    """Return pip's requirements for loading a saved model."""
    import keras

    return [f"{name}=={version(name)}" for name in ("keras", keras.backend.backend(), "numpy")]


def numerics() -> dict[str, object]:
    """Return what decides the last bits of a result: processor, threads, and versions of the packages that compute."""
    used = device()
    computing = {name: number for name, number in versions().items() if name not in ("dvc", "mlflow")}
    computing |= {str(one.name): one.version for one in distributions() if str(one.name).startswith(_OF_GPUS)}
    return computing | {
        "device": [used.kind, used.name, used.count],
        "driver": _ask_driver("driver_version") if used.kind == "gpu" else None,
        "processor": processor.identity(),
        "threads": threads(),
        "backend": backend(),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result depends on."""
    installed = {"python": platform.python_version()}
    for name in _RECORDED_PACKAGES:
        with suppress(PackageNotFoundError):
            installed[name] = version(name)
    return installed
