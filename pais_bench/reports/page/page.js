
"use strict";
// Sort a table by the column whose head is clicked: numbers by value, dashes last.
const DASH = "–";
const text = (row, column) => row.cells[column].textContent.trim().replaceAll("−", "-");
const value = (word) => {
  if (/^\d+:\d\d:\d\d$/.test(word)) return word.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
  const match = word.match(/^[[+]*(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)/i);
  return match ? Number(match[1]) : NaN;
};
const sort = (head, column) => {
  const body = head.closest("table").tBodies[0];
  const rising = head.ariaSort === null ? !head.classList.contains("number") : head.ariaSort === "descending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...body.rows].map((row, index) => ({ row, index, word: text(row, column) }));
  const empty = (entry) => entry.word === DASH || entry.word === "";
  const filled = rows.filter((entry) => !empty(entry));
  const numeric = filled.every((entry) => !Number.isNaN(value(entry.word)));
  const compare = (a, b) => numeric ? value(a.word) - value(b.word) : a.word.localeCompare(b.word, "en", { numeric: true });
  filled.sort((a, b) => (rising ? compare(a, b) : compare(b, a)) || a.index - b.index);
  body.append(...[...filled, ...rows.filter(empty)].map((entry) => entry.row));
};
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(head, head.cellIndex));
}

// Turn each group of tabs into a tab list that the arrow keys move through. Without this script all of it is shown.
const select = (buttons, chosen) => {
  for (const button of buttons) {
    const selected = button === chosen;
    button.setAttribute("aria-selected", selected);
    button.tabIndex = selected ? 0 : -1;
    document.getElementById(button.getAttribute("aria-controls")).hidden = !selected;
  }
};
const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
for (const group of document.querySelectorAll(".tabs")) {
  const list = document.createElement("div");
  list.className = "tablist";
  list.setAttribute("role", "tablist");
  list.setAttribute("aria-label", group.getAttribute("aria-label"));
  const buttons = [...group.children].map((panel) => {
    const button = document.createElement("button");
    button.type = "button";
    button.id = `${panel.id}-button`;
    button.textContent = panel.dataset.title;
    button.setAttribute("role", "tab");
    button.setAttribute("aria-controls", panel.id);
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", button.id);
    return button;
  });
  buttons.forEach((button, index) => {
    button.addEventListener("click", () => select(buttons, button));
    button.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (step === undefined) return;
      event.preventDefault();
      const count = buttons.length;
      const next = Number.isFinite(step) ? (index + step + count) % count : step < 0 ? 0 : count - 1;
      select(buttons, buttons[next]);
      buttons[next].focus();
    });
  });
  list.append(...buttons);
  group.prepend(list);
  if (buttons.length) select(buttons, buttons[0]);
}
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let tab = target.closest(".tab"); tab; tab = tab.parentElement.closest(".tab")) {
    document.getElementById(`${tab.id}-button`).click();
  }
  if (target instanceof HTMLDetailsElement) target.open = true;
  target.scrollIntoView();
};
addEventListener("hashchange", open);
open();

// Show an image of the examples in the whole window, and back.
for (const image of document.querySelectorAll(".gallery svg")) {
  image.addEventListener("click", () => image.classList.toggle("large"));
  image.addEventListener("keydown", (event) => {
    if (event.key === "Enter") image.classList.toggle("large");
    if (event.key === "Escape") image.classList.remove("large");
  });
}

// Show the numbers of a mask beside the pointer.
const tip = document.createElement("div");
tip.className = "tip";
tip.hidden = true;
document.body.append(tip);
document.addEventListener("pointerover", (event) => {
  const shape = event.target.closest("[data-text]");
  tip.hidden = !shape;
  if (!shape) return;
  tip.textContent = shape.dataset.text;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
});
