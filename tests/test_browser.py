"""Does report.html work in a real browser, on a desk and on a phone?"""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_reports import fabricate, half, make_study

from pais_bench.reporting import write_reports

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: Debian's package chromium has it")

HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"
FRAME = """<!doctype html><iframe id="page" style="width: %dpx; height: 800px; border: 0" src="report.html%s"></iframe>
<pre id="told"></pre><script>
document.getElementById("page").onload = (event) => {
  const page = event.target.contentDocument;
  const told = (() => { %s })();
  document.getElementById("told").textContent = JSON.stringify(told);
};
</script>"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the page of a half-finished grid with a hostile title and a hostile error."""
    folder = tmp_path_factory.mktemp("browser")
    study = make_study(folds=(1, 2)).model_copy(update={"title": HOSTILE})
    results = fabricate(study, folder / "results", half)
    run = next(run for run in study.runs() if run.method.label == "pais" and run.split.fold == 2)
    log = folder / "results" / "logs" / run.folder / "train.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"pais-bench train: error: {HOSTILE} {'word ' * 80}\n")
    write_reports(study, results, folder, "a study with a rather long name.yaml")
    return folder


def ask(folder: Path, script: str, width: int = 1280, at: str = "") -> Any:
    """Load the page in a frame so wide, and give what a script says of it."""
    (folder / "frame.html").write_text(FRAME % (width, at, script))
    words = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
        "--dump-dom",
    ]
    words += ["--virtual-time-budget=20000", f"--user-data-dir={folder / 'profile'}", f"file://{folder}/frame.html"]
    done = subprocess.run([CHROMIUM, *words], capture_output=True, text=True, timeout=120, check=False)
    (told,) = re.findall(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.DOTALL) or [""]
    assert told, done.stderr[-2000:]
    return json.loads(html.unescape(told))


SORT = """
const table = page.querySelector("#main_table table");
const column = (number) => [...table.tBodies[0].rows].map((row) => row.cells[number].textContent);
const press = (number) => table.tHead.rows[0].cells[number].querySelector("button").click();
const told = [];
press(2); told.push(column(2), table.tHead.rows[0].cells[2].ariaSort);
press(2); told.push(column(2), table.tHead.rows[0].cells[2].ariaSort);
press(1); told.push(column(1), table.tHead.rows[0].cells[2].ariaSort);
return told;
"""


def test_a_head_that_is_pressed_sorts_its_table(folder: Path) -> None:
    falling, first, rising, second, names, third = ask(folder, SORT)
    assert falling == ["12.5 (+2.5)†", "10.5 ± 0.7", "10.0 ± 0.7 (−0.5)"] and rising == falling[::-1]
    assert (first, second, third) == ("descending", "ascending", None)
    assert names == ["base_line", "pais", "worse"]


STICKS_OUT = """
const inside = (one) => one.closest(".wide") === null;
const all = [...page.body.querySelectorAll("*")].filter(inside);
const out = all.filter((one) => one.getBoundingClientRect().right > page.documentElement.clientWidth + 0.5);
const root = page.documentElement;
return [root.scrollWidth, root.clientWidth, out.map((one) => one.outerHTML.slice(0, 90))];
"""


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_sticks_out_at_the_side(folder: Path, width: int) -> None:
    scroll, client, out = ask(folder, STICKS_OUT, width)
    assert scroll == client == width and out == []


SAFE = """
const loaded = event.target.contentWindow.performance.getEntriesByType("resource");
const pictures = [...page.images];
return [page.title, loaded.map((one) => one.name).filter((name) => !name.startsWith("data:")),
  pictures.length, pictures.every((one) => one.complete && one.naturalWidth > 0),
  page.querySelector("h1").textContent, page.querySelectorAll("script").length];
"""


def test_it_asks_for_nothing_shows_every_picture_and_runs_no_hostile_word(folder: Path) -> None:
    title, asked, pictures, shown, head, scripts = ask(folder, SAFE)
    assert title.startswith("try_out: <img src=x") and head == HOSTILE and scripts == 1
    assert asked == [] and pictures == 5 and shown


def test_a_link_to_a_run_opens_it(folder: Path) -> None:
    script = 'return [...page.querySelectorAll("details")].map((one) => [one.id, one.open]);'
    (first, *_) = ask(folder, script)
    assert first[1] is False
    assert ask(folder, script, at=f"#{first[0]}")[0] == [first[0], True]
