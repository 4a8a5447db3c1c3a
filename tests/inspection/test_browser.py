"""The page as somebody uses it, in headless Chromium: `make test-page` has all that it needs."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import graphopt

PAGE = Path(__file__).parents[2] / "page"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What page/test/browser.mjs saw of the page of a small model."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed: make test-page")
    if shutil.which("node") is None or not (PAGE / "node_modules" / "playwright-core").exists():
        pytest.skip("playwright-core is not installed: make test-page")
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(32, 2, 64, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(32, 8)).eval()
    with graphopt.keep_stages():
        fast = graphopt.optimize(
            model, precision="int8", example_inputs=(torch.randn(2, 6, 32),), check=False
        )
    path = fast.inspect(tmp_path_factory.mktemp("page") / "report.html")
    command = ["node", str(PAGE / "test" / "browser.mjs"), str(path), chromium]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_it_asks_for_nothing_and_complains_of_nothing(seen: dict[str, Any]) -> None:
    assert seen["console"] == []
    (only,) = seen["requests"]
    assert only.startswith("file://")
    assert seen["title"] == "Sequential: graphopt" and "Speed-up" in seen["facts"]


def test_keys_go_from_pass_to_pass(seen: dict[str, Any]) -> None:
    passes = [step["pass"] for step in seen["steps"]]
    assert passes == sorted(set(passes)) and seen["steps"][0]["name"] == "lower_aten"
    assert {int(step["weight"]) >= 600 for step in seen["steps"]} == {True}
    assert int(seen["idle"]["weight"]) < 600  # a pass that changed nothing is not bold


def test_the_slider_shows_what_a_pass_did(seen: dict[str, Any]) -> None:
    assert seen["slid"]["pass"] == seen["slid"]["wanted"]
    assert seen["slid"]["title"].startswith("select_kernels") and "changed" in seen["slid"]["title"]
    assert seen["changes"] > 5


def test_a_click_chooses_the_node_that_is_there(seen: dict[str, Any]) -> None:
    assert seen["cleared"] == "" and seen["chosen"]
    assert seen["clicked"] == seen["chosen"] and seen["chosen"] in seen["pane"]
    (x, y), (moved_x, moved_y) = (map(int, seen[p].split()) for p in ("place", "panned"))
    assert (moved_x, moved_y) == (x, y - 100)


def test_search_goes_from_one_node_to_the_next(seen: dict[str, Any]) -> None:
    assert int(seen["hits"]) >= 4
    first, second = seen["found"]
    assert first and second and first != second
    assert seen["foundPane"].startswith("linear")


def test_every_view_has_an_address_and_fits_a_phone(seen: dict[str, Any]) -> None:
    assert len(seen["views"]) == 6 and min(seen["views"].values()) > 20
    assert seen["pictures"] == 2
    assert seen["overflow"] <= 0
    assert seen["background"] == "rgb(19, 20, 23)"
