"""Machine facts, power meters and NVML, each from a tree or a library made for the test."""

from __future__ import annotations

import subprocess
import sys
import types

import pytest

from darsr_deploy.machine import facts as machine
from darsr_deploy.machine import gpu as nvml
from darsr_deploy.machine.energy import Meter

JETSON = {
    "proc/cpuinfo": "".join(
        f"processor\t: {i}\nFeatures\t: fp asimd asimdhp asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd42\n\n"
        for i in range(6)
    ),
    "proc/meminfo": "MemTotal:        7802648 kB\nMemFree: 5 kB\n",
    "proc/loadavg": "0.52 0.4 0.3 1/200 1234\n",
    "proc/device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0",
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=2 NAME=MAXN_SUPER >\n",
    "var/lib/nvpmodel/status": "pmode:0002\n",
    "var/lib/dpkg/status": "Package: nano\nVersion: 7\n\nPackage: nvidia-jetpack\nStatus: install ok\nVersion: 6.2+b77\n\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48562\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "\n",  # switched off
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "729600\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/class/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/class/hwmon/hwmon1/in1_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr1_input": "1400\n",
    "sys/class/hwmon/hwmon1/in2_label": "VDD_CPU_GPU_CV\n",
    "sys/class/hwmon/hwmon1/in2_input": "5000\n",
    "sys/class/hwmon/hwmon1/curr2_input": "400\n",
}
SERVER = {
    "proc/cpuinfo": "processor\t: 0\nmodel name\t: Example CPU @ 3 GHz\ncpu MHz\t\t: 2600.5\n"
    "flags\t\t: fpu avx2 fma avx512f amx_tile\n\nprocessor\t: 1\nmodel name\t: Example CPU @ 3 GHz\ncpu MHz\t\t: 3100\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "3\n",
    "sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count": "4\n",
    "sys/class/powercap/intel-rapl:0/energy_uj": "999000000\n",
    "sys/class/powercap/intel-rapl:0/max_energy_range_uj": "1000000000\n",
    "sys/class/powercap/intel-rapl:0:0/energy_uj": "5\n",  # a part of the processor: would count twice
}


@pytest.fixture
def tree(tmp_path):
    def make(files):
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    return make


def test_a_jetson(tree):
    facts = machine.facts(tree(JETSON))
    assert facts["board"] == "NVIDIA Jetson Orin Nano Developer Kit"
    assert (facts["l4t"], facts["jetpack"], facts["power_mode"]) == ("36.4.3", "6.2+b77", "2 (MAXN_SUPER)")
    assert facts["cpu"] == "ARM implementer 0x41 part 0xd42" and facts["cores"] == 6
    assert facts["simd"] == ["asimd", "asimdhp", "asimddp"] and facts["ram_mb"] == 7619
    assert facts["governor"] == "schedutil"
    state = machine.state(tree({}))
    assert state["temperatures_c"] == {"cpu-thermal": 48.562}
    assert state["clocks_mhz"] == [729.6, 1510.4] and state["load"] == 0.52


def test_a_server(tree):
    facts, state = machine.facts(tree(SERVER)), machine.state(tree({}))
    assert facts["cpu"] == "Example CPU @ 3 GHz" and facts["cores"] == 2
    assert facts["simd"] == ["avx2", "fma", "avx512f", "amx_tile"]
    assert facts["l4t"] is facts["jetpack"] is facts["power_mode"] is facts["board"] is None
    assert state["clocks_mhz"] == [2600.5, 3100] and state["throttled"]["cpu_events"] == 7


def test_an_empty_tree_tells_nothing_and_fails_nothing(tmp_path):
    facts, state = machine.facts(tmp_path), machine.state(tmp_path)
    assert facts["ram_mb"] is None and facts["simd"] == [] and facts["python"]
    assert state["load"] is None and state["temperatures_c"] == {}


def test_throttling_is_a_counter_that_grew(tree):
    start = machine.state(tree(SERVER))
    assert machine.throttled_between(start, start) is False
    end = machine.state(tree({"sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count": "9"}))
    assert machine.throttled_between(start, end) is True
    silent = {"throttled": {"cpu_events": None, "gpu": None}}
    assert machine.throttled_between(silent, silent) is None


def test_versions_come_without_importing():
    assert machine.package_version("no-such-thing", "numpy") == machine.package_version("numpy") is not None
    assert machine.package_version("no-such-thing") is None


def test_the_commit_is_that_of_a_checkout_alone(tmp_path):
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "file").write_text("1")
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "first"], check=True)
    assert machine.git_commit(tmp_path) is None  # somebody's repository around an installed package
    (tmp_path / "pyproject.toml").write_text("")
    commit = machine.git_commit(tmp_path)
    assert len(commit) == 40
    (tmp_path / "file").write_text("2")
    assert machine.git_commit(tmp_path) == f"{commit}-dirty"


def test_a_jetsons_input_rail_is_the_whole_board(tree):
    meter = Meter(gpu=True, root=tree(JETSON))
    for _ in range(2):
        meter.start()
        meter.stop()
    assert meter.source == "jetson" and meter.watts == pytest.approx(7.0)
    assert meter.joules == pytest.approx(7.0 * meter.seconds)


def test_three_rails_of_another_board_add_up(tree):
    rails = {}
    for number, (name, milliamperes) in enumerate(
        {"VDD_GPU_SOC": 100, "VDD_CPU_CV": 200, "VIN_SYS_5V0": 300, "VDDQ_VDD2_1V8AO": 50}.items(), 1
    ):
        start = "sys/class/hwmon/hwmon0"
        rails |= {f"{start}/in{number}_label": name, f"{start}/in{number}_input": "5000"}
        rails[f"{start}/curr{number}_input"] = str(milliamperes)
    meter = Meter(gpu=False, root=tree(rails))
    meter.start()
    meter.stop()
    assert meter.watts == pytest.approx(3.0)


def test_rapl_counts_processors_once_and_survives_its_end(tree):
    meter = Meter(gpu=False, root=tree(SERVER))
    meter.start()
    tree({"sys/class/powercap/intel-rapl:0/energy_uj": "1000000\n"})  # it wrapped: 2 J were spent
    meter.stop()
    assert meter.source == "rapl" and meter.joules == pytest.approx(2.0)


def test_without_a_meter_there_is_a_reason(tmp_path):
    meter = Meter(gpu=False, root=tmp_path)
    meter.start()
    meter.stop()
    assert meter.watts is None and meter.source is None and "no power meter" in meter.reason


class FakeNvml(types.ModuleType):
    """One GPU that answers most questions, as nvidia-ml-py gives them."""

    class NVMLError(Exception):
        pass

    NVML_CLOCK_SM, NVML_TEMPERATURE_GPU = 1, 0
    energy, present = 5_000, True

    def nvmlInit(self):
        if not self.present:
            raise self.NVMLError("driver not loaded")

    nvmlDeviceGetCount = staticmethod(lambda: 1)
    nvmlDeviceGetHandleByIndex = staticmethod(lambda i: i)
    nvmlDeviceGetName = staticmethod(lambda h: b"Example GPU")
    nvmlDeviceGetMemoryInfo = staticmethod(lambda h: types.SimpleNamespace(total=8 * 2**30, used=2**30))
    nvmlDeviceGetCudaComputeCapability = staticmethod(lambda h: (8, 7))
    nvmlDeviceGetClockInfo = staticmethod(lambda h, kind: 1300)
    nvmlDeviceGetTemperature = staticmethod(lambda h, kind: 51)
    nvmlDeviceGetCurrentClocksThrottleReasons = staticmethod(lambda h: 0x21)
    nvmlSystemGetCudaDriverVersion_v2 = staticmethod(lambda: 13020)
    nvmlSystemGetDriverVersion = staticmethod(lambda: "580.65")

    def nvmlDeviceGetEnforcedPowerLimit(self, h):
        raise self.NVMLError("not supported")

    def nvmlDeviceGetTotalEnergyConsumption(self, h):
        self.energy += 1_500  # millijoules
        return self.energy


@pytest.fixture
def fake_nvml(monkeypatch):
    fake = FakeNvml("pynvml")
    fake.__spec__ = types.SimpleNamespace()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_gpu_is_described(fake_nvml, tmp_path):
    gpus, driver, cuda = nvml.describe()
    assert gpus == [
        {"name": "Example GPU", "memory_mb": 8192, "compute_capability": "8.7", "power_limit_w": None}
    ]  # what the GPU does not tell is null
    assert (driver, cuda, nvml.missing()) == ("580.65", "13.2", None)
    assert nvml.memory_used_mb() == 1024 and nvml.throttle_reasons() == ["software thermal"]
    assert machine.state(tmp_path)["gpus"] == [{"clock_mhz": 1300, "temperature_c": 51}]
    meter = Meter(gpu=True, root=tmp_path)
    meter.start()
    meter.stop()
    assert meter.source == "nvml" and meter.joules == pytest.approx(1.5)


def test_a_machine_without_a_driver(fake_nvml, tmp_path):
    fake_nvml.present = False
    assert nvml.describe() == ([], None, None) and nvml.energy_j() is None and nvml.conditions() == []
    assert nvml.missing() == Meter(gpu=True, root=tmp_path).reason == "no NVIDIA driver answers"
