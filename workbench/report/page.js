"use strict";
// Theme: the system's, until the button is used. Bokeh draws on a canvas, so its colours are set.
const root = document.documentElement;
const button = document.getElementById("theme");
const data = JSON.parse(document.getElementById("data").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
let chosen = null;

function models() {
  return Bokeh.documents.flatMap((doc) => [...doc.all_models]);
}

function paint(theme) {
  root.dataset.theme = theme;
  button.textContent = theme === "dark" ? "Light" : "Dark";
  const style = getComputedStyle(root);
  const [bg, fg, dim, line, soft] = ["bg", "fg", "dim", "line", "soft"].map(
    (name) => style.getPropertyValue(`--${name}`).trim());
  for (const model of models()) {
    const type = model.type;
    if (type === "Figure" || type === "Plot") {
      model.setv({ background_fill_color: bg, border_fill_color: bg, outline_line_color: line });
    } else if (type.endsWith("Axis")) {
      model.setv({ axis_label_text_color: dim, major_label_text_color: fg, axis_line_color: line,
        major_tick_line_color: line, minor_tick_line_color: null, axis_label_text_font_style: "normal" });
    } else if (type === "Grid") {
      model.setv({ grid_line_color: line });
    } else if (type === "Title") {
      model.setv({ text_color: fg });
    } else if (type === "Legend") {
      model.setv({ background_fill_color: bg, label_text_color: fg, border_line_color: null });
    } else if (type === "ColorBar") {
      model.setv({ background_fill_color: bg, major_label_text_color: fg });
    } else if (type === "Label") {
      model.setv({ text_color: dim });
    } else if (type === "BoxAnnotation") {
      model.setv({ fill_color: fg, line_color: null });
    } else if (model.tags && model.tags.includes("heat")) {
      model.setv({ palette: data.heat[theme] });
    }
  }
}

function theme() {
  return chosen ?? (dark.matches ? "dark" : "light");
}

button.addEventListener("click", () => {
  chosen = theme() === "dark" ? "light" : "dark";
  paint(chosen);
});
dark.addEventListener("change", () => paint(theme()));
root.dataset.theme = theme();
Bokeh.embed.embed_item(data.item, "pictures").then(() => {
  paint(theme());
  root.dataset.ready = "yes";
});

// Tables: a click on a column sorts by it, another one turns the order around.
function value(row, column) {
  const cell = row.cells[column];
  return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
}

for (const section of document.querySelectorAll("section")) {
  const body = section.querySelector("tbody");
  const heads = [...section.querySelectorAll("th")];
  heads.forEach((head, column) => {
    const numeric = body.rows[0]?.cells[column].classList.contains("n") ?? false;
    head.classList.toggle("n", numeric);
    head.querySelector("button").addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      const down = before === null ? numeric : before === "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const rows = [...body.rows].sort((a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        const order = numeric ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
  section.querySelector("input").addEventListener("input", (event) => {
    const wanted = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(wanted);
  });
}
