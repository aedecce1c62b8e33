// The server as the page sees it: requests that carry what the browser was given, their errors in the server's words,
// and the rhythm in which it is asked.

const REQUEST_MAX_MS = 10_000;
const INTERVAL_MS = 1_500;
const INTERVAL_MAX_MS = 30_000;
/** Below this a difference of clocks is rounding: `Date` has whole seconds. */
const SKEW_MIN_MS = 2_000;

let skewMs = 0;

/** Where a path is: the page's own address may hold a key, and then no request can be made of it. */
export function at(path) {
  return new URL(path, location.origin);
}

/** The server's time, in ms. */
export function serverNow() {
  return Date.now() + skewMs;
}

/** An answer that is no 2xx. */
class Refused extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** What a response that is no 2xx says. */
export async function refusal(response) {
  const text = await response.text();
  try {
    const told = JSON.parse(text);
    return new Refused(response.status, told.message ?? text, told.code ?? "");
  } catch {
    return new Refused(response.status, text.trim() || response.statusText || `HTTP ${response.status}`, "");
  }
}

/** A request that ends in time. */
export async function ask(path, options = {}) {
  const headers = { accept: "application/json, */*;q=0.1" };
  const response = await fetch(at(path), {
    headers,
    cache: "no-store",
    signal: AbortSignal.timeout(REQUEST_MAX_MS),
    ...options,
  });
  const skew = Date.parse(response.headers.get("date") ?? "") - Date.now();
  if (!Number.isNaN(skew)) skewMs = Math.abs(skew) < SKEW_MIN_MS ? 0 : skew;
  return response;
}

/** The JSON at a path. */
export async function get(path) {
  const response = await ask(path);
  if (!response.ok) throw await refusal(response);
  return response.json();
}

/** POST without a body. */
export async function post(path) {
  const response = await ask(path, { method: "POST" });
  if (!response.ok) throw await refusal(response);
  return response.json().catch(() => ({}));
}

/**
 * Calls `look` again and again while the page is seen: every 1.5 s, more and more rarely while it fails. `tell` hears
 * after each look of `{ failure, since, nextMs }`; `failure` is null when all is well.
 */
export class Watch {
  #look;
  #tell;
  #timer = 0;
  #failures = 0;
  #since = 0;
  #looking = null;

  constructor(look, tell) {
    this.#look = look;
    this.#tell = tell;
    document.addEventListener("visibilitychange", () =>
      document.hidden ? clearTimeout(this.#timer) : this.now(),
    );
    this.now();
  }

  /** Looks at once; while it looks already, that look is the one. Ends with the look, and never fails. */
  now() {
    clearTimeout(this.#timer);
    this.#looking ??= this.#once().finally(() => (this.#looking = null));
    return this.#looking;
  }

  async #once() {
    try {
      await this.#look();
      this.#after(null);
    } catch (error) {
      this.#after(error);
    }
  }

  #after(failure) {
    if (!failure) this.#failures = 0;
    else if (this.#failures++ === 0) this.#since = Date.now();
    const nextMs = Math.min(INTERVAL_MS * 2 ** this.#failures, INTERVAL_MAX_MS);
    this.#tell({ failure, since: this.#since, nextMs });
    if (!document.hidden) this.#timer = setTimeout(() => this.now(), this.#failures ? nextMs : INTERVAL_MS);
  }
}
