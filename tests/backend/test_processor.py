"""Properties of the processor, from the files of Linux on x86 and ARM, and without these files."""

from pathlib import Path

import pytest

from tiny_imagenet.backend import processor

X86 = """processor\t: {number}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
microcode\t: 0x1000065
cpu MHz\t\t: 2445.406
cache size\t: 512 KB
flags\t\t: fpu sse sse2 ht pni fma avx avx2 f16c rep_good pti
bugs\t\t: spectre_v1
bogomips\t: 4890.81
"""
ARM = """processor\t: {number}
BogoMIPS\t: 50.00
Features\t: fp asimd evtstrm cpuid fphp asimdhp ssbs sve bf16
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x1
CPU part\t: {part}
CPU revision\t: 1
"""
CACHES = (
    ("1", "Data", "32K", "{number}"), ("1", "Instruction", "32K", "{number}"), ("2", "Unified", "512K", "{number}"),
    ("3", "Unified", "32768K", "0-1"),
)  # fmt: skip


class Machine:
    """The files of a machine with two processors."""

    def __init__(self, folder: Path):
        self.cpuinfo, self.cpus = folder / "cpuinfo", folder / "cpu"

    def write(self, text: str, **values: list[str]) -> None:
        self.cpuinfo.write_text(
            "\n".join(text.format(number=n, **{key: value[n] for key, value in values.items()}) for n in range(2))
        )
        for number in range(2):
            for index, entries in enumerate(CACHES):
                folder = self.cpus / f"cpu{number}" / "cache" / f"index{index}"
                folder.mkdir(parents=True, exist_ok=True)
                for key, value in zip(("level", "type", "size", "shared_cpu_list"), entries, strict=True):
                    (folder / key).write_text(f"{value.format(number=number)}\n")

    def edit(self, old: str, new: str) -> None:
        """Replace a text in /proc/cpuinfo."""
        text = self.cpuinfo.read_text()
        assert old in text
        self.cpuinfo.write_text(text.replace(old, new))


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setattr(processor, "_CPUINFO", machine.cpuinfo)
    monkeypatch.setattr(processor, "_CPUS", machine.cpus)
    return machine


def changes_identity(machine: Machine, old: str, new: str) -> bool:
    """Return whether the identity changes with a text in /proc/cpuinfo."""
    before = processor.identity()
    machine.edit(old, new)
    return processor.identity() != before


def test_identity_on_x86_has_family_model_stepping_instruction_sets_and_data_caches(machine):
    machine.write(X86)
    assert processor.name() == "AMD EPYC"
    assert processor.identity() == {
        "kinds": ["AuthenticAMD, 25, 1, AMD EPYC, 1"],
        "instructions": ["avx avx2 f16c fma pni sse sse2"],
        "caches": ["L1 Data 32K of 1", "L2 Unified 512K of 1", "L3 Unified 32768K of 2"],
    }


def test_identity_on_arm_has_the_parts_of_fast_and_economical_cores(machine, monkeypatch):
    machine.write(ARM, part=["0xd0c", "0xd05"])
    monkeypatch.setattr("platform.processor", lambda: "")
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert processor.name() == "aarch64"
    identity = processor.identity()
    assert identity["kinds"] == ["0x41, 8, 0x1, 0xd05, 1", "0x41, 8, 0x1, 0xd0c, 1"]
    assert identity["instructions"] == ["asimd asimdhp bf16 fp fphp sve"]


def test_bfloat16_is_slow_on_a_processor_that_emulates_it(machine):
    machine.write(X86)
    assert processor.slow_precision("mixed_bfloat16") == (
        "mixed_bfloat16 will be slow: AMD EPYC has no bfloat16 instructions and emulates them in float32"
    )
    assert processor.slow_precision("float32") is None
    assert processor.slow_precision("mixed_float16") is None


@pytest.mark.parametrize("flags", ["avx512_bf16", "amx_tile amx_bf16"])
def test_bfloat16_is_not_slow_on_a_processor_that_has_it(flags, machine):
    machine.write(X86)
    machine.edit(" avx2", f" avx2 {flags}")
    assert processor.slow_precision("mixed_bfloat16") is None


def test_bfloat16_is_slow_on_intels_processors_without_amx(machine):
    machine.write(X86)
    machine.edit("AuthenticAMD", "GenuineIntel")
    machine.edit(" avx2", " avx2 avx512_bf16")
    assert processor.slow_precision("mixed_bfloat16") == (
        "mixed_bfloat16 will be slow: AMD EPYC has no AMX, and multiplies faster in float32 (docs/speed.md)"
    )
    machine.edit(" avx512_bf16", " avx512_bf16 amx_bf16")
    assert processor.slow_precision("mixed_bfloat16") is None


def test_bfloat16_is_not_called_slow_on_arm_that_has_it_or_where_nothing_is_known(machine):
    assert processor.slow_precision("mixed_bfloat16") is None
    machine.write(ARM + "\nHardware\t: board\n", part=["0xd0c", "0xd05"])
    assert processor.slow_precision("mixed_bfloat16") is None
    machine.edit(" bf16", "")
    assert "will be slow" in processor.slow_precision("mixed_bfloat16")


def test_without_the_files_of_linux_only_the_name_is_known(machine, monkeypatch):
    """Such as on macOS."""
    monkeypatch.setattr("platform.processor", lambda: "arm")
    assert processor.name() == "arm"
    assert processor.identity() == {"kinds": ["arm"], "instructions": [], "caches": []}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cpu family\t: 25", "cpu family\t: 26"), ("model\t\t: 1", "model\t\t: 17"), ("stepping\t: 1", "stepping\t: 2"),
        (" avx2", " avx2 avx512f"), (" fma", ""),
    ],
)  # fmt: skip
def test_processors_with_the_same_name_are_distinguished(old, new, machine):
    machine.write(X86)
    assert changes_identity(machine, old, new)
    assert processor.name() == "AMD EPYC"


@pytest.mark.parametrize(
    ("file", "content"),
    [("index0/size", "48K"), ("index2/size", "1024K"), ("index3/size", "16384K"), ("index3/shared_cpu_list", "0")],
)
def test_processors_with_other_caches_are_distinguished(file, content, machine):
    machine.write(X86)
    before = processor.identity()
    (machine.cpus / "cpu0" / "cache" / file).write_text(content)
    assert processor.identity() != before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("2445.406", "3100.000"), ("0x1000065", "0x1000099"), ("spectre_v1", "spectre_v1 srso"),
        ("rep_good pti", "rep_good ibrs md_clear"), ("4890.81", "4890.82"),
    ],
)  # fmt: skip
def test_a_restart_another_kernel_and_the_clock_do_not_change_the_identity(old, new, machine):
    machine.write(X86)
    assert not changes_identity(machine, old, new)


@pytest.mark.parametrize(("new", "changes"), [("ssbs paca pacg mte", False), ("ssbs sve2 svei8mm", True)])
def test_only_instruction_sets_that_compute_change_the_identity_on_arm(new, changes, machine):
    machine.write(ARM, part=["0xd0c", "0xd0c"])
    assert changes_identity(machine, "ssbs", new) is changes


@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="reads /proc")
def test_the_identity_of_this_machine_is_stable_and_not_empty():
    identity = processor.identity()
    assert identity == processor.identity()
    assert identity["kinds"]
    assert identity["instructions"]
    if Path("/sys/devices/system/cpu/cpu0/cache/index0").is_dir():
        assert identity["caches"][0].startswith("L1 Data ")
