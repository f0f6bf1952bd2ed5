"""Lists the steps of a run, the parts of each, and how long they may take."""

from collections.abc import Sequence
from dataclasses import dataclass

# A part ends itself at its limit where it can. After these seconds it is ended.
GRACE_S = 2.0


@dataclass(frozen=True)
class Part:
    """A part of a step: a function of a module in `bench/first_gpu/steps/`, in its own process."""

    name: str
    function: str  # module:function
    arguments: tuple[str, ...] = ()
    uses_device: bool = True  # itself, and not in a process that it starts


@dataclass(frozen=True)
class Group:
    """Parts that run side by side, and the seconds after which they are ended."""

    limit_s: float
    parts: tuple[Part, ...]
    # Time kept for this group while earlier groups run. With so little, it measures fewer figures.
    least_s: float = 0.0
    # Without this figure the group runs again with plain products: descriptors may be the cause.
    figure: str | None = None


def granted_s(
    group: Group, later: Sequence[Group], left_s: float, *, patience: float = 1.0
) -> float:
    """Return the seconds that a group gets of the `left_s` for it and for the `later` groups.

    Args:
        patience: the limit is multiplied by this.
    """
    free_s = left_s - sum(each.least_s + GRACE_S for each in later)
    return min(group.limit_s * patience, max(free_s, min(group.least_s, left_s)))


def _alone(part: Part, limit_s: float, least_s: float) -> Group:
    return Group(limit_s, (part,), least_s)


def _target(mode: str, limit_s: float, least_s: float) -> Group:
    part = Part(f"target_{mode}", "targets:measure", (mode,))
    return Group(limit_s, (part,), least_s, None if mode == "bf16" else f"target {mode}")


# The figures that decide come first, each mode in a process of its own: a kernel that hangs or
# breaks CUDA costs one mode. On an H100 a step is expected to take about 1.5 times its least time.
STEPS: dict[str, tuple[Group, ...]] = {
    "facts": (_alone(Part("facts", "machine:measure"), 40, 25),),
    "targets": (_target("bf16", 60, 35), _target("int8", 45, 25), _target("fp8", 35, 20)),
    # These parts time nothing. Side by side they compile what each would compile alone.
    "correctness": (
        Group(
            110,
            (
                Part("tests_kernels", "gpu_tests:run_kernel_tests", uses_device=False),
                Part("oracle_float32", "oracle:compare", ("float32", "none")),
                Part("oracle_bfloat16", "oracle:compare", ("bfloat16", "none")),
                Part("oracle_int8", "oracle:compare", ("bfloat16", "int8")),
                Part("oracle_nf4", "oracle:compare", ("bfloat16", "nf4")),
                Part("oracle_fp8", "oracle:compare", ("bfloat16", "fp8")),
                Part("compile_model", "compilation:compile_model"),
                Part("compile_tiles", "tiles:compile_tiles"),
            ),
            least_s=45,
        ),
        # Alone, since one of these tests fills the memory.
        _alone(Part("tests_others", "gpu_tests:run_other_tests", uses_device=False), 40, 15),
    ),
    "model": (_alone(Part("model", "speed:measure"), 120, 35),),
    "kernels": (_alone(Part("kernels", "kernels:measure"), 60, 20),),
    "latency": (_alone(Part("latency", "latency:measure"), 40, 15),),
    "service": (_alone(Part("service", "service:measure_demo", uses_device=False), 90, 35),),
    "graphs": (_alone(Part("graphs", "graphs:measure"), 40, 15),),
    "compare": (_alone(Part("compare", "rivals:measure"), 60, 15),),
    "service_6b": (_alone(Part("service_6b", "service:measure_6b"), 240, 90),),
}
# What fits eight minutes; `service_6b` writes and reads 13 GB.
DEFAULT_STEPS = tuple(name for name in STEPS if name != "service_6b")
