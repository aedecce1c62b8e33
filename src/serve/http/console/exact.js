// JSON without loss: text of an answer enters in pieces, rows of raw JSON values leave.
//
// JSON.parse makes floats of all numbers and loses digits beyond 2^53. Here values stay as they are written: only the
// ends of values are looked for, and a text is unescaped when it is shown.

const QUOTE = 34,
  COMMA = 44,
  COLON = 58,
  BACKSLASH = 92;
const OPEN = new Set([91, 123]),
  CLOSE = new Set([93, 125]),
  SPACE = new Set([9, 10, 13, 32]);

/** Finds where one JSON value ends, in text that may arrive in pieces. */
class ValueEnd {
  #depth = 0;
  #inText = false;
  #escaped = false;

  /** The place after the value, looked for from `at` on; -1 when it goes on in the next piece. */
  find(text, at) {
    for (; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (this.#inText) {
        if (this.#ofText(code) && this.#depth === 0) return at + 1;
      } else if (code === QUOTE) {
        this.#inText = true;
      } else if (OPEN.has(code)) {
        this.#depth++;
      } else if (CLOSE.has(code)) {
        if (this.#depth === 0) return at;
        if (--this.#depth === 0) return at + 1;
      } else if (this.#depth === 0 && (code === COMMA || SPACE.has(code))) {
        return at;
      }
    }
    return -1;
  }

  /** Whether the text ends with this character. */
  #ofText(code) {
    if (this.#escaped) this.#escaped = false;
    else if (code === BACKSLASH) this.#escaped = true;
    else if (code === QUOTE) this.#inText = false;
    return !this.#inText;
  }
}

function afterSpace(text, at) {
  while (at < text.length && (SPACE.has(text.charCodeAt(at)) || text.charCodeAt(at) === COMMA)) at++;
  return at;
}

/** The members of an object that is all here, as [key, raw value] in their order; equal keys stay apart. */
export function members(object) {
  const found = [];
  let at = afterSpace(object, 1);
  while (at < object.length && object.charCodeAt(at) === QUOTE) {
    const keyEnd = new ValueEnd().find(object, at);
    const from = afterSpace(object, object.indexOf(":", keyEnd) + 1);
    const end = new ValueEnd().find(object, from);
    if (keyEnd < 0 || end < 0) throw new SyntaxError("an object that does not end");
    found.push([JSON.parse(object.slice(at, keyEnd)), object.slice(from, end)]);
    at = afterSpace(object, end);
  }
  return found;
}

/** What a raw value is: text, number, null, boolean or nested. */
export function kindOf(raw) {
  const first = raw[0];
  if (first === '"') return "text";
  if (first === "n") return "null";
  if (first === "t" || first === "f") return "boolean";
  return first === "{" || first === "[" ? "nested" : "number";
}

/** A raw value as people read it: texts without quotes, everything else as it was written. */
export function textOf(raw) {
  return kindOf(raw) === "text" ? JSON.parse(raw) : raw;
}

/**
 * Reads an answer of `/v1/sql`: an array of row objects, or an object that holds one as `data` and perhaps the `schema`.
 * `columns` are names, `rows` are arrays of raw values, `schema` is what was parsed, `isWhole` says that the end came.
 */
export class AnswerReader {
  columns = null;
  schema = null;
  rows = [];
  isWhole = false;
  #rest = "";
  #at = 0;
  #step = "top";
  #key = "";
  #end = null;
  #scanned = 0;
  #isWrapped = false;

  /** Takes the next piece, and no more rows than `rowsMax`; false when there are that many. */
  push(piece, rowsMax) {
    this.#rest = this.#rest.slice(this.#at) + piece;
    this.#scanned = Math.max(0, this.#scanned - this.#at);
    this.#at = 0;
    while (this.rows.length < rowsMax) {
      this.#skip();
      if (this.#at >= this.#rest.length || this.#step === "end" || !this.#next()) return true;
    }
    return false;
  }

  #skip() {
    if (this.#end) return;
    let at = afterSpace(this.#rest, this.#at);
    if (this.#step === "value" && this.#rest.charCodeAt(at) === COLON) at = afterSpace(this.#rest, at + 1);
    this.#at = at;
  }

  /** One step; false when it needs more text. */
  #next() {
    const first = this.#rest[this.#at];
    if (this.#step === "top") return this.#enter(first);
    if (this.#step === "rows" && first === "]" && !this.#end)
      return this.#leave(this.#isWrapped ? "key" : "end");
    if (this.#step === "key" && first === "}") return this.#leave("end");
    if (this.#step === "value" && this.#key === "data" && first === "[" && !this.#end)
      return this.#move("rows");
    const raw = this.#value();
    if (raw === null) return false;
    this.#take(raw);
    return true;
  }

  #enter(first) {
    if (first !== "[" && first !== "{") throw new SyntaxError("the answer is no JSON of rows");
    this.#isWrapped = first === "{";
    return this.#move(this.#isWrapped ? "key" : "rows");
  }

  #leave(step) {
    this.isWhole = step === "end";
    return this.#move(step);
  }

  #move(step) {
    this.#at++;
    this.#step = step;
    return true;
  }

  /** The raw value that begins here, or null; what was looked at is not looked at again. */
  #value() {
    if (!this.#end) {
      this.#end = new ValueEnd();
      this.#scanned = this.#at;
    }
    const end = this.#end.find(this.#rest, this.#scanned);
    this.#scanned = this.#rest.length;
    if (end < 0) return null;
    const raw = this.#rest.slice(this.#at, end);
    this.#at = end;
    this.#end = null;
    return raw;
  }

  #take(raw) {
    if (this.#step === "rows") {
      const row = members(raw);
      this.columns ??= row.map(([name]) => name);
      this.rows.push(row.map(([, value]) => value));
    } else if (this.#step === "key") {
      this.#key = JSON.parse(raw);
      this.#step = "value";
    } else {
      if (this.#key === "schema") this.#takeSchema(JSON.parse(raw));
      this.#step = "key";
    }
  }

  #takeSchema(schema) {
    if (!Array.isArray(schema.fields)) return;
    this.schema = schema;
    this.columns = schema.fields.map((field) => field.name);
  }
}
