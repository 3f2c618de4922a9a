"""The doctor: says what is there, and for what is not, what to do."""

from __future__ import annotations

import pytest

from workbench import doctor


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


def texts(check, level=None):
    return " ".join(found.text for found in check() if level in (None, found.level))


def pretend(monkeypatch, **versions):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: versions.get(name, real(name)))


def test_a_model_that_was_not_fetched_comes_with_the_command(tmp_path):
    found = texts(doctor._model_cache, "missing")
    assert "smollm2: not fetched" in found
    assert "workbench models fetch smollm2" in found
    assert str(tmp_path / "cache") in texts(doctor._model_cache, "fine")


def test_a_damaged_model_is_wrong(tmp_path):
    (tmp_path / "cache" / "models" / "smollm2").mkdir(parents=True)
    assert "smollm2: damaged" in texts(doctor._model_cache, "wrong")


@pytest.mark.parametrize(("version", "wrong"), [("7.0.1", True), ("7.1.0", False), ("6.30.0", False), ("7.4.0", False)])
def test_the_kernel_that_loses_updates_is_reported(monkeypatch, version, wrong):
    pretend(monkeypatch, ipykernel=version)
    assert ("loses updates" in texts(doctor._versions, "wrong")) is wrong


def test_a_missing_package_is_wrong(monkeypatch):
    pretend(monkeypatch, transformers=None)
    assert "transformers is not installed" in texts(doctor._versions, "wrong")


def test_a_missing_optional_part_comes_with_the_command(monkeypatch):
    pretend(monkeypatch, pandas=None)
    assert "pip install 'inference-workbench[data]'" in texts(doctor._optional_parts, "missing")


def test_a_full_disk_is_reported(monkeypatch):
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10_000_000))
    assert "WORKBENCH_CACHE" in texts(doctor._model_cache, "missing")


def test_little_memory_is_reported_with_the_limit(monkeypatch):
    monkeypatch.setenv("MEM_LIMIT", str(512 * 2**20))
    assert "0.5 GiB for this process" in texts(doctor._memory, "fine")
    assert "num_blocks" in texts(doctor._memory, "missing")


def test_the_processor_line_respects_the_hubs_limit(monkeypatch):
    monkeypatch.setenv("CPU_LIMIT", "1")
    assert "1 threads are used" in texts(doctor._processor)


@pytest.mark.model
def test_the_path_of_every_type_is_described(monkeypatch):
    from workbench.models.store import fetch

    monkeypatch.undo()
    fetch()
    found = texts(doctor._fast_path, "fine")
    assert "smollm2 in bfloat16" in found
    assert "smollm2 in float32" in found


def test_the_report_sums_up():
    found = [doctor.Finding("a", "x"), doctor.Finding("b", "y", "missing"), doctor.Finding("c", "z", "wrong")]
    assert doctor.report(found).splitlines()[-1] == "1 to repair (!), 1 optional part not installed (-)"
    assert "ready to run" in doctor.report(found[:1])
