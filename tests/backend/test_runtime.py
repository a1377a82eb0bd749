"""What is set before the backend starts: in a fresh process, since it can be done only once."""

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
    json.dump({"image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.1, "backend": "jax"}, stream)
from tiny_imagenet.backend import runtime
assert "keras" not in sys.modules
runtime.prepare(11)
import keras, numpy, random
def draws():
    return [float(keras.random.uniform(())), float(numpy.random.random()), random.random()]
found = {
    "environment": {n: os.environ[n] for n in ("KERAS_BACKEND", "TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL")},
    "backend": keras.backend.backend(),
    "draws": draws(),
    "config": [keras.config.image_data_format(), keras.config.floatx(), keras.config.epsilon()],
    "max_epochs": keras.config.max_epochs(),
}
keras.utils.set_random_seed(11)
found["draws_after_keras_own_seeding"] = draws()
if found["backend"] == "tensorflow":
    from tensorflow.python.framework import config
    found["deterministic"] = config.is_op_determinism_enabled()
try:
    runtime.prepare(11)
except RuntimeError as error:
    found["second"] = str(error)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """Return what a fresh process found, in which the user had set one thing, and its stderr."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TF_", "KERAS_"))}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_MAX_EPOCHS": "1"}
    environment["KERAS_HOME"] = str(tmp_path_factory.mktemp("keras"))
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_preparing_chooses_tensorflow_and_onednn_and_determinism(fresh):
    found, _ = fresh
    assert found["environment"]["KERAS_BACKEND"] == found["backend"] == "tensorflow"
    assert found["environment"]["TF_ENABLE_ONEDNN_OPTS"] == "1"
    assert found["deterministic"]


@pytest.mark.slow
def test_what_keras_json_says_and_a_limit_of_epochs_change_no_training(fresh):
    assert fresh[0]["config"] == ["channels_last", "float32", 1e-7]
    assert fresh[0]["max_epochs"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("nonsense", "it can be tensorflow, jax, torch"), ("torch", "torch, which is not installed")],
)
def test_a_backend_that_is_not_there_is_named(name, message, monkeypatch):
    monkeypatch.setattr(runtime, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=message):
        runtime._require_backend(name)


@pytest.mark.slow
def test_a_setting_of_the_users_stays(fresh):
    assert fresh[0]["environment"]["TF_CPP_MIN_LOG_LEVEL"] == "3"


@pytest.mark.slow
def test_preparing_seeds_keras_numpy_and_python(fresh):
    found, _ = fresh
    assert found["draws"] == found["draws_after_keras_own_seeding"]


@pytest.mark.slow
def test_starting_the_backend_prints_nothing(fresh):
    assert fresh[1] == ""


@pytest.mark.slow
def test_preparing_twice_is_refused(fresh):
    assert "before keras is imported" in fresh[0]["second"]


def test_preparing_after_keras_was_imported_is_refused(keras):
    with pytest.raises(RuntimeError, match="before keras is imported"):
        runtime.prepare(0)


def fail_to_start():
    with runtime._quiet_stderr():
        os.write(2, b"why it fails\n")
        raise ImportError


def test_what_native_code_prints_is_held_back_unless_it_fails(capfd):
    with runtime._quiet_stderr():
        os.write(2, b"ten lines of noise\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError):
        fail_to_start()
    assert capfd.readouterr().err == "why it fails\n"
    os.write(2, b"shown again\n")
    assert capfd.readouterr().err == "shown again\n"


def test_the_device_is_what_the_machine_has(keras):
    found = runtime.device()
    assert found.kind in {"cpu", "gpu"}
    if found.kind == "cpu":
        assert found.count == len(os.sched_getaffinity(0))
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        assert found.memory_gib == pytest.approx(pages, rel=0.01)
    assert found.name
    assert found.as_dict() == {
        "kind": found.kind,
        "name": found.name,
        "count": found.count,
        "memory_gib": found.memory_gib,
    }


def test_a_device_reads_as_a_person_would_say_it():
    assert str(runtime.Device("cpu", "AMD EPYC", 2, 23.6)) == "CPU AMD EPYC, 2 cores, 24 GiB"
    assert str(runtime.Device("gpu", "NVIDIA H200", 1, 139.4)) == "GPU NVIDIA H200, 1 x, 139 GiB"


def test_the_backend_is_keras_own(keras):
    import tensorflow

    assert runtime.backend() == f"tensorflow {tensorflow.__version__}"


def test_threads_name_the_cores_and_what_limits_them(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert runtime.threads().startswith(f"{runtime.cores()} cores")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP_NUM_THREADS=1" in runtime.threads()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the names of threads from /proc")
@pytest.mark.parametrize("number", [1, 3])
def test_a_process_that_is_given_threads_computes_with_so_many(number):
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


def test_versions_are_those_of_the_imported_packages(keras):
    import numpy

    versions = runtime.versions()
    assert versions["python"] == sys.version.split()[0]
    assert (versions["keras"], versions["numpy"]) == (keras.__version__, numpy.__version__)
    assert {"dvc", "mlflow", "opencv-python-headless", "scikit-learn", "tensorflow"} < set(versions)


def test_requirements_pin_what_loads_a_saved_model(keras):
    import numpy
    import tensorflow

    assert runtime.requirements() == [
        f"keras=={keras.__version__}",
        f"tensorflow=={tensorflow.__version__}",
        f"numpy=={numpy.__version__}",
    ]
