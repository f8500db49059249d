
"use strict";
// Sorts a table by the column whose head is pressed: numbers by value, dashes last; and opens the run that is linked to.
const DASH = "–";
const text = (row, column) => row.cells[column].textContent.trim().replaceAll("−", "-");
const value = (word) => {
  if (/^\d+:\d\d:\d\d$/.test(word)) return word.split(":").reduce((sum, part) => 60 * sum + Number(part), 0);
  const found = word.match(/^[[+]*(-?\d+(?:\.\d+)?(?:e[-+]?\d+)?)/i);
  return found ? Number(found[1]) : NaN;
};
const sort = (head, column) => {
  const body = head.closest("table").tBodies[0];
  const rising = head.ariaSort === null ? !head.classList.contains("number") : head.ariaSort === "descending";
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const rows = [...body.rows].map((row, place) => ({ row, place, word: text(row, column) }));
  const told = rows.filter((one) => one.word !== DASH && one.word !== "");
  const numeric = told.every((one) => !Number.isNaN(value(one.word)));
  const compare = (a, b) => numeric ? value(a.word) - value(b.word) : a.word.localeCompare(b.word, "en", { numeric: true });
  told.sort((a, b) => (rising ? compare(a, b) : compare(b, a)) || a.place - b.place);
  body.append(...told.map((one) => one.row), ...rows.filter((one) => !(one.word !== DASH && one.word !== "")).map((one) => one.row));
};
for (const head of document.querySelectorAll("thead th")) {
  const button = document.createElement("button");
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => sort(head, head.cellIndex));
}
const open = () => {
  const chosen = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (chosen instanceof HTMLDetailsElement) { chosen.open = true; chosen.scrollIntoView(); }
};
addEventListener("hashchange", open);
open();
