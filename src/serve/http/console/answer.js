// One answer: a statement is sent, its rows are read up to a bound, and shown as a table with what is to be said of it.

import { AnswerReader, kindOf, textOf } from "./exact.js";
import { at, refusal } from "./server.js";
import { byId, count, counted, isNumber, make, span, typeWord, write } from "./show.js";
import { Chart } from "./chart.js";

/** Reading stops after so many rows or characters: the page stays quick, and the server need not send the rest. */
const READ_ROWS_MAX = 10_000;
const READ_TEXT_MAX = 8 << 20;
/** So many rows and cells become a table. */
const SHOWN_ROWS_MAX = 1_000;
const SHOWN_CELLS_MAX = 30_000;
/** Of a value this much is shown, in characters. */
const SHOWN_TEXT_MAX = 1_000;
/** After so much work without a break the page gets its turn, in ms. */
const WORK_MAX_MS = 30;
const TICK_MS = 100;

/** With types where the server tells them, plain rows otherwise. */
const ACCEPT = "application/vnd.spiceai.sql.v1+json, application/json;q=0.9";

export class Answer {
  #announce;
  #placeOf;
  #chart = new Chart();
  #current = null;

  /** `placeOf(id)` says where a query ran, as soon as the server knows. */
  constructor({ announce, placeOf }) {
    this.#announce = announce;
    this.#placeOf = placeOf;
  }

  /** Runs a statement and shows what comes of it. */
  async run(sql, signal) {
    this.#current = signal;
    const begun = performance.now();
    const elapsed = () => span(performance.now() - begun);
    const reader = new AnswerReader();
    const tick = setInterval(() => this.#isCurrent(signal) && this.#progress(reader, elapsed()), TICK_MS);
    this.#begin();
    try {
      const told = await read(sql, signal, reader);
      if (this.#isCurrent(signal)) this.#show(reader, told, elapsed());
    } catch (error) {
      if (this.#isCurrent(signal)) this.#fail(error, reader, elapsed(), signal.aborted);
    } finally {
      clearInterval(tick);
    }
  }

  #isCurrent(signal) {
    return this.#current === signal;
  }

  #begin() {
    byId("failure").hidden = true;
    byId("rows").setAttribute("aria-busy", "true");
    byId("summary").dataset.state = "running";
    write(byId("summary"), "Running…");
  }

  #progress(reader, time) {
    const rows = reader.rows.length ? `, ${counted(reader.rows.length, "row")} so far` : "";
    if (byId("summary").dataset.state === "running") write(byId("summary"), `Running… ${time}${rows}`);
  }

  #show(reader, { id, isCached, stopped }, time) {
    const rows = reader.rows.length;
    const many = stopped ? `more than ${counted(rows, "row")}` : counted(rows, "row");
    this.#table(reader, stopped);
    this.#end("done", `${many} · ${time}`);
    this.#place(id, isCached, `${many} · ${time}`, this.#current);
  }

  /** Adds where it ran, when the server knows: its record is written after the last row was taken. */
  async #place(id, isCached, words, signal) {
    const place = isCached ? "from the cache" : await this.#placeOf(id);
    if (!this.#isCurrent(signal)) return;
    const sentence = place ? `${words} · ${place}` : words;
    this.#end("done", sentence);
    this.#announce(sentence);
  }

  #fail(error, reader, time, isCancelled) {
    const rows = reader.rows.length;
    if (rows) this.#table(reader, true);
    else this.#clear();
    if (isCancelled) {
      this.#end("cancelled", `Cancelled after ${time}`);
      this.#announce(`cancelled after ${time}`);
      return;
    }
    this.#end("failed", `Failed after ${time}${rows ? `, ${counted(rows, "row")} had arrived` : ""}`);
    const failure = byId("failure");
    failure.hidden = false;
    failure.replaceChildren(wordsOf(error, rows), make("span", { class: "dim" }, codeOf(error)));
  }

  #end(state, words) {
    byId("rows").removeAttribute("aria-busy");
    byId("summary").dataset.state = state;
    write(byId("summary"), words);
  }

  #clear() {
    byId("rows").hidden = true;
    byId("rows-note").hidden = true;
    this.#chart.clear();
  }

  #table(reader, isCut) {
    const columns = columnsOf(reader);
    const shown = reader.rows.slice(0, shownMax(columns.length));
    byId("rows").hidden = columns.length === 0;
    byId("rows").replaceChildren(table(columns, shown));
    byId("rows").scrollTo(0, 0);
    const note = noteOf(shown.length, reader.rows.length, isCut);
    byId("rows-note").hidden = !note;
    write(byId("rows-note"), note);
    this.#chart.show(columns, reader.rows, isCut);
  }
}

/** Sends the statement and reads rows into `reader`; says the query's id and whether reading stopped before the end. */
async function read(sql, signal, reader) {
  const headers = { "content-type": "text/plain; charset=utf-8", accept: ACCEPT };
  const response = await fetch(at("/v1/sql"), { method: "POST", body: sql, headers, signal });
  if (!response.ok) throw await refusal(response);
  const id = response.headers.get("x-query-id");
  const isCached = /^(HIT|STALE)$/.test(response.headers.get("results-cache-status") ?? "");
  const stopped = await readRows(response.body, signal, reader);
  return { id, isCached, stopped };
}

async function readRows(body, signal, reader) {
  const pieces = body.pipeThrough(new TextDecoderStream()).getReader();
  let read = 0,
    worked = performance.now();
  for (;;) {
    const { done, value } = await pieces.read();
    if (done) break;
    read += value.length;
    const isFull = !reader.push(value, READ_ROWS_MAX + 1) || read > READ_TEXT_MAX;
    if (isFull) {
      reader.rows.length = Math.min(reader.rows.length, READ_ROWS_MAX);
      // The server's stream ends with the request; that it was cut is no failure.
      await pieces.cancel().catch(() => {});
      return true;
    }
    if (performance.now() - worked < WORK_MAX_MS) continue;
    await new Promise((resolve) => setTimeout(resolve));
    worked = performance.now();
    signal.throwIfAborted();
  }
  if (!reader.isWhole) throw new Error("the answer ended before its end");
  return false;
}

/** Name, type and whether they are numbers: by the schema, or by the values. */
function columnsOf(reader) {
  const names = reader.columns ?? [];
  return names.map((name, index) => {
    const type = reader.schema?.fields[index]?.data_type;
    const values = () =>
      reader.rows
        .slice(0, SHOWN_ROWS_MAX)
        .map((row) => kindOf(row[index]))
        .filter((kind) => kind !== "null");
    const kinds = type === undefined ? new Set(values()) : null;
    const isNumeric = kinds ? kinds.size === 1 && kinds.has("number") : isNumber(type);
    return { name, at: index, word: type === undefined ? "" : typeWord(type), isNumeric };
  });
}

function shownMax(columns) {
  return Math.max(1, Math.min(SHOWN_ROWS_MAX, Math.floor(SHOWN_CELLS_MAX / Math.max(1, columns))));
}

function noteOf(shown, rows, isCut) {
  if (isCut)
    return `The first ${count(shown)} of more than ${count(rows)} rows: reading stopped there. Add a LIMIT, or ask /v1/sql for all of them.`;
  return shown < rows ? `The first ${count(shown)} of ${count(rows)} rows.` : "";
}

function table(columns, rows) {
  const head = columns.map(({ name, word, isNumeric }) =>
    make(
      "th",
      { scope: "col", class: isNumeric ? "number" : null },
      name,
      word ? make("span", { class: "dim" }, word) : "",
    ),
  );
  const body = rows.map((row) =>
    make("tr", {}, ...columns.map((column) => cell(row[column.at], column.isNumeric))),
  );
  return make("table", {}, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
}

function cell(raw, isNumeric) {
  const kind = kindOf(raw);
  if (kind === "null") return make("td", { class: isNumeric ? "null number" : "null" }, "NULL");
  const text = textOf(raw);
  const shown = text.length > SHOWN_TEXT_MAX ? `${text.slice(0, SHOWN_TEXT_MAX)}…` : text;
  return make("td", { class: isNumeric ? "number" : null, title: text.length > 40 ? shown : null }, shown);
}

function wordsOf(error, rows) {
  if (error.status) return error.message;
  if (rows) return `The answer broke off: ${error.message}. What had arrived is below.`;
  return error instanceof TypeError ? `The server cannot be reached: ${error.message}.` : error.message;
}

function codeOf(error) {
  return error.status ? `${[error.code, `HTTP ${error.status}`].filter(Boolean).join(", ")}` : "";
}
