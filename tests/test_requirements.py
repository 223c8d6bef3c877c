"""The requirement files: what each holds, and one onnxruntime wherever they are installed."""

import re
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement

from tests.conftest import ROOT

USERS, BLACKWELL, DEVELOPERS = "requirements.txt", "requirements_blackwell.txt", "requirements-dev.txt"
PLATFORMS = {
    "Linux x86-64": {"sys_platform": "linux", "platform_machine": "x86_64"},
    "Linux aarch64": {"sys_platform": "linux", "platform_machine": "aarch64"},
    "Windows": {"sys_platform": "win32", "platform_machine": "AMD64"},
    "macOS arm64": {"sys_platform": "darwin", "platform_machine": "arm64"},
    "macOS x86-64": {"sys_platform": "darwin", "platform_machine": "x86_64"},
}
HAS_GPU_WHEELS = ("Linux x86-64", "Windows")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def lines(name: str) -> Iterator[str]:
    """Lines without comments."""
    for line in (ROOT / name).read_text(encoding="utf-8").splitlines():
        line = re.sub(r"(^|\s+)#.*", "", line)
        if line:
            yield line


def requirements(name: str) -> list[Requirement]:
    """Requirements of a file, without those of a file that it includes."""
    return [Requirement(line) for line in lines(name) if not line.startswith("-r")]


def installed(name: str, platform: str, python: str) -> list[Requirement]:
    environment = {**PLATFORMS[platform], "python_version": python}
    return [r for r in requirements(name) if r.marker is None or r.marker.evaluate(environment)]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", [USERS, BLACKWELL])
def test_one_version_of_each_package_and_one_onnxruntime(name: str, platform: str, python: str) -> None:
    found = [r.name for r in installed(name, platform, python)]
    assert len(found) == len(set(found))
    assert set(found) >= {"torch", "torchvision", "numpy", "opencv-python", "PyYAML", "scipy"}
    expected = "onnxruntime-gpu" if platform in HAS_GPU_WHEELS else "onnxruntime"
    if name == BLACKWELL and python == "3.10":
        expected = "onnxruntime"  # none for CUDA 13
    assert [package for package in found if package.startswith("onnxruntime")] == [expected]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_developers_get_one_version_of_each_package_more(platform: str, python: str) -> None:
    added = [r.name for r in installed(DEVELOPERS, platform, python)]
    assert len(added) == len(set(added))
    assert set(added) >= {"pytest", "pytest-xdist", "hypothesis", "ruff", "transformers", "trackeval", "nbclient"}


def test_the_file_of_developers_includes_that_of_users_and_adds_to_it() -> None:
    assert next(lines(DEVELOPERS)) == f"-r {USERS}"
    assert not {r.name for r in requirements(DEVELOPERS)} & {r.name for r in requirements(USERS)}


def test_both_generations_differ_in_torch_and_onnxruntime_only() -> None:
    one, other = ({str(r) for r in requirements(name)} for name in (USERS, BLACKWELL))
    packages = {Requirement(line).name for line in one ^ other}
    assert packages == {"torch", "torchvision", "onnxruntime", "onnxruntime-gpu"}


def test_versions_are_pinned_or_bounded() -> None:
    for name in (USERS, BLACKWELL, DEVELOPERS):
        assert [str(r) for r in requirements(name) if not r.specifier] == []
