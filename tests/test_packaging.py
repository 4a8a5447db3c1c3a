"""What is in the folders is in the package list, and what ships is in the wheel."""

import itertools
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())
PACKAGE_DIR = CONFIG["tool"]["setuptools"]["package-dir"]
SHIPPED = {".py", ".c", ".css", ".h", ".j2", ".js", ".S", ".json", ".mvn", ".pt", ".wav", ".yaml"}
SHIPPED_NAMES = {"py.typed", "seg_dict"}


def shipped_files() -> dict[str, Path]:
    """Every file to ship, by its path in the wheel."""
    files = {}
    for package, folder in PACKAGE_DIR.items():
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SHIPPED or path.name in SHIPPED_NAMES:
                inside = path.relative_to(ROOT / folder)
                files[f"{package.replace('.', '/')}/{inside.as_posix()}"] = path
    return files


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that no build/ folder is left or reused."""
    copy = tmp_path_factory.mktemp("source")
    for folder in PACKAGE_DIR.values():
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignore)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, copy)
    build = "from setuptools.build_meta import build_wheel as b; import sys; b(sys.argv[1])"
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [sys.executable, "-c", build, str(out)], cwd=copy, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return next(out.glob("*.whl"))


def test_every_folder_with_files_is_listed() -> None:
    folders = {Path(name).parent.as_posix().replace("/", ".") for name in shipped_files()}
    assert sorted(CONFIG["tool"]["setuptools"]["packages"]) == sorted(folders)


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {canonicalize_name(name): version for name, version in (x.split("==") for x in lines)}
    project = CONFIG["project"]
    asked = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    for requirement in map(Requirement, asked):
        if requirement.name in ("graphopt", "torch", "setuptools"):
            continue  # itself, and what `make venv` names apart
        version = pinned.get(canonicalize_name(requirement.name), "nothing")
        assert requirement.specifier.contains(version), f"{requirement} is pinned to {version}"


def test_wheel_has_every_file(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert set(shipped_files()) <= names
    assert not {n for n in names if n.split("/")[0] in {"passes", "codegen", "kernels", "tests"}}


def test_installed_wheel_imports_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import graphopt.cli, graphopt.kernels.registry as r, graphopt.passes.base as b\n"
        "print(r.__file__, b.__file__, r.ROOT, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    registry, base, root, torch = done.stdout.split()
    assert all(Path(p).is_relative_to(tmp_path) for p in (registry, base, root))
    assert torch == "False"


def test_bare_folders_cannot_be_imported(tmp_path: Path) -> None:
    code = "import importlib.util as u; print([u.find_spec(n) for n in ('passes', 'codegen')])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[None, None]"
