"""Lists the steps of a run, the parts of each, and their time limits."""

from dataclasses import dataclass


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


def _alone(name: str, function: str, limit_s: float, *, uses_device: bool = True) -> Group:
    return Group(limit_s, (Part(name, function, uses_device=uses_device),))


# The parts of `correctness` time nothing. Side by side they compile what each would compile alone.
STEPS: dict[str, tuple[Group, ...]] = {
    "facts": (_alone("facts", "machine:measure", 50),),
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
        ),
        # Alone, since one of these tests fills the memory.
        _alone("tests_others", "gpu_tests:run_other_tests", 40, uses_device=False),
    ),
    "model": (_alone("model", "speed:measure", 120),),
    "compare": (_alone("compare", "rivals:measure", 60),),
    "kernels": (_alone("kernels", "kernels:measure", 60),),
    "latency": (_alone("latency", "latency:measure", 50),),
    "graphs": (_alone("graphs", "graphs:measure", 40),),
    "service": (_alone("service", "service:measure_demo", 90, uses_device=False),),
    "service_6b": (_alone("service_6b", "service:measure_6b", 240),),
}
# What fits eight minutes; `service_6b` writes and reads 13 GB.
DEFAULT_STEPS = tuple(name for name in STEPS if name != "service_6b")
