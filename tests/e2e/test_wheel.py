"""The wheel and the sdist, built and installed elsewhere."""

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import dist_files
import pytest

ROOT = Path(__file__).parents[2]


def _run_command(*command: str | Path, cwd: Path) -> str:
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin:/bin"})
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def dist_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, and the wheel built from it, as on a package index."""
    copy = tmp_path_factory.mktemp("source") / "clone"
    _run_command("git", "clone", "-q", ROOT, copy, cwd=ROOT)
    tracked = _run_command("git", "ls-files", "-co", "--exclude-standard", cwd=ROOT).splitlines()
    for name in tracked:  # the working tree, including uncommitted changes
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    out = tmp_path_factory.mktemp("dist")
    _run_command(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, copy, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel_environment(dist_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a new environment with the wheel in it; its dependencies come from the environment of the tests."""
    home = tmp_path_factory.mktemp("elsewhere")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    [wheel] = dist_folder.glob("*.whl")
    site = Path(_run_command(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=home).strip())
    _run_command(sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", wheel, cwd=home)
    # dependencies only: a .pth of the test environment would also run its editable finder, so link what isn't ours
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        is_ours = "stair_es" in entry.name or entry.name.endswith(".pth")
        if not is_ours and not (site / entry.name).exists():
            (site / entry.name).symlink_to(entry)
    return home / "bin"


@pytest.mark.nightly("the wheel runs; dist_files.py compares its files")
def test_console_script_runs_from_the_wheel(wheel_environment: Path, tmp_path: Path) -> None:
    assert _run_command(wheel_environment / "stair-es", "--version", cwd=tmp_path).startswith("stair-es ")
    path = _run_command(wheel_environment / "python", "-c", "import stair_es.cli.main as m; print(m.__file__)", cwd=tmp_path)
    assert Path(path.strip()).is_relative_to(wheel_environment.parent)


@pytest.mark.nightly("data files of the wheel, read from it")
def test_packaged_data_is_in_the_wheel(wheel_environment: Path, tmp_path: Path) -> None:
    code = (
        "import json\nfrom stair_es import resources\nfrom stair_es.model import registry\n"
        "from stair_es.model.base import ModelSpec\n"
        "from importlib.resources import files\n"
        "assert (files('stair_es.cluster.policy') / 'policy.painless').read_text()\n"
        "assert (files('stair_es.search') / 'templates' / 'tokens.mustache').read_text()\n"
        "bodies = [resources.load_json_resource('mappings', 'image'), resources.load_json_resource('pipelines', 'image')]\n"
        "spec = ModelSpec(name='stair-mini', backend='onnx', text_tower='table')\n"
        "print(json.dumps([len(bodies), registry.load_encoder(spec).encode_texts(['a dog'])[0].tokens[0]]))"
    )
    assert json.loads(_run_command(wheel_environment / "python", "-c", code, cwd=tmp_path)) == [2, "dog"]
    assert "stair-mini" in _run_command(wheel_environment / "stair-es", "encode", "--help", cwd=tmp_path)


def test_wheel_and_sdist_match_the_tree(dist_folder: Path) -> None:
    wheel, sdist = dist_files.find_archives(dist_folder)
    names = dist_files.list_tracked_files()
    assert dist_files.compare_wheel(wheel, names) == []
    assert dist_files.compare_sdist(sdist, names) == []
