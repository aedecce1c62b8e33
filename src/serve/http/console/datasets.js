// The datasets and views: what the server tells of them enters, rows with their state in words stay on the page.

import { ago, byId, bytes, count, counted, draw, keep, make, mark, span, write } from "./show.js";
import { post, serverNow } from "./server.js";

/** How long the outcome of a refresh is shown. */
const OUTCOME_MS = 20_000;
/** Names that SQL reads as something else. */
const RESERVED = new Set(
  "all and as by case cross from full group having in inner join left limit not null offset on or order right select table union user using values where with".split(
    " ",
  ),
);
/** A fetch that takes less is not put in words: they would come and go. */
const FETCH_MIN_SECONDS = 2;
const BUSY = new Set(["Initializing", "Refreshing"]);

/** A dataset's name as SQL reads it. */
function quoted(name) {
  const plain = (part) => /^[a-z_][a-z0-9_]*$/.test(part) && !RESERVED.has(part);
  return name
    .split(".")
    .map((part) => (plain(part) ? part : `"${part.replaceAll('"', '""')}"`))
    .join(".");
}

export class Datasets {
  #editor;
  #announce;
  #look;
  #states = new Map();
  /** Of refreshes that were asked for here, by dataset: { number, words, until }. */
  #asked = new Map();

  /** `look` asks the server at once. */
  constructor({ editor, announce, look }) {
    this.#editor = editor;
    this.#announce = announce;
    this.#look = look;
  }

  show(datasets, views) {
    const all = [
      ...datasets,
      ...views.map((view) => ({ ...view, isView: true, from: "a view of the spicepod" })),
    ];
    all.forEach((item) => this.#hear(item));
    write(byId("datasets-count"), all.length ? count(all.length) : "");
    byId("datasets-none").hidden = all.length > 0;
    keep(
      byId("datasets"),
      all,
      keyOf,
      (item) => this.#body(item),
      (body, item) => this.#update(body, item),
    );
  }

  /** Notes what has changed since the last look, and says it. */
  #hear(item) {
    const before = this.#states.get(item.name);
    if (before && before !== item.status) this.#announce(`${item.name}: ${item.status}`);
    this.#states.set(item.name, item.status);
    const asked = this.#asked.get(item.name);
    const refreshes = item.acceleration?.refreshes;
    if (asked?.number && refreshes?.ended >= asked.number) this.#end(item, asked.number, refreshes.failures);
    if (asked?.until < Date.now()) this.#asked.delete(item.name);
  }

  #end(item, number, failures) {
    const failure = failures.find((failed) => failed.refresh === number);
    const took = item.acceleration.last_refresh_seconds;
    const done = `refreshed${took === null ? "" : ` in ${span(took * 1000)}`}: ${counted(item.acceleration.rows, "row")}`;
    this.#outcome(item.name, failure ? `refresh failed: ${failure.reason}` : done);
  }

  #outcome(name, words) {
    this.#asked.set(name, { words, until: Date.now() + OUTCOME_MS });
    this.#announce(`${name} ${words}`);
  }

  /** A row of figures, or of where its rows are, and one of words. */
  #body(item) {
    const name = make(
      "button",
      {
        type: "button",
        class: "name",
        title: `Insert ${item.name}`,
        onclick: () => this.#editor.insert(quoted(item.name)),
      },
      item.name,
    );
    const peek = action(`Show 100 rows of ${item.name}`, "M5 3.500v9l7-4.500z", () =>
      this.#editor.runThis(`SELECT * FROM ${quoted(item.name)} LIMIT 100`),
    );
    const refresh = action(`Refresh ${item.name}`, "M12.500 6.500A5 5 0 1 0 13 9M12.800 3v3.700H9", () =>
      this.#refresh(item.name),
    );
    refresh.classList.add("line");
    const figures = ["Rows", "Size", "Refreshed", "Lag"].map((label) =>
      make("td", { "data-label": label, class: "number" }),
    );
    const elsewhere = make("td", { colspan: "4", class: "from", title: item.from }, item.from);
    const row = [
      make("th", { scope: "row" }, name),
      make("td", { class: "state" }, make("span", { class: "dot", "aria-hidden": "true" }), make("span")),
      ...(item.acceleration_enabled ? figures : [elsewhere]),
      make("td", { class: "actions" }, ...(item.acceleration_enabled ? [refresh] : []), peek),
    ];
    return make(
      "tbody",
      {},
      make("tr", {}, ...row),
      make("tr", { class: "words", hidden: true }, make("td", { colspan: "7" })),
    );
  }

  #update(body, item) {
    const [row, words] = body.rows;
    mark(body, "data-state", item.status);
    mark(body, "data-busy", BUSY.has(item.status) ? "" : null);
    write(row.querySelector(".state").lastElementChild, item.status);
    if (item.acceleration) showFigures(row, item.acceleration);
    const told = this.#asked.get(item.name)?.words ?? wordsOf(item);
    words.hidden = !told;
    write(words.cells[0], told);
  }

  async #refresh(name) {
    this.#asked.set(name, { words: "refresh asked for…", until: Infinity });
    try {
      const { refresh } = await post(`/v1/datasets/${encodeURIComponent(name)}/acceleration/refresh`);
      this.#asked.set(name, {
        number: refresh,
        words: "refresh asked for…",
        until: refresh ? Infinity : Date.now() + OUTCOME_MS,
      });
    } catch (error) {
      const rights = error.status === 403 ? " (your key may only read)" : "";
      this.#outcome(name, `refresh refused: ${error.message}${rights}`);
    }
    this.#look();
  }
}

function action(label, path, onclick) {
  const icon = draw(
    "svg",
    { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" },
    draw("path", { d: path }),
  );
  return make("button", { type: "button", class: "icon", "aria-label": label, title: label, onclick }, icon);
}

/** A dataset that begins to be kept has other cells than before. */
function keyOf(item) {
  return `${item.isView ? "view" : item.acceleration_enabled} ${item.name}`;
}

function showFigures(row, kept) {
  const [, , rows, size, refreshed, lag] = row.cells;
  write(rows, count(kept.rows));
  write(size, bytes(kept.bytes));
  write(refreshed, kept.last_refresh ? ago(kept.last_refresh, serverNow()) : "–");
  mark(refreshed, "title", kept.last_refresh);
  write(lag, Number.isFinite(kept.lag_seconds) ? span(kept.lag_seconds * 1000) : "–");
}

/** What figures do not say. */
function wordsOf(item) {
  const { acceleration: kept } = item;
  const said = [];
  if (item.error_message) said.push(item.error_message);
  else if (kept?.reason) said.push(kept.reason);
  if (kept?.progress?.elapsed_seconds >= FETCH_MIN_SECONDS) {
    const { rows, bytes: size, elapsed_seconds: seconds } = kept.progress;
    said.push(`fetching: ${counted(rows, "row")}, ${bytes(size)} in ${span(seconds * 1000)}`);
  }
  if (kept?.stream) said.push(streamWords(kept.stream));
  return said.join(" · ");
}

function streamWords(stream) {
  const further = [
    [stream.repeated_rows, "repeated"],
    [stream.repaired_rows, "repaired"],
    [stream.ignored_rows, "ignored"],
  ];
  const rows = further.filter(([number]) => number).map(([number, word]) => `, ${count(number)} ${word}`);
  const link = stream.connected ? "follows its upstream" : "not connected to its upstream";
  const again = stream.reconnects ? `; ${counted(stream.reconnects, "reconnect")}` : "";
  return `${link}: ${counted(stream.received_rows, "row")} received${rows.join("")}${again}`;
}
