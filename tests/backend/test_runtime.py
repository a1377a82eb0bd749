"""Settings of the backend, made in a fresh process: they can be made only once in a process."""

import json
import os
import subprocess
import sys

import pytest

from tiny_imagenet.backend import runtime
from tiny_imagenet.common.errors import UserError

SCRIPT = """
import json, os, sys
with open(os.path.join(os.environ["KERAS_HOME"], "keras.json"), "w") as stream:
    json.dump({"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "jax",
               "nnx_enabled": True}, stream)
given = list(os.environ)
from tiny_imagenet.backend import runtime
assert "keras" not in sys.modules
runtime.prepare(11)
import keras, numpy, random
def draws():
    return [float(keras.random.uniform(())), float(numpy.random.random()), random.random()]
state = {
    "given": given,
    "environment": {n: os.environ[n] for n in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL")},
    "backend": keras.backend.backend(),
    "draws": draws(),
    "config": [keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()],
    "max_epochs": keras.config.max_epochs(),
    "nnx": keras.config.is_nnx_enabled(),
    "numerics": runtime.numerics(),
}
keras.utils.set_random_seed(11)
state["draws_after_keras_own_seeding"] = draws()
if state["backend"] == "tensorflow":
    from tensorflow.python.framework import config
    state["deterministic"] = config.is_op_determinism_enabled()
import cv2, matplotlib.pyplot, mlflow, pandas, sklearn.metrics
state["numerics_with_all_libraries"] = runtime.numerics()
try:
    runtime.prepare(11)
except RuntimeError as error:
    state["second"] = str(error)
print(json.dumps(state))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return the output of SCRIPT and its stderr. The environment has two settings of the user."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_", "KMP_"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_MAX_EPOCHS": "1"}
    environment["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_prepare_selects_tensorflow_onednn_and_determinism(fresh):
    state, _ = fresh
    assert state["environment"]["KERAS_BACKEND"] == state["backend"] == "tensorflow"
    assert state["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert state["deterministic"]


@pytest.mark.slow
def test_keras_json_and_keras_max_epochs_are_ignored(fresh):
    assert fresh[0]["config"] == ["channels_last", "float32", 1e-7]
    assert fresh[0]["max_epochs"] is None
    assert fresh[0]["nnx"] is False


@pytest.mark.parametrize(
    ("name", "message"),
    [("nonsense", "expected one of tensorflow, jax, torch"), ("torch", "torch, which is not installed")],
)
def test_an_unknown_or_missing_backend_is_refused(name, message, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=message):
        runtime._require_backend(name)


@pytest.mark.slow
def test_a_variable_set_by_the_user_is_kept(fresh):
    assert fresh[0]["environment"]["TF_CPP_MIN_LOG_LEVEL"] == "3"


@pytest.mark.slow
def test_prepare_seeds_keras_numpy_and_python(fresh):
    state, _ = fresh
    assert state["draws"] == state["draws_after_keras_own_seeding"]


@pytest.mark.slow
def test_starting_the_backend_prints_nothing(fresh):
    assert fresh[1] == ""


@pytest.mark.slow
def test_prepare_is_refused_a_second_time(fresh):
    assert "before keras is imported" in fresh[0]["second"]


def test_prepare_is_refused_after_keras_was_imported(keras):
    with pytest.raises(RuntimeError, match="before keras is imported"):
        runtime.prepare(0)


def fail_to_start():
    with runtime._quiet_stderr():
        os.write(2, b"why it fails\n")
        raise ImportError


def test_output_of_native_code_is_hidden_unless_it_fails(capfd):
    with runtime._quiet_stderr():
        os.write(2, b"ten lines of noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        fail_to_start()
    assert capfd.readouterr().err == "why it fails\n"
    os.write(2, b"shown again\n")
    assert capfd.readouterr().err == "shown again\n"


def test_the_device_is_that_of_the_machine(keras):
    device = runtime.device()
    assert device.kind in {"cpu", "gpu"}
    if device.kind == "cpu":
        assert device.count == len(os.sched_getaffinity(0))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        assert device.memory_gib == pytest.approx(pages, rel=0.01)
    assert device.name


def test_a_device_is_described_in_words():
    assert str(runtime.Device("cpu", "AMD EPYC", 2, 23.6)) == "CPU AMD EPYC, 2 cores, 24 GiB"
    assert str(runtime.Device("gpu", "NVIDIA H200", 1, 139.4)) == "GPU NVIDIA H200, 1 x, 139 GiB"


def test_the_backend_is_the_one_of_keras(keras):
    import tensorflow

    assert runtime.backend() == f"tensorflow {tensorflow.__version__}"


@pytest.mark.parametrize(
    "name",
    [
        "TF_XLA_FLAGS", "XLA_FLAGS", "TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA",
        "TF_SET_ONEDNN_FPMATH_MODE", "ONEDNN_DEFAULT_FPMATH_MODE", "TF_USE_EIGEN_PARALLEL_FOR_IN_WORK_SHARDER",
        "OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "MKL_NUM_THREADS", "MKL_CBWR",
        "OPENBLAS_CORETYPE", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "NPY_DISABLE_CPU_FEATURES",
        "OPENCV_CPU_DISABLE", "GLIBC_TUNABLES", "JAX_DEFAULT_MATMUL_PRECISION", "KERAS_TORCH_DEVICE",
        "NVIDIA_TF32_OVERRIDE", "TF_CUDNN_DETERMINISTIC", "CUBLAS_WORKSPACE_CONFIG", "NCCL_ALGO", "NCCL_PROTO",
    ],
)  # fmt: skip
def test_each_variable_that_may_decide_a_result_is_recorded(name, keras, monkeypatch):
    monkeypatch.delenv(name, raising=False)
    without, before = runtime.threads(), runtime.numerics()
    assert without.startswith(f"{runtime.cores()} cores")
    monkeypatch.setenv(name, "a value")
    assert f", {name}=a value" in runtime.threads()
    assert runtime.numerics() == before | {"threads": runtime.threads()}
    monkeypatch.delenv(name)
    assert runtime.threads() == without


@pytest.mark.parametrize(
    "name",
    [
        "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_VMODULE", "ONEDNN_VERBOSE", "DNNL_VERBOSE", "OMP_DISPLAY_ENV", "KERAS_HOME",
        "TORCH_HOME", "JAX_COMPILATION_CACHE_DIR", "KERAS_DISTRIBUTION_PROCESS_ID", "KERAS_DISTRIBUTION_JOB_ADDRESSES",
        "XLA_PYTHON_CLIENT_MEM_FRACTION", "TF_VAR_password", "TF_TOKEN_app_terraform_io", "TF_LOG", "TF_WORKSPACE",
        "NCCL_DEBUG", "KERAS_API_KEY", "TF_AWS_CREDENTIALS",
        "PATH", "HOME", "CUDA_VISIBLE_DEVICES",
    ],
)  # fmt: skip
def test_variables_for_logs_folders_addresses_and_secrets_are_not_recorded(name, monkeypatch):
    before = runtime.threads()
    monkeypatch.setenv(name, "1")
    assert runtime.threads() == before


@pytest.mark.slow
def test_another_process_on_the_machine_has_the_same_numerics(fresh, keras, monkeypatch):
    for name in [name for name in os.environ if name.startswith(("TF_", "KERAS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    assert json.loads(json.dumps(runtime.numerics())) == fresh[0]["numerics"]


@pytest.mark.slow
def test_variables_that_libraries_set_when_imported_are_not_recorded(fresh):
    """scikit-learn sets two of OpenMP's. A key must not depend on whether it was imported before."""
    state, _ = fresh
    named = {part.partition("=")[0] for part in state["numerics"]["threads"].split(", ")[1:]}
    assert named <= {*state["given"], "TF_ENABLE_ONEDNN_OPTS"}
    assert state["numerics_with_all_libraries"] == state["numerics"]


def test_numerics_include_the_driver_and_the_packages_of_a_gpu(keras, tmp_path, monkeypatch):
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\ncase "$1" in *driver_version) echo 580.65.06;; *memory.total) echo 2048;; esac\n')
    tool.chmod(0o755)
    package = tmp_path / "nvidia_cudnn_cu12-9.3.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: nvidia-cudnn-cu12\nVersion: 9.3\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.syspath_prepend(tmp_path)
    gpu = runtime.Device("gpu", "some", 1, runtime._gpu_memory_gib())
    assert gpu.memory_gib == 2
    monkeypatch.setattr(runtime, "device", lambda: gpu)
    numerics = runtime.numerics()
    assert (numerics["driver"], numerics["nvidia-cudnn-cu12"]) == ("580.65.06", "9.3")
    tool.write_text("#!/bin/sh\necho NVIDIA-SMI has failed because it could not talk to the driver; exit 9\n")
    assert runtime.numerics()["driver"] is None
    tool.unlink()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.numerics()["driver"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
def test_thread_settings_limit_the_threads_of_tensorflow():
    number = runtime.cores() + 1  # by default there are as many threads as cores
    script = (
        "from tiny_imagenet.backend import runtime; runtime.prepare(0); import os; import tensorflow as tf;"
        "tf.linalg.matmul(tf.ones((2000, 2000)), tf.ones((2000, 2000))).numpy();"
        "names = [open(f'/proc/self/task/{task}/comm').read().strip() for task in os.listdir('/proc/self/task')];"
        "print(names.count('tf_Compute'), runtime.threads())"
    )
    environment = dict(os.environ) | runtime.thread_settings(number)
    printed = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert printed.startswith(f"{number} ")
    assert all(f"{name}={number}" in printed for name in runtime.thread_settings(number))


def test_versions_are_those_of_the_installed_packages(keras):
    import numpy

    versions = runtime.versions()
    assert versions["python"] == sys.version.split()[0]
    assert (versions["keras"], versions["numpy"]) == (keras.__version__, numpy.__version__)
    assert {"dvc", "mlflow", "opencv-python-headless", "scikit-learn", "tensorflow"} < set(versions)


def test_requirements_pin_the_packages_that_load_a_model(keras):
    import numpy
    import tensorflow

    assert runtime.requirements() == [
        f"keras=={keras.__version__}",
        f"tensorflow=={tensorflow.__version__}",
        f"numpy=={numpy.__version__}",
    ]
