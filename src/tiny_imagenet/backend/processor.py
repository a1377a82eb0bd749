"""Properties of the processor that decide the last bits of a result.

Eigen and oneDNN choose their kernels by the instruction sets, and divide large sums into blocks by the sizes of the
caches. Processors with the same name may differ in both. On Linux they are read from files; on other systems only the
name is known.
"""

import platform
import re
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_CPUS = Path("/sys/devices/system/cpu")
# Keys of x86 and of ARM, without those that a restart or another kernel changes: clock, microcode, bugs.
_IDENTITY = (
    "vendor_id", "cpu family", "model", "model name", "stepping",
    "CPU implementer", "CPU architecture", "CPU variant", "CPU part", "CPU revision",
)  # fmt: skip
# Key of x86 and of ARM -> instruction sets for computing. The kernel sets many others, such as its workarounds for
# bugs.
_INSTRUCTIONS = {
    "flags": re.compile(r"3dnow|abm|amx|avx|bmi|f16c|fma|gfni|mmx|pni|popcnt|sse|ssse|vaes|vpclmul|xop"),
    "Features": re.compile(r"afp|asimd|bf16|ebf16|fcma|fp|half|i8mm|jscvt|neon|rpres|sme|sve|vfp"),
}
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}
"""Instruction sets that multiply in bfloat16, of x86 and of ARM."""


def name() -> str:
    """Return the name of the processor, or its architecture."""
    names = [cpu["model name"] for cpu in _cpus() if "model name" in cpu]
    return names[0] if names else platform.processor() or platform.machine()


def identity() -> dict[str, list[str]]:
    """Return `kinds`, `instructions` and `caches` of the processors. A restart does not change them.

    `kinds` has several entries if a machine has fast and economical cores. A cache includes the number of processors
    that share it.
    """
    cpus = _cpus()
    kinds = {", ".join(cpu[key] for key in _IDENTITY if key in cpu) for cpu in cpus} - {""}
    instructions = {" ".join(sorted(_instructions(cpu))) for cpu in cpus} - {""}
    return {
        "kinds": sorted(kinds) or [name()],
        "instructions": sorted(instructions),
        "caches": sorted(_caches()),
    }


def slow_precision(precision: str) -> str | None:
    """Return why a precision is slow on a CPU of this machine, or None if it is not or nothing is known of the CPU."""
    cpus = [(cpu, found) for cpu in _cpus() if (found := set(_instructions(cpu)))]
    if precision != "mixed_bfloat16":
        return None
    if not all(_BFLOAT16 & found for _, found in cpus):
        return f"mixed_bfloat16 will be slow: {name()} has no bfloat16 instructions and emulates them in float32"
    if any(cpu.get("vendor_id") == "GenuineIntel" and "amx_bf16" not in found for cpu, found in cpus):
        return f"mixed_bfloat16 will be slow: {name()} has no AMX, and multiplies faster in float32 (docs/speed.md)"
    return None


def _cpus() -> list[dict[str, str]]:
    """Return keys and values of each processor in /proc/cpuinfo."""
    try:
        blocks = _CPUINFO.read_text(encoding="utf-8", errors="replace").split("\n\n")
    except OSError:
        return []
    cpus = [dict(_pair(line) for line in block.splitlines() if ":" in line) for block in blocks]
    return [cpu for cpu in cpus if cpu]


def _pair(line: str) -> tuple[str, str]:
    key, _, value = line.partition(":")
    return key.strip(), value.strip()


def _instructions(cpu: dict[str, str]) -> list[str]:
    return [name for key, sets in _INSTRUCTIONS.items() for name in cpu.get(key, "").split() if sets.match(name)]


def _caches() -> set[str]:
    """Return each kind of data cache, such as "L3 Unified 32768K of 8"."""
    caches = set()
    for cache in _CPUS.glob("cpu[0-9]*/cache/index[0-9]*"):
        level, kind, size, sharing = (_line(cache / key) for key in ("level", "type", "size", "shared_cpu_list"))
        if kind in ("Data", "Unified"):
            caches.add(f"L{level} {kind} {size} of {_count(sharing)}")
    return caches


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _count(ranges: str) -> int:
    """Return the count of numbers in a list such as "0-3,8"."""
    ends = [part.split("-") for part in ranges.split(",") if part]
    return sum(int(end[-1]) - int(end[0]) + 1 for end in ends)
