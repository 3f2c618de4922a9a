"""Limits of containers and hubs, read from folders that look like theirs."""

from __future__ import annotations

import os

import psutil
import pytest

from workbench.limits import cpu_limit, memory_available_bytes, memory_limit_bytes

MIB = 2**20


@pytest.fixture
def machine(tmp_path):
    """Writes files of a pretended root folder."""

    def put(path, text):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return tmp_path

    return put


def test_without_limits_the_machine_counts(tmp_path):
    assert memory_limit_bytes(tmp_path, {}) == psutil.virtual_memory().total
    assert 1 <= cpu_limit(tmp_path, {}) <= os.cpu_count()


def test_the_limit_of_a_version_2_container(machine):
    root = machine("sys/fs/cgroup/memory.max", f"{64 * MIB}\n")
    assert memory_limit_bytes(root, {}) == 64 * MIB


def test_the_smallest_limit_of_all_levels_counts(machine):
    machine("proc/self/cgroup", "0::/user/app\n")
    machine("sys/fs/cgroup/user/app/memory.max", "max\n")
    machine("sys/fs/cgroup/user/memory.max", f"{32 * MIB}\n")
    root = machine("sys/fs/cgroup/memory.max", f"{64 * MIB}\n")
    assert memory_limit_bytes(root, {}) == 32 * MIB


def test_the_limit_of_a_version_1_container(machine):
    machine("proc/self/cgroup", "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n")
    machine("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", f"{48 * MIB}")
    machine("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000")
    root = machine("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    assert memory_limit_bytes(root, {}) == 48 * MIB
    assert cpu_limit(root, {}) == 1


def test_version_1_without_limit_is_no_limit(machine):
    machine("proc/self/cgroup", "4:memory:/\n3:cpu:/\n")
    machine("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    machine("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000")
    root = machine("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1")
    assert memory_limit_bytes(root, {}) == psutil.virtual_memory().total
    assert cpu_limit(root, {}) == cpu_limit(root / "nowhere", {})


def test_a_path_of_the_host_inside_a_container_is_harmless(machine):
    machine("proc/self/cgroup", "0::/kubepods/pod1/../../x\n")
    root = machine("sys/fs/cgroup/memory.max", f"{64 * MIB}\n")
    assert memory_limit_bytes(root, {}) == 64 * MIB


def test_a_fraction_of_a_cpu_counts_as_one(machine):
    root = machine("sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert cpu_limit(root, {}) == min(2, cpu_limit(root / "nowhere", {}))
    assert cpu_limit(machine("sys/fs/cgroup/cpu.max", "20000 100000\n"), {}) == 1


@pytest.mark.parametrize(("text", "limit"), [(str(16 * MIB), 16 * MIB), (f"{16 * MIB}.0", 16 * MIB)])
def test_the_limit_that_a_hub_announces(tmp_path, text, limit):
    assert memory_limit_bytes(tmp_path, {"MEM_LIMIT": text}) == limit
    assert cpu_limit(tmp_path, {"CPU_LIMIT": "0.5"}) == 1


@pytest.mark.parametrize("nonsense", ["", "max", "0", "-5", "nan", "inf", "2G", "\x00"])
def test_nonsense_is_no_limit(machine, nonsense):
    root = machine("sys/fs/cgroup/memory.max", nonsense)
    machine("sys/fs/cgroup/cpu.max", nonsense)
    environ = {"MEM_LIMIT": nonsense, "CPU_LIMIT": nonsense}
    assert memory_limit_bytes(root, environ) == psutil.virtual_memory().total
    assert cpu_limit(root, environ) == cpu_limit(root / "nowhere", {})


def test_page_cache_counts_as_available(machine):
    machine("sys/fs/cgroup/memory.max", f"{100 * MIB}\n")
    machine("sys/fs/cgroup/memory.current", f"{90 * MIB}\n")
    root = machine("sys/fs/cgroup/memory.stat", f"anon {20 * MIB}\ninactive_file {60 * MIB}\n")
    assert memory_available_bytes(root, {}) == 70 * MIB


def test_available_memory_is_never_negative(tmp_path):
    assert memory_available_bytes(tmp_path, {"MEM_LIMIT": "1"}) == 0


def test_available_memory_is_at_most_what_the_machine_has_free(tmp_path):
    assert 0 < memory_available_bytes(tmp_path, {}) <= psutil.virtual_memory().total
