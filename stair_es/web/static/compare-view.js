// Two rankings side by side: two queries, or one query with two methods. Lines between them show what moved.

import * as api from "./api.js";
import { layout, side } from "./compare-parts.js";
import { h, keyed, path, say, set } from "./dom.js";
import { errorNotice } from "./notice.js";
import { inOrder } from "./panel.js";
import { direction, moves, overlap, ranksOf } from "./ranks.js";
import { asks, bodyOf, DEPTH, hrefOf, METHODS, NOTHING } from "./state.js";
import { hues, many, word } from "./words.js";

const STEPS = [1, 3, 5, 10, 20, 50];

export function compareView(app) {
  const sides = { a: side("a", "Left"), b: side("b", "Right") };
  const parts = layout(sides);
  const loading = { a: api.latest(), b: api.latest() };
  const keys = { a: "", b: "" };
  const answers = { a: null, b: null };
  let route = null;
  const change = (fields) => app.go({ ...route, ...fields }, {});

  function show(next) {
    route = next;
    parts.k.value = String(route.k);
    for (const name of ["a", "b"]) {
      sides[name].fill(route[name], app.about);
      const key = JSON.stringify(bodyOf(route[name], DEPTH));
      if (key !== keys[name]) load(name, key);
    }
    draw();
  }

  async function load(name, key) {
    keys[name] = key;
    const { problem } = sides[name];
    if (!asks(route[name])) {
      loading[name].stop();
      answers[name] = null;
      problem.replaceChildren();
      return draw();
    }
    sides[name].list.setAttribute("aria-busy", "true");
    const { result, error, stale } = await loading[name]((signal) => api.search(bodyOf(route[name], DEPTH), signal));
    if (stale) return;
    sides[name].list.setAttribute("aria-busy", "false");
    problem.replaceChildren(...(error ? [errorNotice(error, () => load(name, key))] : []));
    answers[name] = error ? null : result;
    draw();
    if (answers.a && answers.b) say(document.getElementById("said"), parts.sum.textContent);
  }

  function draw() {
    const { k } = route;
    const [left, right] = [answers.a?.hits ?? [], answers.b?.hits ?? []];
    const words = [answers.a, answers.b].flatMap((answer) => (answer ? inOrder(answer.query).map((item) => item.token) : []));
    const hueOf = hues([...new Set(words)]);
    sides.a.rows(left.slice(0, k), ranksOf(right), hueOf, k, answers.b !== null, "right");
    sides.b.rows(right.slice(0, k), ranksOf(left), hueOf, k, answers.a !== null, "left");
    drawSum(left, right);
    requestAnimationFrame(() => drawLines(left, right));
    parts.hint.hidden = Boolean(asks(route.a) || asks(route.b));
    suggest();
  }

  /** Suggested comparisons, with a word of the index. */
  function suggest() {
    const name = app.about?.suggestions?.at(-1)?.token;
    const methods = app.about?.captions ? ["bag", "bm25"] : ["bag"];
    const links = name
      ? methods.map((method) =>
          h(
            "li",
            {},
            h(
              "a",
              {
                class: "button",
                href: hrefOf({ view: "compare", a: { ...NOTHING, text: name }, b: { ...NOTHING, text: name, method } }),
              },
              h("span", {}, word(name), `: STAIR words and ${METHODS[method]}`),
            ),
          ),
        )
      : [];
    parts.suggested.replaceChildren(...links);
    parts.suggested.hidden = !links.length;
  }

  function drawSum(left, right) {
    const { k } = route;
    const both = answers.a && answers.b;
    parts.sums.hidden = !both;
    if (!both) return;
    const common = moves(left, right, k);
    const most = Math.max(Math.min(k, left.length), Math.min(k, right.length));
    const moved = common.filter((move) => direction(move) !== "same").length;
    const share = `overlap@${k} is ${overlap(left, right, k).toFixed(2)}`;
    say(parts.sum, `${share}: ${common.length} of ${many(most, "image")} on both sides, ${moved} of them at another rank`);
    keyed(
      parts.steps,
      STEPS.filter((step) => step <= k),
      (step) => step,
      (step) => h("li", {}, h("span", {}, `@${step}`), h("strong", {}), h("i", { "aria-hidden": "true" })),
    );
    for (const item of parts.steps.children) {
      const value = overlap(left, right, item.keyedBy);
      say(item.querySelector("strong"), value.toFixed(2));
      item.querySelector("i").style.setProperty("--part", value);
    }
  }

  function drawLines(left, right) {
    const { width, height, top } = parts.lines.getBoundingClientRect();
    set(parts.lines, { viewBox: `0 0 ${Math.max(1, width)} ${Math.max(1, height)}` });
    const middle = (list, rank) => {
      const box = list.children[rank - 1]?.getBoundingClientRect();
      return box ? box.top + box.height / 2 - top : 0;
    };
    parts.lines.replaceChildren(
      ...moves(left, right, route.k).map((move) => {
        const [from, to] = [middle(sides.a.list, move.from), middle(sides.b.list, move.to)];
        const line = path(`M0 ${from}C${width / 2} ${from} ${width / 2} ${to} ${width} ${to}`, {
          class: `line ${direction(move)}`,
        });
        line.dataset.id = move.id;
        return line;
      }),
    );
  }

  function mark(event) {
    const id = event.target.closest?.("li.row")?.dataset.id;
    for (const item of parts.element.querySelectorAll("[data-id]"))
      item.classList.toggle("marked", id !== undefined && item.dataset.id === id);
  }

  for (const type of ["pointerover", "focusin"]) parts.pair.addEventListener(type, mark);
  parts.k.addEventListener("change", () => change({ k: Number(parts.k.value) }));
  parts.swap.addEventListener("click", () => change({ a: route.b, b: route.a }));
  for (const name of ["a", "b"]) {
    sides[name].form.addEventListener("submit", (event) => {
      event.preventDefault();
      change({ a: sides.a.read(route.a), b: sides.b.read(route.b) });
    });
    sides[name].method.addEventListener("change", () => change({ [name]: sides[name].read(route[name]) }));
    sides[name].clear.addEventListener("click", () =>
      change({ [name]: { ...NOTHING, text: route[name].text, method: route[name].method } }),
    );
  }
  new ResizeObserver(() => route && drawLines(answers.a?.hits ?? [], answers.b?.hits ?? [])).observe(parts.pair);
  return { element: parts.element, show };
}
