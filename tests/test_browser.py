"""Check report.html in a real browser, in the width of a desktop and of a phone."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from test_reports import fabricate, half, make_study

from pais_bench.reports.write import write_reports

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: Debian's package chromium has it")

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
FRAME = """<!doctype html><iframe id="page" style="width: %dpx; height: 800px; border: 0" src="report.html%s"></iframe>
<pre id="result"></pre><script>
document.getElementById("page").onload = (event) => {
  const page = event.target.contentDocument;
  const until = async (holds) => { while (!holds()) await new Promise((done) => setTimeout(done, 50)); };
  (async () => { %s })().catch(String).then((result) => {
    document.getElementById("result").textContent = JSON.stringify(result);
  });
};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of an unfinished grid with a hostile title and a hostile error."""
    folder = tmp_path_factory.mktemp("browser")
    study = make_study(folds=(1, 2)).model_copy(update={"title": HOSTILE})
    results = fabricate(study, folder / "results", half)
    run = next(run for run in study.runs() if run.method.label == "pais" and run.split.fold == 2)
    log = folder / "results" / "logs" / run.folder / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"pais-bench train: error: {HOSTILE} {'word ' * 80}\n")
    write_reports(study, results, folder, "a study with a rather long name.yaml")
    return folder


def evaluate(folder: Path, script: str, width: int = 1280, at: str = "") -> Any:
    """Load the page in a frame of a width in pixels, and return the result of a script."""
    (folder / "frame.html").write_text(FRAME % (width, at, script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
    options += [
        "--dump-dom",
        "--enable-logging=stderr",
        "--virtual-time-budget=20000",
        f"--user-data-dir={folder / 'profile'}",
        f"file://{folder}/frame.html",
    ]
    done = subprocess.run([CHROMIUM, *options], capture_output=True, text=True, timeout=120, check=False)
    (result,) = re.findall(r'<pre id="result">(.*?)</pre>', done.stdout, flags=re.DOTALL) or [""]
    assert result, done.stderr[-2000:]
    assert ":CONSOLE" not in done.stderr, done.stderr[-2000:]
    return json.loads(html.unescape(result))


SORT = """
const table = page.querySelector("#main_table table");
const column = (number) => [...table.tBodies[0].rows].map((row) => row.cells[number].textContent);
const press = (number) => table.tHead.rows[0].cells[number].querySelector("button").click();
const result = [];
press(2); result.push(column(2), table.tHead.rows[0].cells[2].ariaSort);
press(2); result.push(column(2), table.tHead.rows[0].cells[2].ariaSort);
press(1); result.push(column(1), table.tHead.rows[0].cells[2].ariaSort);
return result;
"""


def test_a_click_on_a_column_head_sorts_the_table(folder: Path) -> None:
    falling, first, rising, second, names, third = evaluate(folder, SORT)
    assert falling == ["12.5 (+2.5)†", "10.5 ± 0.7", "10.0 ± 0.7 (−0.5)"] and rising == falling[::-1]
    assert (first, second, third) == ("descending", "ascending", None)
    assert names == ["base_line", "pais", "worse"]


OVERFLOW = """
const all = [...page.body.querySelectorAll("*")].filter((element) => element.closest(".wide") === null);
const plot = page.querySelector(".plot");
if (plot) plot.scrollIntoView();
await until(() => !plot || plot.querySelector(".trace"));
const outside = all.filter((element) => element.getBoundingClientRect().right > page.documentElement.clientWidth + 0.5);
const root = page.documentElement;
return [root.scrollWidth, root.clientWidth, outside.map((element) => element.outerHTML.slice(0, 90))];
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_horizontally(folder: Path, width: int) -> None:
    scroll, client, outside = evaluate(folder, OVERFLOW, width)
    assert scroll == client == width and outside == []


SAFE = """
const loaded = event.target.contentWindow.performance.getEntriesByType("resource");
const images = [...page.images];
return [page.title, loaded.map((entry) => entry.name).filter((name) => !name.startsWith("data:")),
  images.length, images.every((image) => image.complete && image.naturalWidth > 0),
  page.querySelector("h1").textContent];
"""


def test_it_loads_nothing_shows_every_image_and_runs_no_hostile_script(folder: Path) -> None:
    title, loaded, images, shown, head = evaluate(folder, SAFE)
    assert title.startswith("try_out: <img src=x") and head == HOSTILE
    assert loaded == [] and images == (0 if find_spec("plotly") else 5) and shown


def test_a_link_to_a_run_opens_it(folder: Path) -> None:
    script = 'return [...page.querySelectorAll("details")].map((run) => [run.id, run.open]);'
    (first, *_) = evaluate(folder, script)
    assert first[1] is False
    assert evaluate(folder, script, at=f"#{first[0]}")[0] == [first[0], True]


TABS = """
const list = page.querySelector("#tabs > .tablist");
const tabs = [...list.children];
const open = () => [...page.querySelectorAll("#tabs > .tab")].filter((tab) => !tab.hidden);
const shown = () => open().map((tab) => tab.dataset.title);
const key = (name) => {
  const event = new KeyboardEvent("keydown", { key: name, bubbles: true, cancelable: true });
  page.activeElement.dispatchEvent(event);
};
const result = [shown()];
tabs[0].focus();
for (const name of ["ArrowRight", "End", "ArrowRight", "ArrowLeft"]) {
  key(name);
  result.push([...shown(), page.activeElement.textContent, tabs.filter((tab) => tab.tabIndex === 0).length]);
}
return result;
"""


def test_arrow_keys_move_through_the_tabs_and_one_is_shown(folder: Path) -> None:
    first, second, last, wrapped, back = evaluate(folder, TABS)
    assert first == ["Significance"] and second == ["Speed and cost", "Speed and cost", 1]
    assert last == ["Runs", "Runs", 1] and wrapped == ["Significance", "Significance", 1] and back == last


LEGEND = """
for (const name of ["convergence", "label_efficiency"]) {
  page.getElementById(name).scrollIntoView();
  await until(() => page.querySelector(`#${name} .plot .trace`));
}
const lines = () => [...page.querySelectorAll(".js-plotly-plot")].map(
  (plot) => plot._fullData.filter((trace) => trace.visible === true && trace.name === "pais").length > 0);
const [button] = [...page.querySelectorAll("#convergence .legend button")].filter((one) => one.dataset.key === "pais");
const pressed = () => [...page.querySelectorAll('.legend [data-key="pais"]')].map((one) => one.ariaPressed);
const result = [lines()];
button.click(); result.push(lines(), pressed());
button.click(); result.push(lines(), pressed());
return [...result, page.querySelectorAll(".plot").length, page.querySelectorAll(".panel.empty").length,
  page.querySelector("#convergence .plot")._fullLayout.yaxis.range[0]];
"""


def test_a_name_of_the_legend_switches_its_lines_in_every_figure(folder: Path) -> None:
    pytest.importorskip("plotly")
    before, without, off, again, on, plots, empty, low = evaluate(folder, LEGEND)
    assert len(before) > 1 and before == again and True in before and not any(without)
    assert set(off) == {"false"} and set(on) == {"true"}
    assert plots > len(before), "figures behind tabs are drawn when they are shown"
    assert empty and low == 0


PRINT = """
const view = page.defaultView;
await until(() => view.Plotly);
const plots = [...page.querySelectorAll(".plot")];
const shown = () => plots.filter((plot) => plot.clientWidth > 0);
const fits = (plot) => Math.abs(plot.querySelector(".main-svg").clientWidth - plot.clientWidth) < 1.5;
view.dispatchEvent(new view.Event("beforeprint"));
const printed = [plots.length, shown().length, plots.every(fits), page.body.clientWidth];
view.dispatchEvent(new view.Event("afterprint"));
await until(() => shown().every(fits));
return [...printed, shown().length, page.body.clientWidth];
"""


def test_a_sheet_of_paper_has_every_figure_in_its_width(folder: Path) -> None:
    pytest.importorskip("plotly")
    plots, printed, fitting, sheet, shown, window = evaluate(folder, PRINT)
    assert plots == printed > shown > 0 and fitting and sheet < window
