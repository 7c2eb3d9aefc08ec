"use strict";
// The page is whole without this script; it adds sorting, filtering, what is said on touch, and the theme.
(() => {
  const root = document.documentElement;
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  root.classList.add("js");

  // Theme: the system's until the button is pressed; remembered where the browser allows it.
  const theme = document.getElementById("theme");
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("frostbench-theme"); } catch { /* a file without storage */ }
  const dress = () => {
    const dark = chosen ? chosen === "dark" : systemDark.matches;
    root.style.colorScheme = chosen || "";
    theme.textContent = dark ? "Light theme" : "Dark theme";
    return dark;
  };
  theme.addEventListener("click", () => {
    chosen = dress() ? "light" : "dark";
    try { localStorage.setItem("frostbench-theme", chosen); } catch { /* the choice lasts as long as the page */ }
    dress();
  });
  systemDark.addEventListener("change", dress);
  dress();

  // Boards: one at a time.
  const views = all(".view");
  const showBoard = (key) => {
    for (const view of views) view.hidden = view.id !== key;
    for (const button of all("[data-board]")) button.setAttribute("aria-pressed", String(button.dataset.board === key));
  };
  for (const button of all("[data-board]")) button.addEventListener("click", () => showBoard(button.dataset.board));
  if (views.length > 1) showBoard((location.hash.match(/^#(b\d+)/) || [null, views[0].id])[1]);

  // Links to a board's sections.
  for (const view of views) {
    for (const section of all("section", view)) {
      const link = document.createElement("a");
      link.href = `#${section.id}`;
      link.textContent = section.dataset.short;
      view.querySelector(".sections").append(link);
    }
  }

  // Choices: of what belongs together, one is shown.
  const choose = (control) => {
    for (const part of all(`[data-switched="${control.dataset.switch}"]`)) part.hidden = part.dataset.choice !== control.value;
  };
  for (const control of all("select[data-switch], [data-switch]:checked")) choose(control);
  document.addEventListener("change", (event) => {
    if (event.target.dataset.switch) choose(event.target);
  });

  // Sorting: a heading's first press puts the best on top, the second turns the order over; gaps stay below.
  const places = new Map(all(".board tr[data-u]").map((row, place) => [row, place]));
  const sorted = (table) => {
    const rows = all("tr[data-u]", table).sort((a, b) => places.get(a) - places.get(b));
    const heading = table.querySelector("[aria-sort]");
    if (!heading) return rows;
    const value = (row) => row.cells[heading.cellIndex].dataset.sort ?? "";
    const textual = heading.cellIndex === 0;
    const sign = heading.getAttribute("aria-sort") === "ascending" ? 1 : -1;
    return rows.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return (textual ? x.localeCompare(y) : x - y) * sign;
    });
  };
  // Grouping: the families in their order, each below a heading, and in each the order of the table.
  const laneHeading = (row) => {
    const [heading, cell, name, size] = ["tr", "th", "span", "small"].map((tag) => document.createElement(tag));
    heading.className = "lane";
    heading.dataset.lane = row.dataset.lane;
    cell.colSpan = row.cells.length;
    cell.scope = "rowgroup";
    name.textContent = row.dataset.family || "family not recorded";
    name.append(" ", size);
    cell.append(name);
    heading.append(cell);
    return heading;
  };
  const arrange = (table) => {
    const body = table.tBodies[0];
    const grouped = !!table.closest(".view").querySelector("[data-grouped]:checked");
    table.classList.toggle("grouped", grouped);
    for (const heading of all(".lane", body)) heading.remove();
    const rows = sorted(table);
    if (grouped) rows.sort((a, b) => a.dataset.lane - b.dataset.lane);
    const begins = (i) => grouped && rows[i].dataset.lane !== rows[i - 1]?.dataset.lane;
    body.append(...rows.flatMap((row, i) => begins(i) ? [laneHeading(row), row] : [row]), body.querySelector(".nothing"));
    filter(table.closest(".view"));
  };
  const sort = (heading) => {
    const other = { ascending: "descending", descending: "ascending" };
    const order = other[heading.getAttribute("aria-sort")] || heading.dataset.first;
    for (const each of all("[aria-sort]", heading.parentElement)) each.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    arrange(heading.closest("table"));
  };
  for (const heading of all(".board thead [data-first]")) heading.firstElementChild.addEventListener("click", () => sort(heading));
  for (const control of all("[data-grouped]")) {
    control.addEventListener("change", () => arrange(control.closest(".view").querySelector(".board")));
  }

  // Filters: upstreams by a part of their names, tasks by their chips, in the table and in every figure.
  const filter = (view) => {
    const wanted = view.querySelector("[data-filter]").value.trim().toLowerCase();
    const gone = new Set();
    for (const row of all("tr[data-u]", view)) if (!row.dataset.name.includes(wanted)) gone.add(row.dataset.u);
    for (const part of all("[data-u]", view)) part.classList.toggle("gone", gone.has(part.dataset.u));
    for (const heading of all(".lane", view)) {
      const shown = all(`tr[data-u][data-lane="${heading.dataset.lane}"]`, view).filter((row) => !row.matches(".gone"));
      heading.classList.toggle("gone", !shown.length);
      heading.querySelector("small").textContent = shown.length;
    }
    view.querySelector(".nothing").hidden = gone.size < all("tr[data-u]", view).length;
    const off = new Set(all("[data-column]:not(:checked)", view).map((box) => box.dataset.column));
    for (const part of all("[data-task]", view)) part.classList.toggle("gone", off.has(part.dataset.task));
    for (const domain of all("[data-domain]", view)) {
      const shown = all(`[data-of="${domain.dataset.domain}"]:not(.gone)`, view).length;
      domain.classList.toggle("gone", !shown);
      domain.colSpan = Math.max(1, shown);
    }
  };
  for (const view of views) view.querySelector(".controls").addEventListener("input", () => filter(view));

  // What is said of a value or a mark: a heading, then lines of name and value.
  const tip = document.getElementById("tip");
  let anchor = null;
  const place = () => {
    if (tip.hidden) return;
    const [box, { width, height }] = [anchor.getBoundingClientRect(), tip.getBoundingClientRect()];
    const below = box.bottom + 8 + height < innerHeight;
    tip.style.left = `${Math.max(8, Math.min(innerWidth - width - 8, (box.left + box.right - width) / 2))}px`;
    tip.style.top = `${Math.max(8, below ? box.bottom + 8 : box.top - height - 8)}px`;
  };
  const say = (written, about) => {
    const [heading, ...lines] = written.split("\n");
    const title = document.createElement("b");
    title.textContent = heading;
    const list = document.createElement("dl");
    for (const line of lines) {
      const cut = line.indexOf("\t");
      const [name, value] = [document.createElement("dt"), document.createElement("dd")];
      name.textContent = line.slice(0, cut);
      value.textContent = line.slice(cut + 1);
      list.append(name, value);
    }
    tip.replaceChildren(title, list);
    tip.hidden = false;
    anchor = about;
    place();
  };
  const hush = () => {
    tip.hidden = true;
    for (const mark of all(".cursor")) mark.remove();
    for (const mark of all(".here")) mark.classList.remove("here");
  };

  // The same upstream lights up in every figure.
  const light = (part) => {
    const view = part?.closest(".view");
    for (const each of all(".lit")) each.classList.remove("lit");
    for (const each of views) each.classList.toggle("lighting", each === view);
    if (view) for (const each of all(`.chart [data-u="${part.dataset.u}"]`, view)) each.classList.add("lit");
  };

  const cellAt = (cells, row, column) => {
    const told = cells.told ??= JSON.parse(cells.dataset.matrix);
    const value = told.values[row]?.[column];
    for (const mark of all(".cursor")) mark.remove();
    const cursor = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    cursor.setAttribute("class", "cursor");
    for (const [name, size] of [["x", column], ["y", row], ["width", 1], ["height", 1]]) cursor.setAttribute(name, size);
    cells.append(cursor);
    const shown = value == null ? "none" : `${value} ${told.unit}`.trim();
    say(`${told.row} ${told.rows[row]}, ${told.column} ${told.columns[column]}\n${told.unit ? "Share" : "Weight"}\t${shown}`, cursor);
  };
  // What scrolls under a resting pointer is not pointed at.
  let pointer = "";
  const rests = (event) => {
    const before = pointer;
    pointer = `${event.clientX} ${event.clientY}`;
    return event.pointerType === "mouse" && pointer === before;
  };
  document.addEventListener("pointerover", (event) => {
    if (rests(event)) return;
    const part = event.target.closest("[data-tip]");
    if (part) say(part.dataset.tip, part.closest("svg") ? event.target : part);
    const series = event.target.closest("tr[data-u], svg [data-u], .legend [data-u]");
    light(series);
    if (!part && !event.target.closest(".cells")) hush();
  });
  document.addEventListener("pointermove", (event) => {
    rests(event);
    const cells = event.target.closest(".cells");
    if (!cells) return;
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(cells.getScreenCTM().inverse());
    const told = cells.told ??= JSON.parse(cells.dataset.matrix);
    const [row, column] = [Math.floor(at.y), Math.floor(at.x)];
    if (row >= 0 && row < told.rows.length && column >= 0 && column < told.columns.length) cellAt(cells, row, column);
  });
  document.addEventListener("scroll", place, { capture: true, passive: true });

  // Keyboard: one stop a table and a figure, the arrow keys move inside.
  const steps = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] };
  const valuesOf = (row) => all("td[data-tip]:not(.gone)", row);
  for (const table of all(".board")) {
    const first = table.querySelector("td[data-tip]");
    if (first) first.tabIndex = 0;
  }
  const walkTable = (from, [down, right]) => {
    const rows = all("tr[data-u]:not(.gone)", from.closest("tbody")).filter((row) => valuesOf(row).length);
    const at = rows.indexOf(from.parentElement) + down;
    const row = rows[Math.max(0, Math.min(rows.length - 1, at))];
    const values = valuesOf(row);
    const sideways = valuesOf(from.parentElement).indexOf(from) + right;
    const same = values.find((value) => value.cellIndex === from.cellIndex);
    const to = right || !same ? values[Math.max(0, Math.min(values.length - 1, sideways))] : same;
    for (const each of all("td[tabindex='0']", from.closest("table"))) each.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };
  const walkChart = (chart, [down, right]) => {
    const cells = chart.querySelector(".cells");
    if (cells) {
      const told = cells.told ??= JSON.parse(cells.dataset.matrix);
      const at = chart.place || [down ? -down : 0, right ? -right : 0];
      const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));
      chart.place = [clamp(at[0] + down, told.rows.length), clamp(at[1] + right, told.columns.length)];
      cellAt(cells, ...chart.place);
      return;
    }
    const marks = all("[data-tip]", chart).filter((mark) => !mark.closest(".gone")).reverse();
    if (!marks.length) return;
    chart.place = ((chart.place ?? (down + right > 0 ? -1 : 0)) + down + right + marks.length) % marks.length;
    hush();
    const mark = marks[chart.place];
    mark.classList.add("here");
    light(mark.closest("[data-u]"));
    say(mark.dataset.tip, mark);
  };
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hush();
    const step = steps[event.key];
    const value = event.target.closest("td[data-tip]");
    const chart = event.target.closest("svg.chart");
    if (!step || !(value || chart)) return;
    event.preventDefault();
    if (value) walkTable(value, step);
    else walkChart(chart, step);
  });
  document.addEventListener("focusin", (event) => {
    const value = event.target.closest("td[data-tip]");
    hush();
    light(event.target.closest("tr[data-u]"));
    if (value) say(value.dataset.tip, value);
  });
  document.addEventListener("focusout", () => { hush(); light(null); });

  // The table as it is shown: filtered, in the order on the screen.
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const heading = (cell) => [...cell.childNodes].filter((part) => !part.matches?.(".family"))
    .map((part) => part.innerText ?? part.textContent).join(" ").replace(/\s+/g, " ").trim();
  const csv = (table) => all("tr", table)
    .filter((row) => !row.matches(".gone, .nothing, .lane, .domains"))
    .map((row) => {
      const shown = [...row.cells].filter((cell) => !cell.matches(".gone"));
      const values = shown.map((cell) => cell.tagName === "TD" ? cell.dataset.sort ?? "" : heading(cell));
      if (table.querySelector("[data-family]")) values.splice(1, 0, row.dataset.family ?? "Family");
      return values.map(quoted).join(",");
    })
    .join("\r\n");
  for (const button of all("[data-csv]")) {
    button.addEventListener("click", () => {
      const link = document.createElement("a");
      const content = `${csv(button.closest(".view").querySelector(".board"))}\r\n`;
      link.href = URL.createObjectURL(new Blob([content], { type: "text/csv" }));
      link.download = `${button.dataset.csv.replace(/[^\w-]+/g, "-")}.csv`;
      link.click();
      URL.revokeObjectURL(link.href);
    });
  }
})();
