"""What is shipped, and the rules of the code's layout."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import pgworker

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ("requirements.lock", "requirements-run.lock")
# Folders of the checkout that hold packages, and what the packages are called.
PACKAGE_DIRS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
SUB_PACKAGES = {name: folder for name, folder in PACKAGE_DIRS.items() if "." in name}


def program(name: str) -> str:
    """Return a program of the environment that runs the tests."""
    return str(Path(sysconfig.get_path("scripts"), name))


def packages_in_folders() -> set[str]:
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "pgworker").rglob("__init__.py")
    }
    for name, folder in SUB_PACKAGES.items():
        found.add(name)
        found |= {
            ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
            for path in (ROOT / folder).rglob("__init__.py")
        }
    return found


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that `make test-wheel` has built, or else one built here, from an sdist."""
    if given := os.environ.get("PGWORKER_TEST_WHEEL"):
        return zipfile.ZipFile(next((ROOT / given / "dist").glob("*.whl")))
    out = tmp_path_factory.mktemp("wheel")
    # A copy: a build leaves files beside the sources, and xdist's workers share the checkout.
    source = out / "source"
    shutil.copytree(
        ROOT,
        source,
        ignore=shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__"),
    )
    subprocess.run(
        [program("pyproject-build"), "--outdir", str(out), str(source)],
        check=True,
        capture_output=True,
    )
    return zipfile.ZipFile(next(out.glob("*.whl")))


# -- the wheel --------------------------------------------------------------------------------


def test_the_list_of_packages_names_every_folder_with_code() -> None:
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == packages_in_folders()


def test_the_wheel_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert "pgworker/py.typed" in wheel.namelist()


def test_the_wheel_holds_every_module_and_every_sql_file(wheel: zipfile.ZipFile) -> None:
    expected = {path.relative_to(ROOT).as_posix() for path in (ROOT / "pgworker").rglob("*.py")} | {
        f"{name.replace('.', '/')}/{path.relative_to(ROOT / folder).as_posix()}"
        for name, folder in SUB_PACKAGES.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in {".py", ".sql"}
    }
    assert any(name.startswith("pgworker/sql/migrations/") for name in expected)
    assert expected - set(wheel.namelist()) == set()


def test_the_wheel_holds_every_page_of_the_console_and_what_it_is_made_of(
    wheel: zipfile.ZipFile,
) -> None:
    console = ROOT / "pgworker" / "api" / "console"
    expected = {
        path.relative_to(ROOT).as_posix()
        for folder in ("templates", "static")
        for path in (console / folder).rglob("*")
        if path.is_file()
    }
    assert any(name.endswith(".html") for name in expected)
    assert expected - set(wheel.namelist()) == set()


def test_the_wheel_holds_nothing_but_the_package_and_its_licence(wheel: zipfile.ZipFile) -> None:
    folders = {name.split("/")[0] for name in wheel.namelist()}
    version = PROJECT["project"]["version"]
    assert folders == {"pgworker", f"pgworker-{version}.dist-info"}
    assert not [name for name in wheel.namelist() if "test" in name.split("/")]
    assert f"pgworker-{version}.dist-info/licenses/LICENSE" in wheel.namelist()


@pytest.mark.skipif("PGWORKER_TEST_WHEEL" not in os.environ, reason="run by make test-wheel")
def test_the_tests_of_the_wheel_import_the_wheel() -> None:
    assert Path(pgworker.__file__).is_relative_to(sysconfig.get_path("purelib"))


# -- the public names -------------------------------------------------------------------------


def test_the_public_names_are_sorted_and_can_be_imported() -> None:
    assert list(pgworker.__all__) == sorted(pgworker.__all__)
    assert [name for name in pgworker.__all__ if not hasattr(pgworker, name)] == []


def test_the_command_can_be_imported() -> None:
    (script,) = importlib.metadata.entry_points(group="console_scripts", name="pgworker")
    assert callable(script.load())


def test_the_library_does_not_import_its_command_line() -> None:
    code = "import sys, pgworker; sys.exit(any(m.startswith('pgworker.cli') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- versions ---------------------------------------------------------------------------------


def test_the_installed_version_is_the_one_of_the_checkout() -> None:
    assert importlib.metadata.version("pgworker") == PROJECT["project"]["version"]


@pytest.mark.skipif(not (ROOT / "CHANGELOG.md").exists(), reason="there is no changelog yet")
def test_the_changelog_has_the_version() -> None:
    titles = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert PROJECT["project"]["version"] in titles or titles[:1] == ["Unreleased"]


def locked_versions(lock: str) -> dict[str, Version]:
    lines = re.findall(r"^([\w.-]+)==([^ ;]+)", (ROOT / lock).read_text(), re.MULTILINE)
    return {canonicalize_name(name): Version(version) for name, version in lines}


@pytest.mark.parametrize(
    ("lock", "groups"),
    [("requirements.lock", ("build", "dev")), ("requirements-run.lock", ("build",))],
)
def test_the_lock_satisfies_everything_that_pyproject_asks_for(
    lock: str, groups: tuple[str, ...]
) -> None:
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [
        Requirement(text)
        for texts in (
            PROJECT["project"]["dependencies"],
            *extras.values(),
            *(PROJECT["dependency-groups"][group] for group in groups),
        )
        for text in texts
    ]
    locked = locked_versions(lock)
    unmet = [
        str(requirement)
        for requirement in asked
        if requirement.name != "pgworker"
        and not (
            (version := locked.get(canonicalize_name(requirement.name)))
            and requirement.specifier.contains(version)
        )
    ]
    assert unmet == []


def test_the_packages_that_run_pgworker_are_locked_to_tested_versions() -> None:
    tested, run = (locked_versions(lock) for lock in LOCKS)
    assert run.items() <= tested.items()
    assert len(run) < len(tested)


@pytest.mark.parametrize("lock", LOCKS)
def test_everything_in_the_lock_has_a_hash(lock: str) -> None:
    entries = re.split(r"^(?=[\w.-]+==)", (ROOT / lock).read_text(), flags=re.MULTILINE)
    assert [e.split()[0] for e in entries if e.strip() and "--hash=sha256:" not in e] == []


def test_the_promised_versions_of_python_are_the_ones_that_are_allowed() -> None:
    prefix = "Programming Language :: Python :: 3."
    promised = [c for c in PROJECT["project"]["classifiers"] if c.startswith(prefix)]
    allowed = SpecifierSet(PROJECT["project"]["requires-python"])
    assert promised
    assert all(allowed.contains(f"{c.rsplit(' ', 1)[1]}.0") for c in promised)
    assert not allowed.contains("3.10.9")


# -- the layout -------------------------------------------------------------------------------


def test_no_floor_imports_from_one_above(tmp_path: Path) -> None:
    checked = subprocess.run(
        [program("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_module_has_chosen_its_floor() -> None:
    floors = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    chosen = {name for floor in floors for name in re.findall(r"pgworker\.(\w+)", floor)}
    modules = {
        path.stem if path.suffix else path.name
        for path in (ROOT / "pgworker").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert modules - {"__init__"} <= chosen


def test_no_test_folder_is_a_package() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []


# -- the image --------------------------------------------------------------------------------


def dockerfile_copies() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


def test_the_image_is_built_from_every_folder_that_holds_a_package() -> None:
    assert set(PACKAGE_DIRS.values()) <= set(dockerfile_copies())


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    allowed = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    assert set(dockerfile_copies()) == set(allowed)
    assert [source for source in dockerfile_copies() if not (ROOT / source).exists()] == []


def test_the_image_runs_the_worker_as_a_plain_user_that_can_drain() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert re.search(r"^USER [1-9]\d*$", text, re.MULTILINE)
    assert 'ENTRYPOINT ["pgworker"]' in text
    assert 'CMD ["run"]' in text
    assert "STOPSIGNAL SIGTERM" in text
