"use strict";
// Marks live in the page, a copy of them in the browser's storage, and on request in a file.
const facts = JSON.parse(document.getElementById("facts").textContent);
const find = (name) => document.getElementById(name);
const rows = [...document.querySelectorAll(".row")];
const storageName = `annotation-marks-${facts.sheet}`;
let current = 0;

const place = (row) => [Number(row.closest(".sample").dataset.episode), row.dataset.entry];
const scoreOf = (row) => row.querySelector("input:checked")?.value;
const errorMenu = (row) => row.querySelector("select");

const marks = () =>
  rows.filter(scoreOf).map((row) => {
    const [episode, entry] = place(row);
    const score = Number(scoreOf(row));
    return { episode, entry, score, error: score < 1 && errorMenu(row).value ? errorMenu(row).value : null };
  });

const content = () => ({ ...facts, marker: find("marker").value.trim(), marks: marks() });

const keep = () => {
  const whole = rows.filter((row) => row.dataset.entry === "sample" && scoreOf(row)).length;
  find("progress").value = whole;
  find("state").textContent = `${whole} of ${facts.samples} samples, ${marks().length} marks`;
  try {
    localStorage.setItem(storageName, JSON.stringify(content()));
    find("warning").textContent = "";
  } catch {
    find("warning").textContent = "This browser keeps nothing: save your marks before you close the page.";
  }
};

const mark = (row, score) => {
  for (const input of row.querySelectorAll("input")) input.checked = input.value === score;
  if (score) row.dataset.score = score;
  else delete row.dataset.score;
};

const restore = () => {
  let kept = null;
  try {
    kept = JSON.parse(localStorage.getItem(storageName));
  } catch {
    // keep() tells that nothing is kept
  }
  find("marker").value = kept?.marker ?? "";
  const known = new Map((kept?.marks ?? []).map((one) => [`${one.episode} ${one.entry}`, one]));
  for (const row of rows) {
    const one = known.get(place(row).join(" "));
    if (!one) continue;
    mark(row, String(one.score));
    errorMenu(row).value = one.error ?? "";
  }
};

const go = (index) => {
  rows[current]?.classList.remove("current");
  current = Math.min(Math.max(index, 0), rows.length - 1);
  rows[current].classList.add("current");
  rows[current].scrollIntoView({ block: "nearest" });
};

const nextSample = () => {
  const section = rows[current].closest(".sample").nextElementSibling;
  if (!section) return;
  go(rows.indexOf(section.querySelector(".row")));
  section.scrollIntoView({ block: "start" });
};

const keys = {
  ArrowDown: () => go(current + 1),
  ArrowUp: () => go(current - 1),
  n: nextSample,
  e: () => scoreOf(rows[current]) && scoreOf(rows[current]) !== "1" && errorMenu(rows[current]).focus(),
  Backspace: () => mark(rows[current], null),
};
for (const [key, score] of Object.entries({ 1: "1", 5: "0.5", 0: "0" })) {
  keys[key] = () => {
    mark(rows[current], score);
    if (score === "1") go(current + 1);
  };
}

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const isTyping = event.target.matches("select, input:not([type=radio])");
  if (isTyping) {
    if (event.key === "Escape" || event.key === "Enter") event.target.blur();
    return;
  }
  if (!keys[event.key]) return;
  event.preventDefault();
  keys[event.key]();
  keep();
});
rows.forEach((row, index) => {
  row.addEventListener("click", () => go(index));
  row.addEventListener("change", () => {
    mark(row, scoreOf(row));
    keep();
  });
});
find("marker").addEventListener("input", keep);
find("save").addEventListener("click", () => {
  const name = find("marker").value.trim().replace(/[^\p{L}\p{N}]+/gu, "-") || "marks";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content(), null, 1)], { type: "application/json" }));
  link.download = `marks-${name}.json`;
  link.click();
  URL.revokeObjectURL(link.href);
});
restore();
keep();
go(0);
