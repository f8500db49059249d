
// Draw each panel of the interactive figures when it comes into view, in the colours of the page. The library that draws
// them takes longer to start than the page, so it is unpacked behind the tables, which can be read meanwhile.
const start = async () => {
  const packed = document.getElementById("library");
  if (!packed) return;
  const bytes = Uint8Array.from(atob(packed.textContent), (character) => character.charCodeAt(0));
  const script = document.createElement("script");
  script.textContent = await new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  document.body.append(script);
  for (const plot of plots) observer.observe(plot);
};
const charts = JSON.parse(document.getElementById("charts").textContent);
const root = document.documentElement;
const hiddenKeys = new Set();
const drawn = new Set();
const coarse = matchMedia("(pointer: coarse)");
const dark = matchMedia("(prefers-color-scheme: dark)");
const GREY = "#595959";
const recoloured = (value, grey) => {
  if (value === GREY) return grey;
  if (value === null || typeof value !== "object" || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, recoloured(inner, grey)]));
};
const draw = (plot) => {
  const panel = charts[plot.closest(".chart").dataset.chart][plot.dataset.panel];
  const css = getComputedStyle(root);
  const colour = (name) => css.getPropertyValue(name).trim();
  const axis = (own) => ({
    gridcolor: colour("--rule"), linecolor: colour("--pale"), tickcolor: colour("--pale"), ticks: "outside", ticklen: 4,
    showline: true, zeroline: false, nticks: 6, ...own, title: { font: { size: 12 }, standoff: 6, ...own.title },
  });
  const traces = panel.traces.map((trace) => ({
    ...recoloured(trace, colour("--grey")), visible: !hiddenKeys.has(trace.legendgroup),
  }));
  const sheet = root.classList.contains("printed") ? { width: plot.clientWidth, height: plot.clientHeight } : {};
  const layout = {
    ...panel.layout, ...sheet, xaxis: axis(panel.layout.xaxis), yaxis: axis(panel.layout.yaxis),
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 46, r: 10, t: 8, b: 42 },
    font: { family: css.fontFamily || "sans-serif", size: 11.5, color: colour("--ink") }, showlegend: false,
    hovermode: "closest", dragmode: coarse.matches ? false : "zoom", uirevision: true,
    hoverlabel: { bgcolor: colour("--paper"), bordercolor: colour("--pale"), align: "left",
      font: { color: colour("--ink"), size: 12 }, namelength: -1 },
  };
  Plotly.react(plot, traces, layout, { displayModeBar: false, responsive: true, doubleClick: "reset" });
  drawn.add(plot);
};
// One panel that cannot be drawn is named in its place, and costs no other.
const fail = (plot, error) => {
  drawn.delete(plot);
  plot.className = "warned";
  plot.textContent = `This panel could not be drawn (${error.message}); the PDF and PNG below show it.`;
};
const attempt = (plot) => {
  try {
    draw(plot);
  } catch (error) {
    fail(plot, error);
  }
};
const plots = document.querySelectorAll(".plot");
const observer = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    attempt(target);
  }
}, { rootMargin: "300px" });
addEventListener("load", () => setTimeout(() => start().catch((error) => plots.forEach((plot) => fail(plot, error)))));
const redraw = () => [...drawn].forEach(attempt);
dark.addEventListener("change", redraw);
// A sheet of paper shows every tab, and has its own width, to which figures are drawn before it is laid out.
addEventListener("beforeprint", () => { root.classList.add("printed"); plots.forEach(attempt); });
addEventListener("afterprint", () => {
  root.classList.remove("printed");
  redraw();
  drawn.forEach((plot) => Plotly.Plots.resize(plot));
});

// A name of a legend switches its lines in every figure of the page; two clicks show it alone.
const switches = [...document.querySelectorAll(".legend button[data-key]")];
const press = () => {
  for (const button of switches) button.setAttribute("aria-pressed", !hiddenKeys.has(button.dataset.key));
  redraw();
};
for (const button of switches) {
  const key = button.dataset.key;
  button.addEventListener("click", () => { if (!hiddenKeys.delete(key)) hiddenKeys.add(key); press(); });
  button.addEventListener("dblclick", () => {
    for (const other of switches) hiddenKeys.add(other.dataset.key);
    hiddenKeys.delete(key);
    press();
  });
}
for (const button of document.querySelectorAll(".legend button[data-all]")) {
  button.addEventListener("click", () => { hiddenKeys.clear(); press(); });
}
