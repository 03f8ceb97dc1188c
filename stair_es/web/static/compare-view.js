// Two rankings side by side: two queries, or one by two methods; what moved is drawn between them.

import * as api from "./api.js";
import { h, icon, keyed, path, put, say, set, visible } from "./dom.js";
import { EXAMPLES, wordsOf } from "./empty.js";
import { drawRibbon, picture } from "./hit.js";
import { errorNotice } from "./notice.js";
import { inOrder } from "./panel.js";
import { direction, moves, overlap, ranksOf } from "./ranks.js";
import { asks, bodyOf, hrefOf, METHODS, NOTHING } from "./state.js";
import { hues, many, weight, word } from "./words.js";

const DEPTH = 50;
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
    const words = [answers.a, answers.b].flatMap((answer) => (answer ? inOrder(answer.query).map((item) => item.word) : []));
    const hueOf = hues([...new Set(words)]);
    sides.a.rows(left.slice(0, k), ranksOf(right), hueOf, k, answers.b !== null, "right");
    sides.b.rows(right.slice(0, k), ranksOf(left), hueOf, k, answers.a !== null, "left");
    drawSum(left, right);
    requestAnimationFrame(() => drawLines(left, right));
    parts.hint.hidden = Boolean(asks(route.a) || asks(route.b));
    suggest();
  }

  /** Comparisons to begin with, of a word that the index has. */
  function suggest() {
    const name = app.corpus && wordsOf(app.corpus).slice(0, EXAMPLES).at(-1)?.word;
    const methods = app.about?.captions ? ["bag", "bm25"] : ["bag"];
    const links = name ? methods.map((method) => h("li", {}, h("a", { class: "button", href: hrefOf({ view: "compare", a: { ...NOTHING, text: name }, b: { ...NOTHING, text: name, method } }) }, word(name), `: STAIR words and ${METHODS[method]}`))) : [];
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
    say(parts.sum, `overlap@${k} is ${overlap(left, right, k).toFixed(2)}: ${common.length} of ${many(most, "image")} on both sides, ${common.filter((move) => direction(move) !== "same").length} of them at another rank`);
    keyed(parts.steps, STEPS.filter((step) => step <= k), (step) => step, (step) => h("li", {}, h("span", {}, `@${step}`), h("strong", {}), h("i", { "aria-hidden": "true" })));
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
        const line = path(`M0 ${from}C${width / 2} ${from} ${width / 2} ${to} ${width} ${to}`, { class: `line ${direction(move)}` });
        line.dataset.id = move.id;
        return line;
      }),
    );
  }

  function mark(event) {
    const id = event.target.closest?.("li.row")?.dataset.id;
    for (const item of parts.element.querySelectorAll("[data-id]")) item.classList.toggle("marked", id !== undefined && item.dataset.id === id);
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
    sides[name].clear.addEventListener("click", () => change({ [name]: { ...NOTHING, text: route[name].text, method: route[name].method } }));
  }
  new ResizeObserver(() => route && drawLines(answers.a?.hits ?? [], answers.b?.hits ?? [])).observe(parts.pair);
  return { element: parts.element, show };
}

function side(name, title) {
  const text = h("input", { type: "search", id: `${name}-text`, autocomplete: "off", autocapitalize: "none", spellcheck: "false", "aria-label": `${title}: words` });
  const method = h("select", { id: `${name}-method`, "aria-label": `${title}: ranked by` }, Object.entries(METHODS).map(([value, label]) => h("option", { value }, label)));
  const extra = h("span", {});
  const clear = h("button", { type: "button", class: "icon small", "aria-label": `${title}: only the words`, title: "Only the words" }, icon("close"));
  const also = h("p", { class: "chip", hidden: true }, extra, clear);
  const form = h("form", { class: "compared", "aria-label": `${title} query` }, text, h("div", { class: "how" }, method, h("button", { type: "submit" }, "Rank")), also);
  const problem = h("div", { class: "problem" });
  const list = h("ol", { class: "ranking", "aria-label": `${title} ranking` });
  const told = {
    like: (query) => query.like && "an image of the index",
    vector: (query) => query.vector.length && `${query.vector.length} words of an image`,
    factors: (query) => query.factors.size && `${many(query.factors.size, "weight")} changed`,
    narrowed: (query) => {
      const count = query.require.length + query.exclude.length + query.has.length + query.sources.length + (query.filter ? 1 : 0);
      return count && many(count, "condition");
    },
  };

  return {
    text, method, form, problem, list, clear,
    /** Shows a query in the form. */
    fill(query, about) {
      put(text, query.text);
      method.value = query.method;
      set(method.querySelector("[value=bm25]"), { disabled: about !== null && !about.captions && query.method !== "bm25" });
      const more = Object.values(told).map((tell) => tell(query)).filter(Boolean);
      also.hidden = !more.length;
      say(extra, `and ${more.join(", ")}`);
    },
    /** The query of the form. */
    read: (query) => ({ ...query, text: text.value.trim(), method: method.value }),
    /** Shows the first hits, each with its rank on the other side. */
    rows(hits, there, hueOf, k, known, other) {
      const top = Math.max(...hits.map((hit) => hit.score), 1e-9);
      keyed(list, hits, (hit) => hit.id, (hit) => row(hit));
      for (const [place, item] of [...list.children].entries()) item.fill(hits[place], place + 1, there.get(hits[place].id), { hueOf, top, k, known, other });
    },
  };
}

function row({ id, name, thumbnail }) {
  const rank = h("span", { class: "rank" });
  const move = h("span", { class: "move" });
  const score = h("span", { class: "score" });
  const ribbon = h("div", { class: "ribbon", "aria-hidden": "true" });
  const words = h("p", { class: "because" });
  const link = h("a", { class: "name", href: hrefOf({ view: "image", id }), dir: "auto" }, visible(name));
  const item = h("li", { class: "row", data: { id } }, rank, h("span", { class: "picture" }, picture(thumbnail)), h("div", { class: "what" }, link, ribbon, words), h("div", { class: "numbers" }, score, move));
  item.fill = (hit, place, there, { hueOf, top, known, other }) => {
    say(rank, String(place));
    say(score, weight(hit.score));
    drawRibbon(ribbon, hit, hueOf, top);
    say(words, hit.why.slice(0, 5).map((reason) => visible(reason.word)).join(", "));
    const way = there === undefined ? "alone" : other === "left" ? direction({ from: there, to: place }) : direction({ from: place, to: there });
    move.className = `move ${known ? way : ""}`;
    say(move, known ? toldMove(place, there, other) : "");
    set(move, { title: known ? (there === undefined ? `not among the first ${DEPTH} on the ${other}` : `rank ${there} on the ${other}`) : null });
  };
  return item;
}

function toldMove(place, there, other) {
  if (there === undefined) return "only here";
  if (there === place) return "same";
  if (other === "right") return `→ ${there}`;
  return `${there > place ? "▲" : "▼"} ${Math.abs(there - place)}, was ${there}`;
}

function layout(sides) {
  const k = h("select", { id: "k" }, [10, 20, 50].map((value) => h("option", { value }, value)));
  const swap = h("button", { type: "button", class: "quiet" }, icon("swap"), "swap sides");
  const sum = h("p", { class: "sum-up" });
  const steps = h("ul", { class: "steps", "aria-label": "Overlap of the first few" });
  const key = h("p", { class: "legend" }, h("span", { class: "up" }, "moves up"), h("span", { class: "down" }, "moves down"), h("span", { class: "same" }, "stays"), h("span", { class: "alone" }, "only on one side"));
  const sums = h("div", { class: "sums", hidden: true }, sum, steps, key);
  const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  set(lines, { class: "lines", "aria-hidden": "true", preserveAspectRatio: "none" });
  const told = "Write a query on each side, or the same one with two methods: by the words of STAIR with their weights, by the same words as a plain bag, or by BM25 over captions.";
  const suggested = h("ul", { class: "chips", "aria-label": "To begin with" });
  const hint = h("div", { class: "hint" }, h("p", { class: "lead" }, told), suggested);
  const pair = h("div", { class: "pair" }, h("div", { class: "half" }, sides.a.problem, sides.a.list), lines, h("div", { class: "half" }, sides.b.problem, sides.b.list));
  const element = h(
    "section",
    { class: "compare", "aria-labelledby": "compare-title" },
    h("header", {}, h("h1", { id: "compare-title" }, "Compare"), h("span", { class: "controls" }, h("label", { for: "k" }, "first"), k, swap)),
    h("div", { class: "queries" }, sides.a.form, sides.b.form),
    sums,
    hint,
    pair,
  );
  return { element, k, swap, sum, steps, sums, lines, pair, hint, suggested };
}
