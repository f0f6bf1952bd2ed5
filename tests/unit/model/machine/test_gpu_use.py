"""The use of a GPU, read from a stand-in for NVML, which the test machines lack."""

from types import SimpleNamespace

import pytest
import torch

from model.machine.gpu_use import GpuReading, gpu_reader, reader_of

UUID = "GPU-0123"


class Nvml:
    """What the reader uses of nvidia-ml-py, with one GPU."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        self.missing: set[str] = set()

    def _check(self, name: str) -> None:
        if name in self.missing:
            raise self.NVMLError

    def nvmlInit(self):  # noqa: N802 - as NVML names it
        self._check("driver")

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802 - as NVML names it
        if uuid != UUID:
            raise self.NVMLError
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle):  # noqa: N802 - as NVML names it
        self._check("memory")
        return SimpleNamespace(used=7, total=9)

    def nvmlDeviceGetUtilizationRates(self, handle):  # noqa: N802 - as NVML names it
        self._check("utilization")
        return SimpleNamespace(gpu=25)


@pytest.mark.parametrize(
    ("missing", "uuid", "expected"),
    [
        (set(), UUID, GpuReading(7, 9, 0.25)),
        ({"utilization"}, UUID, GpuReading(7, 9, None)),
        ({"memory"}, UUID, None),
        ({"driver"}, UUID, None),
        (set(), "GPU-4567", None),
    ],
)
def test_what_nvml_cannot_tell_is_left_out(missing, uuid, expected):
    nvml = Nvml()
    nvml.missing = missing
    assert reader_of(nvml, uuid)() == expected


def test_names_are_those_of_nvidia_ml_py():
    pynvml = pytest.importorskip("pynvml")
    assert all(hasattr(pynvml, name) for name in dir(Nvml) if not name.startswith("_"))


def test_cpu_has_no_use_of_a_gpu():
    assert gpu_reader(torch.device("cpu"))() is None
