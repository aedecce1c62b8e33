"""Drives the console with headless Chromium, and prints what was seen as JSON in the last line.

Usage: console.py CHROMIUM CHROMEDRIVER URL STEPS [ARGS]

STEPS names a function below. A line `do: WORDS` asks the test to do something; a line answers when it is done.
"""

import json
import re
import sys
import time

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from page import Page

# More rows than the page reads.
MANY = "SELECT l.l_orderkey, l.l_comment FROM lineitem AS l CROSS JOIN region"


def do(words: str) -> None:
    """Has the test do something."""
    print(f"do: {words}", flush=True)
    sys.stdin.readline()


def works(page: Page) -> dict:
    """All that the page does, in the order in which a person meets it."""
    return {
        "states": states(page),
        "rows": rows(page),
        "places": places(page),
        "cancelled": cancelled(page),
        "refreshed": refreshed(page),
        "many": many(page),
        "chart": chart(page),
        "keyboard": keyboard(page),
        "recalled": recalled(page),
        "away": away(page),
        "resting": resting(page),
        "schemes": [contrast(page, scheme) for scheme in ("light", "dark")],
        "origins": sorted(page.asked()),
        "complaints": page.told(),
    }


def states(page: Page) -> dict:
    """A dataset that is away comes, another one goes and comes back."""
    away = page.in_state("late", "Error")
    unready = page.wait(
        "an unready word",
        lambda: page.text("#readiness-word").startswith("Not ready") and page.text("#readiness-word"),
    )
    items = page.in_state("items", "Ready")
    do("start late")
    page.in_state("late", "Ready")
    page.wait("Ready at the top", lambda: page.text("#readiness-word") == "Ready")
    do("stop upstream")
    failed = page.in_state("items", "Error")
    do("start upstream")
    page.in_state("items", "Ready")
    views = page.in_state("item_names", "Ready")
    return {
        "late": away["words"],
        "unready": unready,
        "figures": items["figures"][:1],
        "failed": failed["words"],
        "view": views["state"],
    }


def rows(page: Page) -> dict:
    """Digits, NULL, and a text that would be markup."""
    shown = page.run("SELECT id, name FROM items ORDER BY id")
    aligned = page.js(
        "return [...document.querySelectorAll('#rows thead th')].map((c) => getComputedStyle(c).textAlign)"
    )
    types = page.js(
        "return [...document.querySelectorAll('#rows thead th')].map((c) => c.innerText.split('\\n'))"
    )
    nulls = page.js("return [...document.querySelectorAll('#rows td.null')].map((c) => c.textContent)")
    empty = page.run("SELECT id, name FROM items WHERE id = 0")
    columns = page.js("return document.querySelectorAll('#rows thead th').length")
    page.start("SELECT '<img src=x onerror=\"window.hit = 1\">' FROM nowhere")
    page.ended()
    failure = page.text("#failure")
    marked = page.js("return [document.images.length, window.hit ?? null]")
    exact = page.browser.execute_async_script("""const done = arguments[0];
        import('/console/exact.js').then(({ AnswerReader, members, textOf }) => {
          const rows = '[{"a":12345678901234567890.10,"b":"\\\\"}{é"},{"a":null,"b":{"c":[1,"]"]}}]';
          const text = `{"schema":{"fields":[]},"data":${rows},"row_count":2}`;
          const found = [];
          for (let size = 1; size < 12; size++) {
            const reader = new AnswerReader();
            for (let at = 0; at < text.length; at += size) reader.push(text.slice(at, at + size), 100);
            found.push(JSON.stringify([reader.isWhole, reader.rows]));
          }
          const cut = new AnswerReader();
          cut.push(text.slice(0, 60), 100);
          const equal = members('{"a":1,"a":2}');
          done({ ways: [...new Set(found)], cut: cut.isWhole, equal, text: textOf('"\\\\u00e9"') });
        });""")
    return {
        "shown": shown,
        "aligned": aligned,
        "types": types,
        "nulls": nulls,
        "empty": [empty, columns],
        "failure": failure,
        "marked": marked,
        "exact": exact,
    }


def places(page: Page) -> dict:
    """Where statements ran, as the list of queries and the summary tell."""
    local, pushed = "SELECT count(*) AS n FROM items", "SELECT count(*) AS n FROM orders"
    mixed = "SELECT count(*) AS n FROM orders JOIN items ON o_orderkey = id"
    statements = [local, pushed, mixed]
    told = {}
    for sql in statements:
        page.run(sql)
        told[sql] = [page.query(sql)["where"], page.text("#summary").split(" · ")[-1]]
    page.run("SELECT count(*) AS n FROM lineitem")
    page.run("SELECT count(*) AS n FROM lineitem")
    told["again"] = page.text("#summary").split(" · ")[-1]
    bad = "SELECT nope FROM items"
    page.start(bad)
    page.ended()
    told["failed"] = [page.query(bad)["where"], "nope" in page.query(bad)["error"]]
    return told


def cancelled(page: Page) -> dict:
    """By the button in the list of queries, and by Escape."""
    do("hang")
    slow = "SELECT max(o_totalprice) AS most FROM orders"
    page.start(slow)
    running = page.wait(
        "a running query", lambda: [q for q in page.queries() if q["where"] == "running" and q["sql"] == slow]
    )
    count = page.text("#queries-count")
    page.press("#queries-body button.small:not([hidden])")
    page.ended()
    by_button = [page.text("#failure"), page.query(slow)["error"]]
    do("hang")
    other = "SELECT min(o_totalprice) AS least FROM orders"
    page.start(other)
    page.wait(
        "a running query",
        lambda: [q for q in page.queries() if q["where"] == "running" and q["sql"] == other],
    )
    page.keys(Keys.ESCAPE)
    summary = page.ended()
    by_escape = [re.sub(r"[\d.]+ m?s", "TIME", summary), page.query(other)["error"]]
    return {"running": len(running), "count": count, "by_button": by_button, "by_escape": by_escape}


def refreshed(page: Page) -> str:
    page.press("[aria-label='Refresh lineitem']")
    told = (
        lambda: page.dataset("lineitem")["words"].startswith("refreshed")
        and page.dataset("lineitem")["words"]
    )
    return re.sub(r"in [\d.]+ m?s", "in TIME", page.wait("the refresh's end", told))


def many(page: Page) -> dict:
    """More rows than a page holds."""
    begun = time.monotonic()
    page.run(MANY)
    drawn = page.js("return document.querySelectorAll('#rows tbody tr').length")
    page.write("the page still takes keys")
    return {"rows": drawn, "note": page.text("#rows-note"), "quick": time.monotonic() - begun < 30}


def chart(page: Page) -> dict:
    page.run(
        "SELECT o_orderpriority AS priority, count(*) AS orders, sum(o_totalprice) AS total\n"
        "FROM orders GROUP BY 1 ORDER BY 1"
    )
    bars = page.js("return document.querySelectorAll('#chart rect').length")
    name = page.js("return document.querySelector('#chart svg title').textContent")
    words = page.js("return document.querySelector('#chart svg desc').textContent")
    page.press("#chart label:nth-of-type(2) input")
    both = page.js("return document.querySelectorAll('#chart rect').length")
    page.run(
        "SELECT date_trunc('year', o_orderdate) AS year, count(*) AS orders FROM orders GROUP BY 1 ORDER BY 1"
    )
    lines = page.js("return document.querySelectorAll('#chart path').length")
    page.press("#chart-toggle")
    hidden = not page.find("#chart").is_displayed()
    page.press("#chart-toggle")
    return {"bars": bars, "name": name, "words": words, "both": both, "lines": lines, "hidden": hidden}


def keyboard(page: Page) -> dict:
    """From the page's first key to an answer and out of the editor again, without a pointer."""
    page.browser.refresh()
    page.in_state("items", "Ready")
    page.keys(Keys.TAB)
    first = page.focused()
    page.keys(Keys.ENTER)
    page.wait("the editor", lambda: page.focused() == "sql")
    page.js("document.activeElement.select()")
    page.keys("SELECT name FROM items WHERE id = 3")
    page.submit()
    page.wait("an answer", lambda: page.rows() == [["a"]])
    page.keys(Keys.TAB)
    after = page.focused()
    page.keys(Keys.SPACE)
    page.ended()
    stops, stuck = [page.focused()], []
    for _ in range(60):
        page.keys(Keys.TAB)
        stops.append(page.focused())
        is_same = """const is = window.before === document.activeElement;
        window.before = document.activeElement;
        return is;"""
        stuck.extend([stops[-1]] if page.js(is_same) else [])
    outlined = page.js("""const run = document.getElementById('run');
        run.focus({ focusVisible: true });
        return getComputedStyle(run).outlineStyle;""")
    wanted = ["history", "rows", "sql", "Refresh items", "Show 100 rows of items", "items"]
    return {
        "first": first,
        "after": after,
        "missed": [stop for stop in wanted if stop not in stops],
        "stuck": stuck,
        "outlined": outlined,
    }


def recalled(page: Page) -> dict:
    """A statement out of the list, one of the history, and a dataset's name at the cursor."""
    page.press("#queries-body .statement")
    listed = page.find("#sql").get_property("value")
    history = len(page.browser.find_elements(By.CSS_SELECTOR, "#history option"))
    page.write("SELECT * FROM ")
    page.js("[...document.querySelectorAll('.name')].find((b) => b.textContent === 'items').click()")
    inserted = page.find("#sql").get_property("value")
    page.press("[aria-label='Show 100 rows of items']")
    page.ended()
    return {
        "listed": listed,
        "history": history > 5,
        "inserted": inserted,
        "shown": page.find("#sql").get_property("value"),
        "kept": page.js("return localStorage.length"),
    }


def away(page: Page) -> dict:
    """The server cannot be reached, and can again."""
    page.offline(True)
    words = page.wait("a word of it", lambda: page.text("#connection-words"))
    kept = page.dataset("items")["figures"][:1]
    page.offline(False)
    page.press("#connection-retry")
    page.wait("the server", lambda: not page.text("#connection-words"))
    return {"words": re.sub(r"\d\d:\d\d:\d\d", "TIME", words).split(",")[0], "kept": kept}


def resting(page: Page) -> dict:
    """How often the server is asked while nobody sees the page, and whether it is again afterwards."""
    page.js("""Object.defineProperty(document, 'hidden', { configurable: true, get: () => window.unseen });
        window.unseen = true;
        document.dispatchEvent(new Event('visibilitychange'));""")
    time.sleep(1)
    page.js("performance.clearResourceTimings()")
    time.sleep(4)
    asked = page.js("return performance.getEntriesByType('resource').length")
    page.js("window.unseen = false; document.dispatchEvent(new Event('visibilitychange'))")
    page.wait("a look", lambda: page.js("return performance.getEntriesByType('resource').length") > 0)
    return {"asked": asked}


def contrast(page: Page, scheme: str) -> dict:
    """The least contrast of texts with what is behind them, and whether the scheme is worn."""
    page.look(scheme=scheme)
    least = page.js(
        """const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
        const light = (css) => { canvas.fillStyle = css; canvas.fillRect(0, 0, 1, 1);
          return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3).map((v) => v / 255)
            .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
            .reduce((sum, v, at) => sum + v * [0.2126, 0.7152, 0.0722][at], 0); };
        const behind = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
          if (!/, 0\\)$|transparent/.test(c)) return c; } return 'white'; };
        const shown = [...document.querySelectorAll('body *')].filter((e) => e.checkVisibility() && !e.closest('svg') &&
          [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) && !e.matches(':disabled'));
        return shown.map((e) => { const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
          return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML.slice(0, 80)]; })
          .reduce((least, one) => (one[0] < least[0] ? one : least), [99, '']);"""
    )
    ground = page.js("return getComputedStyle(document.body).backgroundColor")
    is_dark = sum(int(part) for part in re.findall(r"\d+", ground)[:3]) < 200
    return {"dark": is_dark, "readable": True if least[0] >= 4.5 else least}


def pictures(page: Page, folder: str) -> dict:
    """The page with an answer, at the sizes and in the schemes that people have."""
    page.wait(
        "datasets",
        lambda: all(
            page.dataset(name)["state"] == "Ready" for name in ("revenue_by_nation", "lineitem", "customer")
        ),
    )
    page.run("SELECT * FROM revenue_by_nation ORDER BY revenue DESC LIMIT 5")
    page.start("SELECT l_shipmod FROM lineitem")
    page.ended()
    page.run("SELECT count(*) AS urgent FROM orders WHERE o_orderpriority = '1-URGENT'")
    for _ in range(2):
        page.run("SELECT c_mktsegment AS segment, avg(c_acctbal) AS balance FROM customer GROUP BY 1")
    page.run(
        "SELECT date_trunc('month', l_shipdate) AS month,\n"
        "  sum(l_extendedprice * (1 - l_discount)) AS revenue,\n"
        "  sum(l_extendedprice * l_discount) AS discount, count(*) AS items\n"
        "FROM lineitem\nGROUP BY 1 ORDER BY 1"
    )
    wide = {}
    for name, width, height, scheme, scale in [
        ("console", 1280, 800, "light", 1),
        ("dark", 1280, 800, "dark", 1),
        ("phone", 390, 844, "light", 1),
    ]:
        page.look(width, height, scheme, scale)
        page.js("document.activeElement.blur()")
        time.sleep(0.5)
        page.browser.save_screenshot(f"{folder}/{name}.png")
        wide[name] = page.js("return document.documentElement.scrollWidth")
    return {"wide": wide, "complaints": page.told()}


def locked(page: Page) -> dict:
    """With a key in the page's address, which is sent as what a user is asked for."""
    page.browser.get(page.url.replace("//", "//anybody:key-of-a-reader@"))
    page.in_state("items", "Ready")
    rows = page.run("SELECT name FROM items WHERE id = 3")
    return {"rows": rows, "origins": sorted(page.asked()), "complaints": page.told()}


def main() -> None:
    chromium, driver, url, steps, *args = sys.argv[1:]
    with Page(chromium, driver, url) as page:
        seen = {"works": works, "pictures": pictures, "locked": locked}[steps](page, *args)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
