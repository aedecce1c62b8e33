// The console: brings the parts of the page together and asks the server in their rhythm.

import { Answer } from "./answer.js";
import { Datasets } from "./datasets.js";
import { Editor } from "./editor.js";
import { Queries, whereWords } from "./queries.js";
import { ask, get, Watch } from "./server.js";
import { byId, clock, make, mark, write } from "./show.js";

/** A query's record is written when its last row was taken: so often is it looked for, so far apart. */
const RECORD_LOOKS = 5,
  RECORD_PAUSE_MS = 120;

/** Says something to those who cannot see it change. */
function announce(words) {
  byId("announcer").textContent = words;
}

/** The lines of `/v1/ready?verbose=true` as [mark, text]. */
async function readiness() {
  const response = await ask("/v1/ready?verbose=true");
  const lines = (await response.text())
    .split("\n")
    .map((line) => /^\[([+-])\] (.*)$/.exec(line))
    .filter(Boolean);
  return { isReady: response.ok, lines: lines.map(([, sign, text]) => [sign, text]) };
}

async function listed(path) {
  const { queries } = await get(path);
  return queries;
}

/** Readiness in a word, each dataset's behind it. */
function showReadiness({ isReady, lines }) {
  const unready = lines.filter(([sign]) => sign === "-").length;
  const uneasy = lines.filter(([sign, text]) => sign === "+" && / ok, /.test(text)).length;
  const word = isReady
    ? uneasy
      ? `Ready, ${uneasy} ${uneasy === 1 ? "warning" : "warnings"}`
      : "Ready"
    : `Not ready: ${unready} of ${lines.length}`;
  const state = isReady ? (uneasy ? "uneasy" : "ready") : "unready";
  if (byId("readiness").dataset.state !== state && byId("readiness").dataset.state !== "unknown")
    announce(word);
  mark(byId("readiness"), "data-state", state);
  write(byId("readiness-word"), word);
  const told = lines.map(([sign, text]) => `${sign} ${text}`).join("\n");
  if (byId("readiness-lines").dataset.told === told) return;
  byId("readiness-lines").dataset.told = told;
  byId("readiness-lines").replaceChildren(
    ...lines.map(([sign, text]) => make("li", { "data-sign": sign }, text)),
  );
}

/** Whether the server answers, in words; what is on the page stays there meanwhile. */
function showConnection({ failure, since, nextMs }) {
  byId("connection").hidden = !failure;
  mark(document.body, "data-away", failure ? "" : null);
  const what = failure?.status ? `${failure.message} (HTTP ${failure.status})` : "Not reachable";
  const words = failure ? `${what} since ${clock(since)}, next try in ${Math.round(nextMs / 1000)} s.` : "";
  if (Boolean(failure) !== Boolean(byId("connection-words").textContent))
    announce(failure ? what : "Reachable again");
  write(byId("connection-words"), words);
  if (!failure) return;
  mark(byId("readiness"), "data-state", "unknown");
  write(byId("readiness-word"), "Unknown");
}

const editor = new Editor((sql, signal) => answer.run(sql, signal));
const parts = { editor, announce, look: () => watch.now() };
const datasets = new Datasets(parts);
const queries = new Queries(parts);
const answer = new Answer({ announce, placeOf });

/** Shows what is told, also where something else is not; fails with the first that is not. */
async function look() {
  const asked = [
    readiness(),
    get("/v1/datasets?status=true"),
    get("/v1/views?status=true"),
    listed("/v1/sql/active"),
    listed("/v1/sql/recent"),
  ];
  const told = await Promise.allSettled(asked);
  const [ready, kept, views, active, recent] = told.map(({ value }) => value);
  if (ready) showReadiness(ready);
  if (kept) datasets.show(kept, views ?? []);
  if (active && recent) queries.show(active, recent);
  const failed = told.find(({ reason }) => reason);
  if (failed) throw failed.reason;
}

/** Where the query of this id ran, in words; nothing where the server does not say. */
async function placeOf(id) {
  for (let looks = 0; looks < RECORD_LOOKS; looks++) {
    await watch.now();
    const record = queries.find(id);
    if (record) return whereWords(record.place);
    await new Promise((resolve) => setTimeout(resolve, RECORD_PAUSE_MS));
  }
  return "";
}

const watch = new Watch(look, showConnection);
byId("connection-retry").addEventListener("click", () => watch.now());
