// A drawing of an answer: number columns over the first column, as bars or lines, chosen by what the first column is.

import { kindOf, textOf } from "./exact.js";
import { byId, count, draw, make, short } from "./show.js";

const SHOWN_KEY = "sidewing.chart";
const BARS_MAX = 30;
const POINTS_MAX = 10_000;
const DOTS_MAX = 120;
/** Of a name this much is looked at, in characters. */
const NAME_MAX = 60;
const SERIES_MAX = 4;
/** So many number columns are offered. */
const CHOICES_MAX = 12;
/** Columns are drawn together unasked when their largest values are not further apart. */
const ALIKE = 8;
const HEIGHT = 220,
  TOP = 8,
  BOTTOM = 22,
  RIGHT = 12;
const BAR = 14,
  GAP = 8,
  LABEL_MAX = 180;
const FONT = "12px system-ui, sans-serif";
const TICKS = 4;

/** What can be drawn of an answer, or null. */
function plan(columns, rows) {
  if (rows.length < 2) return null;
  const numbers = columns.filter((column) => column.isNumeric && column.at > 0).slice(0, CHOICES_MAX);
  const [first] = columns;
  if (numbers.length > 0) return { x: first, numbers, form: formOf(first, rows) };
  return first?.isNumeric ? { x: null, numbers: [first], form: "lines" } : null;
}

/** Times and long rising numbers are lines, everything else is bars. */
function formOf(first, rows) {
  const texts = rows.slice(0, POINTS_MAX).map((row) => row[first.at]);
  const isTime = texts.every((raw) => kindOf(raw) === "null" || /^"\d{4}-\d\d(-\d\d|"$)/.test(raw));
  const isRising =
    first.isNumeric && texts.every((raw, at) => at === 0 || Number(raw) > Number(texts[at - 1]));
  return (isTime || isRising) && rows.length > 6 ? "lines" : "bars";
}

/** The columns that are drawn unasked: the first, and those of its size. */
function chosen(numbers, rows) {
  const size = (column) =>
    rows
      .slice(0, POINTS_MAX)
      .reduce((most, row) => Math.max(most, Math.abs(valueOf(row[column.at]) ?? 0)), 0);
  const first = size(numbers[0]);
  const alike = numbers.filter((column) => size(column) <= first * ALIKE && first <= size(column) * ALIKE);
  return (alike.length ? alike : [numbers[0]]).slice(0, 3).map((column) => column.at);
}

function valueOf(raw) {
  return kindOf(raw) === "null" ? null : Number(raw);
}

export class Chart {
  #plan = null;
  #rows = [];
  #isCut = false;
  #at = [];
  #isShown = recalled();

  constructor() {
    byId("chart-toggle").addEventListener("click", () => this.#toggle());
    new ResizeObserver(() => this.#draw()).observe(byId("chart"));
  }

  show(columns, rows, isCut) {
    this.#plan = plan(columns, rows);
    this.#rows = rows;
    this.#isCut = isCut;
    this.#at = this.#plan ? chosen(this.#plan.numbers, rows) : [];
    this.#refresh();
  }

  clear() {
    this.show([], [], false);
  }

  #toggle() {
    this.#isShown = !this.#isShown;
    try {
      sessionStorage.setItem(SHOWN_KEY, this.#isShown ? "yes" : "no");
    } catch {
      // Not remembered.
    }
    this.#refresh();
  }

  #refresh() {
    byId("chart-toggle").hidden = !this.#plan;
    byId("chart-toggle").setAttribute("aria-pressed", String(this.#isShown));
    byId("chart").hidden = !this.#plan || !this.#isShown;
    byId("chart").replaceChildren();
    if (byId("chart").hidden) return;
    byId("chart").append(this.#choices(), make("div", { class: "drawing" }));
    this.#draw();
  }

  #choices() {
    const choice = (column) => {
      const isChosen = this.#at.includes(column.at);
      const box = make("input", {
        type: "checkbox",
        checked: isChosen,
        onchange: () => this.#choose(column.at, box.checked),
      });
      const swatch = make("span", {
        class: "swatch",
        "data-series": this.#at.indexOf(column.at),
        "aria-hidden": "true",
      });
      return make("label", {}, box, ...(isChosen ? [swatch] : []), column.name);
    };
    const form = make("select", {
      "aria-label": "Form of the chart",
      onchange: () => this.#reform(form.value),
    });
    for (const [value, word] of [
      ["bars", "Bars"],
      ["lines", "Lines"],
    ])
      form.append(make("option", { value, selected: value === this.#plan.form }, word));
    const legend = make("legend", { class: "unseen" }, "Columns of the chart");
    return make("fieldset", {}, legend, ...this.#plan.numbers.map(choice), form);
  }

  #choose(at, isChosen) {
    const others = this.#at.filter((other) => other !== at);
    this.#at = isChosen ? [...others, at].slice(-SERIES_MAX) : others;
    this.#again();
  }

  #reform(form) {
    this.#plan.form = form;
    this.#again();
  }

  /** Draws all anew, and gives focus back to what was changed. */
  #again() {
    const inputs = () => [...byId("chart").querySelectorAll("input, select")];
    const focused = inputs().indexOf(document.activeElement);
    this.#refresh();
    inputs()[focused]?.focus();
  }

  #draw() {
    const holder = byId("chart").querySelector(".drawing");
    if (!holder || byId("chart").hidden) return;
    const width = Math.max(240, Math.floor(holder.clientWidth));
    const series = this.#plan.numbers
      .filter((column) => this.#at.includes(column.at))
      .sort((a, b) => this.#at.indexOf(a.at) - this.#at.indexOf(b.at));
    if (series.length === 0) return holder.replaceChildren(make("p", { class: "note" }, "Choose a column."));
    const { form } = this.#plan;
    const rows = this.#rows.slice(0, form === "bars" ? BARS_MAX : POINTS_MAX);
    const drawn = { width, series, rows, names: namesOf(this.#plan.x, rows) };
    const drawing = form === "bars" ? bars(drawn) : lines(drawn);
    drawing.prepend(...this.#words(series, rows));
    holder.replaceChildren(drawing, ...this.#note(rows.length, form));
  }

  /** The drawing's name and description; the numbers themselves are in the table. */
  #words(series, rows) {
    const over = this.#plan.x ? ` by ${this.#plan.x.name}` : "";
    const ranges = series.map((column) => {
      const [least, most] = range([column], rows);
      return `${column.name} from ${short(least)} to ${short(most)}`;
    });
    const form = this.#plan.form === "bars" ? "Bars" : "Lines";
    const title = draw("title", { id: "chart-name" }, `${series.map(({ name }) => name).join(", ")}${over}`);
    return [
      title,
      draw("desc", { id: "chart-words" }, `${form}, ${count(rows.length)} points: ${ranges.join("; ")}.`),
    ];
  }

  #note(drawn, form) {
    if (drawn === this.#rows.length && !this.#isCut) return [];
    const all = this.#isCut ? `more than ${count(this.#rows.length)}` : count(this.#rows.length);
    return [make("p", { class: "note" }, `The first ${count(drawn)} of ${all} rows as ${form}.`)];
  }
}

function recalled() {
  try {
    return sessionStorage.getItem(SHOWN_KEY) !== "no";
  } catch {
    return true;
  }
}

function range(series, rows) {
  const values = rows
    .flatMap((row) => series.map((column) => valueOf(row[column.at])))
    .filter(Number.isFinite);
  return values
    .reduce(([least, most], value) => [Math.min(least, value), Math.max(most, value)], [Infinity, -Infinity])
    .map((end) => (Number.isFinite(end) ? end : 0));
}

/** Round steps from below the least to above the most. */
function ticks(least, most) {
  if (least === most) [least, most] = [Math.min(0, least), Math.max(0, most) || 1];
  const rough = (most - least) / TICKS;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough);
  const from = Math.floor(least / step),
    to = Math.ceil(most / step);
  return Array.from({ length: to - from + 1 }, (_, at) => (from + at) * step);
}

function canvas(width, height, children) {
  const names = { role: "img", "aria-labelledby": "chart-name", "aria-describedby": "chart-words" };
  return draw("svg", { ...names, width, height, viewBox: `0 0 ${width} ${height}` }, ...children);
}

/** Bars that lie: their names can be read at any width. */
function bars({ width, series, rows, names }) {
  const left = Math.min(LABEL_MAX, width / 3, Math.max(...names.map(wide)) + 12);
  const [least, most] = range(series, rows);
  const marks = ticks(Math.min(0, least), Math.max(0, most));
  const scale = (value) =>
    left + ((value - marks[0]) / (marks.at(-1) - marks[0])) * (width - left - RIGHT - 34);
  const thick = series.length > 1 ? BAR * 0.7 : BAR;
  const step = thick * series.length + GAP,
    height = TOP + rows.length * step + BOTTOM;
  const bottom = height - BOTTOM;
  const grid = marks.flatMap((mark) => [
    draw("line", {
      class: mark === 0 ? "axis" : "grid",
      x1: scale(mark),
      x2: scale(mark),
      y1: TOP,
      y2: bottom,
    }),
    draw("text", { class: "tick", x: scale(mark), y: bottom + 15, "text-anchor": "middle" }, short(mark)),
  ]);
  const bar = (row, at) => (column, of) =>
    oneBar(valueOf(row[column.at]), names[at], column.name, {
      y: TOP + at * step + of * thick + GAP / 2,
      thick,
      of,
      scale,
    });
  const items = rows.flatMap((row, at) => [
    draw(
      "text",
      { class: "label", x: left - 8, y: TOP + at * step + step / 2 + 4, "text-anchor": "end" },
      cut(names[at], left - 12),
    ),
    ...series.flatMap(bar(row, at)),
  ]);
  return canvas(width, height, [...grid, ...items]);
}

function oneBar(value, name, column, { y, thick, of, scale }) {
  if (!Number.isFinite(value)) return [];
  const from = Math.min(scale(0), scale(value)),
    to = Math.max(scale(0), scale(value));
  const words = draw("title", {}, `${name}: ${column} ${value}`);
  const bar = draw(
    "rect",
    { "data-series": of, x: from, y, width: Math.max(1, to - from), height: thick - 1, rx: 1.5 },
    words,
  );
  return [bar, draw("text", { class: "value", x: to + 4, y: y + thick / 2 + 3 }, short(value))];
}

function lines({ width, series, rows, names }) {
  const marks = ticks(...range(series, rows));
  const left = Math.max(...marks.map((mark) => wide(short(mark)))) + 10;
  const bottom = HEIGHT - BOTTOM;
  const x = (at) => left + (at / (rows.length - 1)) * (width - left - RIGHT);
  const y = (value) => bottom - ((value - marks[0]) / (marks.at(-1) - marks[0])) * (bottom - TOP);
  const grid = marks.flatMap((mark) => [
    draw("line", {
      class: mark === 0 ? "axis" : "grid",
      x1: left,
      x2: width - RIGHT,
      y1: y(mark),
      y2: y(mark),
    }),
    draw("text", { class: "tick", x: left - 6, y: y(mark) + 4, "text-anchor": "end" }, short(mark)),
  ]);
  const paths = series.map((column, of) =>
    draw("path", {
      "data-series": of,
      d: path(
        rows.map((row) => valueOf(row[column.at])),
        x,
        y,
      ),
    }),
  );
  return canvas(width, HEIGHT, [
    ...grid,
    ...labels(names, x, width, left),
    ...paths,
    ...dots({ series, rows, names, x, y }),
  ]);
}

/** A line that breaks where there is no number. */
function path(values, x, y) {
  let isDrawn = false;
  const step = (value, at) => {
    if (!Number.isFinite(value)) return ((isDrawn = false), "");
    const command = `${isDrawn ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
    isDrawn = true;
    return command;
  };
  return values.map(step).join("");
}

/** As many names as can be read. */
function labels(names, x, width, left) {
  const longest = Math.max(...names.map(wide));
  const room = Math.max(2, Math.floor((width - left) / (longest * 1.5 + 12)));
  const every = Math.ceil(names.length / room);
  const shown = names.map((name, at) => [name, at]).filter(([, at]) => at % every === 0);
  return shown.map(([name, at]) => {
    const anchor = at === 0 ? "start" : x(at) > width - longest / 2 ? "end" : "middle";
    return draw(
      "text",
      { class: "tick", x: x(at), y: HEIGHT - 6, "text-anchor": anchor },
      cut(name, LABEL_MAX),
    );
  });
}

/** Points with their values, where there are few enough to meet one. */
function dots({ series, rows, names, x, y }) {
  if (rows.length > DOTS_MAX) return [];
  return series.flatMap((column, of) =>
    rows.flatMap((row, at) => {
      const value = valueOf(row[column.at]);
      if (!Number.isFinite(value)) return [];
      return [
        draw(
          "circle",
          { "data-series": of, cx: x(at), cy: y(value), r: 2.5 },
          draw("title", {}, `${names[at]}: ${column.name} ${value}`),
        ),
      ];
    }),
  );
}

/** What the points are called: days without their midnights, or their numbers. */
function namesOf(x, rows) {
  const names = rows.map((row, at) => (x ? textOf(row[x.at]).slice(0, NAME_MAX) : String(at + 1)));
  const midnight = /T00:00:00(\.0+)?Z?$/;
  return names.every((name) => midnight.test(name)) ? names.map((name) => name.replace(midnight, "")) : names;
}

let pen = null;

/** How wide a text will be. */
function wide(text) {
  pen ??= document.createElement("canvas").getContext("2d");
  pen.font = FONT;
  return pen.measureText(text).width;
}

function cut(text, width) {
  if (wide(text) <= width) return text;
  let length = text.length;
  while (length > 1 && wide(`${text.slice(0, length)}…`) > width) length--;
  return `${text.slice(0, length)}…`;
}
