// Parts of the comparison: a side with its form and its ranking, a row, and the layout.

import { h, icon, keyed, put, say, set, visible } from "./dom.js";
import { drawRibbon, picture } from "./hit.js";
import { methodSelect } from "./methods.js";
import { direction } from "./ranks.js";
import { DEPTH, hrefOf } from "./state.js";
import { many, weight } from "./words.js";

/** One side; `name` is the prefix of its fields, `title` its label. */
export function side(name, title) {
  const text = h("input", {
    type: "search",
    id: `${name}-text`,
    autocomplete: "off",
    autocapitalize: "none",
    spellcheck: "false",
    "aria-label": `${title}: words`,
  });
  const method = methodSelect({ id: `${name}-method`, "aria-label": `${title}: ranked by` });
  const extra = h("span", {});
  const clear = h(
    "button",
    { type: "button", class: "icon small", "aria-label": `${title}: only the words`, title: "Only the words" },
    icon("close"),
  );
  const also = h("p", { class: "chip", hidden: true }, extra, clear);
  const form = h(
    "form",
    { class: "compared", "aria-label": `${title} query` },
    text,
    h("div", { class: "how" }, method, h("button", { type: "submit" }, "Rank")),
    also,
  );
  const problem = h("div", { class: "problem" });
  const list = h("ol", { class: "ranking", "aria-label": `${title} ranking` });
  const told = {
    like: (query) => query.like && "an image of the index",
    vector: (query) => query.vector.length && `${query.vector.length} words of an image`,
    factors: (query) => query.factors.size && `${many(query.factors.size, "weight")} changed`,
    narrowed: (query) => {
      const count = query.require.length + query.exclude.length + query.filters.size + (query.filter ? 1 : 0);
      return count && many(count, "condition");
    },
  };

  return {
    text,
    method,
    form,
    problem,
    list,
    clear,
    /** Shows a query in the form. */
    fill(query, about) {
      put(text, query.text);
      method.show(query.method, about);
      const more = Object.values(told)
        .map((tell) => tell(query))
        .filter(Boolean);
      also.hidden = !more.length;
      say(extra, `and ${more.join(", ")}`);
    },
    /** The query of the form. */
    read: (query) => ({ ...query, text: text.value.trim(), method: method.value }),
    /** Shows the first hits, each with its rank on the other side. */
    rows(hits, there, hueOf, k, known, other) {
      const top = Math.max(...hits.map((hit) => hit.score), 1e-9);
      keyed(
        list,
        hits,
        (hit) => hit.id,
        (hit) => row(hit),
      );
      for (const [place, item] of [...list.children].entries())
        item.fill(hits[place], place + 1, there.get(hits[place].id), { hueOf, top, k, known, other });
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
  const item = h(
    "li",
    { class: "row", data: { id } },
    rank,
    h("span", { class: "picture" }, picture(thumbnail)),
    h("div", { class: "what" }, link, ribbon, words),
    h("div", { class: "numbers" }, score, move),
  );
  item.fill = (hit, place, there, { hueOf, top, known, other }) => {
    say(rank, String(place));
    say(score, weight(hit.score));
    drawRibbon(ribbon, hit, hueOf, top);
    say(
      words,
      hit.contributions
        .slice(0, 5)
        .map((reason) => visible(reason.token))
        .join(", "),
    );
    const way =
      there === undefined
        ? "alone"
        : other === "left"
          ? direction({ from: there, to: place })
          : direction({ from: place, to: there });
    move.className = `move ${known ? way : ""}`;
    say(move, known ? toldMove(place, there, other) : "");
    set(move, {
      title: known
        ? there === undefined
          ? `not among the first ${DEPTH} on the ${other}`
          : `rank ${there} on the ${other}`
        : null,
    });
  };
  return item;
}

function toldMove(place, there, other) {
  if (there === undefined) return "only here";
  if (there === place) return "same";
  if (other === "right") return `→ ${there}`;
  return `${there > place ? "▲" : "▼"} ${Math.abs(there - place)}, was ${there}`;
}

/** The layout of both sides. */
export function layout(sides) {
  const k = h(
    "select",
    { id: "k" },
    [10, 20, 50].map((value) => h("option", { value }, value)),
  );
  const swap = h("button", { type: "button", class: "quiet" }, icon("swap"), "swap sides");
  const sum = h("p", { class: "sum-up" });
  const steps = h("ul", { class: "steps", "aria-label": "Overlap of the first hits" });
  const key = h(
    "p",
    { class: "legend" },
    h("span", { class: "up" }, "moves up"),
    h("span", { class: "down" }, "moves down"),
    h("span", { class: "same" }, "stays"),
    h("span", { class: "alone" }, "only on one side"),
  );
  const sums = h("div", { class: "sums", hidden: true }, sum, steps, key);
  const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  set(lines, { class: "lines", "aria-hidden": "true", preserveAspectRatio: "none" });
  const told = [
    "Enter a query on each side, or the same one with two methods: the words of STAIR with their weights, ",
    "the same words without weights, or BM25 on captions.",
  ];
  const suggested = h("ul", { class: "chips", "aria-label": "Examples" });
  const hint = h("div", { class: "hint" }, h("p", { class: "lead" }, told), suggested);
  const pair = h(
    "div",
    { class: "pair" },
    h("div", { class: "half" }, sides.a.problem, sides.a.list),
    lines,
    h("div", { class: "half" }, sides.b.problem, sides.b.list),
  );
  const element = h(
    "section",
    { class: "compare", "aria-labelledby": "compare-title" },
    h(
      "header",
      {},
      h("h1", { id: "compare-title" }, "Compare"),
      h("span", { class: "controls" }, h("label", { for: "k" }, "first"), k, swap),
    ),
    h("div", { class: "queries" }, sides.a.form, sides.b.form),
    sums,
    hint,
    pair,
  );
  return { element, k, swap, sum, steps, sums, lines, pair, hint, suggested };
}
