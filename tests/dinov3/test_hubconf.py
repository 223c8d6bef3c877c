"""dinov3/hubconf.py as torch.hub finds it."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from models.backbones.dinov3 import WEIGHTS, WEIGHTS_PAGE, build
from tests.conftest import HANG, ROOT
from tests.support.networks import randomized_dinov3

REPOSITORY = str(ROOT / "dinov3")


def load(entry: str, **options) -> torch.nn.Module:
    return torch.hub.load(REPOSITORY, entry, source="local", **options)


@pytest.fixture(scope="module", params=["vits16", pytest.param("convnext_tiny", marks=pytest.mark.full)])
def official(request, tmp_path_factory) -> tuple[str, torch.nn.Module, Path]:
    """A network, and its state dict in a file of the official form."""
    net = randomized_dinov3(build(request.param))
    path = tmp_path_factory.mktemp("weights") / WEIGHTS[request.param]
    torch.save(net.state_dict(), path)
    return f"dinov3_{request.param}", net, path


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_every_network_has_an_entry(name: str) -> None:
    with torch.device("meta"):
        net, same = load(f"dinov3_{name}", pretrained=False), build(name)
        assert list(net.state_dict()) == list(same.state_dict())
        with pytest.raises(FileNotFoundError, match=WEIGHTS[name]):
            load(f"dinov3_{name}", weights="nowhere.pth")


def test_a_file_of_the_official_form_loads(official) -> None:
    entry, net, path = official
    images = torch.randn(1, 3, 64, 96)
    for weights in (path, str(path)):
        loaded = load(entry, weights=weights)
        assert type(loaded).__name__ == type(net).__name__
        assert list(loaded.state_dict()) == list(net.state_dict())
        with torch.inference_mode():
            assert torch.equal(loaded.eval()(images), net(images))


def test_it_loads_from_any_folder_whatever_models_is_there(official, tmp_path: Path) -> None:
    """From the project's root, as documented, or by an absolute path beside another package named models."""
    entry, net, path = official
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("raise ImportError('another package named models')")
    repository, folder = ("dinov3", ROOT) if "vit" in entry else (REPOSITORY, tmp_path)
    code = (
        "import sys, torch; before = list(sys.path)\n"
        f"net = torch.hub.load({repository!r}, {entry!r}, source='local', weights={str(path)!r}).eval()\n"
        "assert sys.path == before\n"
        "assert 'models' not in sys.modules\n"
        "print(sum(p.double().sum() for p in net.parameters()).item())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(sum(p.double().sum() for p in net.parameters()).item())


@pytest.mark.parametrize("change", ["missing", "unexpected", "misshapen", "nested"])
def test_only_the_official_keys_load(official, tmp_path: Path, change: str) -> None:
    entry, net, _ = official
    state = dict(net.state_dict())
    key = next(key for key in state if key.endswith("gamma"))
    if change == "missing":
        del state[key]
    elif change == "unexpected":
        state["extra"] = torch.ones(1)
    elif change == "misshapen":
        state[key] = torch.ones(3)
    path = tmp_path / "weights.pth"
    torch.save({"model": state} if change == "nested" else state, path)
    expected = "not a dict of tensors" if change == "nested" else f"not the weights of {entry}"
    with pytest.raises(ValueError, match=expected):
        load(entry, weights=path)


def test_a_convnexts_last_norm_may_be_in_the_file_once(tmp_path: Path) -> None:
    net = randomized_dinov3(build("convnext_tiny"))
    state = {key: value for key, value in net.state_dict().items() if not key.startswith("norms.3.")}
    torch.save(state, tmp_path / "weights.pth")
    loaded = load("dinov3_convnext_tiny", weights=tmp_path / "weights.pth")
    assert torch.equal(loaded.norms[3].weight, net.norm.weight)


def test_a_loaded_network_can_be_pickled() -> None:
    """As worker processes need it; its classes are looked up in their module."""
    net = load("dinov3_vits16", pretrained=False)
    assert type(pickle.loads(pickle.dumps(net))) is type(net)


def test_random_weights_need_no_file() -> None:
    net = load("dinov3_vits16", pretrained=False)
    assert net.embed_dim == 384
    assert net(torch.zeros(1, 3, 32, 32)).isfinite().all()
    assert load("dinov3_convnext_tiny", pretrained=False, patch_size=16).patch_size == 16


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        ("nowhere/vits16.pth", FileNotFoundError, "there is no file nowhere/vits16.pth"),
        ("https://example.com/dinov3.pth", ValueError, "weights is the URL https://example.com/dinov3.pth, expected"),
    ],
)
def test_weights_that_are_not_on_disk(weights: str, error: type, message: str) -> None:
    with pytest.raises(error) as raised:
        load("dinov3_vits16", weights=weights)
    for part in (message, WEIGHTS_PAGE, WEIGHTS["vits16"], str(ROOT / "weights")):
        assert part in str(raised.value)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.pth").write_bytes(b"half")
    with pytest.raises(ValueError, match=r"half\.pth: not a weights file, or damaged"):
        load("dinov3_vits16", weights=tmp_path / "half.pth")


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    class Code:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"cls_token": Code()}, tmp_path / "code.pth")
    with pytest.raises(ValueError, match=r"code\.pth: not a weights file"):
        load("dinov3_vits16", weights=tmp_path / "code.pth")
    assert not (tmp_path / "ran").exists()


def test_the_readmes_files_are_those_that_are_looked_for() -> None:
    text = (ROOT / "dinov3" / "README.md").read_text()
    assert all(file in text and f"`dinov3_{name}`" in text for name, file in WEIGHTS.items())
