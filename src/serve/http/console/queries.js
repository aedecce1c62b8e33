// The queries that run and the last that ended: records enter, a table stays on the page.

import { ago, byId, count, keep, make, mark, span, write } from "./show.js";
import { post, serverNow } from "./server.js";

/** More are not shown. */
const SHOWN_MAX = 100;
const WHERE = {
  local: "Answered from rows that are kept here",
  pushed: "Sent to its upstream as one statement",
  federated: "Joined here, over rows of upstreams",
  cache: "Answered by the results cache",
};

/** Where a query ran, as a sentence's end. */
export function whereWords(place) {
  return (
    { local: "local", pushed: "pushed to its upstream", federated: "federated", cache: "from the cache" }[
      place
    ] ?? ""
  );
}

export class Queries {
  #editor;
  #announce;
  #look;
  #ended = [];

  constructor({ editor, announce, look }) {
    this.#editor = editor;
    this.#announce = announce;
    this.#look = look;
  }

  show(running, ended) {
    this.#ended = ended;
    const all = [...running.toReversed(), ...ended].slice(0, SHOWN_MAX);
    write(byId("queries-count"), running.length ? `${count(running.length)} running` : "");
    byId("queries-none").hidden = all.length > 0;
    keep(
      byId("queries-body"),
      all,
      (query) => query.query_id,
      (query) => this.#row(query),
      (row, query) => this.#update(row, query),
    );
  }

  /** The record of a query that has ended. */
  find(id) {
    return this.#ended.find((query) => query.query_id === id);
  }

  #row(query) {
    const statement = make(
      "button",
      { type: "button", class: "statement", title: query.sql, onclick: () => this.#editor.put(query.sql) },
      query.sql.replace(/\s+/g, " ").trim(),
    );
    const cancel = make(
      "button",
      {
        type: "button",
        class: "small",
        "aria-label": `Cancel ${query.sql.slice(0, 60)}`,
        onclick: () => this.#cancel(query.query_id),
      },
      "Cancel",
    );
    return make(
      "tr",
      {},
      make("td", {}, make("span", { class: "badge" })),
      make("td", { class: "number" }),
      make("td", { class: "number" }),
      make("td", { class: "what" }, statement, make("span", { class: "error" })),
      make("td", { class: "number" }, make("span"), cancel),
    );
  }

  #update(row, query) {
    const [where, time, rows, what, began] = row.cells;
    const [badge, isRunning] = [where.firstElementChild, !query.outcome];
    const word = isRunning ? "running" : (query.place ?? query.outcome);
    mark(badge, "data-place", word);
    mark(badge, "title", WHERE[query.place] ?? null);
    write(badge, word);
    write(time, span(query.elapsed_ms));
    write(rows, query.rows || query.outcome === "done" ? count(query.rows) : "–");
    write(what.lastElementChild, endOf(query));
    write(began.firstElementChild, isRunning ? "" : ago(query.started, serverNow()));
    began.lastElementChild.hidden = !isRunning;
    mark(row, "title", `over ${query.protocol}`);
  }

  async #cancel(id) {
    try {
      await post(`/v1/sql/${encodeURIComponent(id)}/cancel`);
      this.#announce("query cancelled");
    } catch (error) {
      this.#announce(`not cancelled: ${error.message}`);
    }
    this.#look();
  }
}

/** What is said of an end that is not the usual one. */
function endOf(query) {
  if (query.error) return query.error;
  return (
    { cancelled: "cancelled", left: "its client went away before the end", failed: "failed" }[
      query.outcome
    ] ?? ""
  );
}
