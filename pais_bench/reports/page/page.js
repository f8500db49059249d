
"use strict";
// Sort a table by the column whose head is clicked: numbers by value, dashes last; and open the run that is linked to.
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
const open = () => {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (target instanceof HTMLDetailsElement) { target.open = true; target.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
