// The editor: statements are written, run, cancelled, and remembered for as long as the tab is open.

import { byId, make } from "./show.js";

const HISTORY_KEY = "sidewing.history",
  DRAFT_KEY = "sidewing.draft";
const HISTORY_MAX = 50;
/** Longer statements are not remembered, in characters. */
const STATEMENT_MAX = 20_000;
/** Of a statement in the list this much is shown, in characters. */
const SHOWN_MAX = 80;

export class Editor {
  #area = byId("sql");
  #run;
  #history = stored(HISTORY_KEY, []);
  #running = null;

  /** `run(sql, signal)` answers a statement; it never throws. */
  constructor(run) {
    this.#run = run;
    this.#area.value = stored(DRAFT_KEY, "");
    this.#area.addEventListener("input", () => store(DRAFT_KEY, this.#area.value));
    this.#area.addEventListener("keydown", (event) => this.#key(event));
    document.addEventListener("keydown", (event) => event.key === "Escape" && this.#cancel());
    byId("editor").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    byId("cancel").addEventListener("click", () => this.#cancel());
    byId("history").addEventListener("change", (event) => this.#recall(event.target));
    this.#listHistory();
  }

  /** Writes a text where the cursor is, so that it can be undone. */
  insert(text) {
    this.#area.focus();
    // The only way that keeps the editor's undo; where it is gone the text is written all the same.
    if (!document.execCommand("insertText", false, text))
      this.#area.setRangeText(text, this.#area.selectionStart, this.#area.selectionEnd, "end");
    store(DRAFT_KEY, this.#area.value);
  }

  /** Puts a statement in place of what is there, which is remembered. */
  put(sql) {
    this.#remember(this.#area.value);
    this.#area.focus();
    this.#area.select();
    this.insert(sql);
    this.#area.setSelectionRange(0, 0);
    this.#area.scrollTop = 0;
  }

  runThis(sql) {
    this.put(sql);
    this.run();
  }

  /** Runs what is selected, or all; a statement that runs is cancelled for it. */
  async run() {
    const { value, selectionStart, selectionEnd } = this.#area;
    const selected = value.slice(selectionStart, selectionEnd);
    const sql = selected.trim() ? selected : value;
    if (!sql.trim()) return this.#area.focus();
    this.#cancel();
    this.#remember(sql);
    const mine = new AbortController();
    this.#running = mine;
    this.#show();
    await this.#run(sql, mine.signal);
    if (this.#running !== mine) return;
    this.#running = null;
    this.#show();
  }

  #cancel() {
    this.#running?.abort();
  }

  #show() {
    const cancel = byId("cancel");
    // Focus must not fall out of the page with the button.
    if (!this.#running && document.activeElement === cancel) byId("run").focus();
    cancel.hidden = !this.#running;
  }

  #key(event) {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    this.run();
  }

  #remember(sql) {
    const statement = sql.trim();
    if (!statement || statement.length > STATEMENT_MAX) return;
    this.#history = [statement, ...this.#history.filter((known) => known !== statement)].slice(
      0,
      HISTORY_MAX,
    );
    store(HISTORY_KEY, this.#history);
    this.#listHistory();
  }

  #recall(list) {
    const statement = this.#history[Number(list.value)];
    list.value = "";
    if (statement) this.put(statement);
  }

  #listHistory() {
    const shown = (sql) => sql.replace(/\s+/g, " ").slice(0, SHOWN_MAX);
    const options = this.#history.map((sql, at) => make("option", { value: String(at) }, shown(sql)));
    byId("history").replaceChildren(make("option", { value: "" }, "History"), ...options);
    byId("history").disabled = options.length === 0;
  }
}

function stored(key, otherwise) {
  try {
    return JSON.parse(sessionStorage.getItem(key)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** A browser may keep nothing: then nothing is remembered. */
function store(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // Full, or forbidden.
  }
}
