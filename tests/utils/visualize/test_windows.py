import numpy as np
import pytest

from utils.errors import UserError
from utils.visualize.windows import check_display


def test_no_window_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="--show needs a display"):
        check_display("--show")


@pytest.mark.parametrize("variable", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_a_display_is_enough(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, ":0")
    check_display("--show")


def test_matplotlib_window_is_closed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    matplotlib.use("Agg", force=True)
    from matplotlib import pyplot

    from utils.visualize.windows import show_with_matplotlib

    monkeypatch.setattr(pyplot, "show", lambda: None)
    show_with_matplotlib("a", np.zeros((4, 4, 3), np.uint8))
    assert pyplot.get_fignums() == []
