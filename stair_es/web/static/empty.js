// Pages without hits of a query: where to start, and what to try if nothing was found.

import { asked, requiring, reset, widened } from "./change.js";
import { conditionsOf } from "./conditions.js";
import { h, visible } from "./dom.js";
import { many, word } from "./words.js";

const EXAMPLES = 16;

/** Before the first query: the number of images, and words that find some of them. */
export function landing(app, ask) {
  const count = app.about?.documents;
  return h(
    "div",
    { class: "landing" },
    h(
      "p",
      { class: "lead" },
      count === undefined ? "Images, " : `${many(count, "image")}, `,
      h("em", {}, "each a few dozen weighted words."),
    ),
    h(
      "details",
      {},
      h("summary", {}, "How to search"),
      h(
        "dl",
        { class: "grammar" },
        GRAMMAR.map(([sign, does]) => h("div", {}, h("dt", {}, h("code", {}, sign)), h("dd", {}, does))),
      ),
    ),
    examples(app, EXAMPLES, ask),
  );
}

/** A query without known words: suggestions for other queries. */
export function noWordKnown({ unknown_words: unknown }, app, change) {
  return [
    h("p", { class: "lead" }, unknown.length === 1 ? "The model doesn't know this word." : "The model knows none of these words."),
    h("p", { class: "hint" }, "What it found by their spelling is below, apart. Words that find something here:"),
    examples(app, EXAMPLES / 2, (name) => change((now) => asked(now, name))),
  ];
}

/** A search that found nothing: why, which conditions to lift, and words that would find something. */
export function nothingFound(query, answer, app, change) {
  const lifts = liftsOf(query, answer, app.about);
  return h(
    "div",
    { class: "landing" },
    h("p", { class: "lead" }, "Nothing found."),
    h("p", {}, reasonOf(answer, lifts)),
    lifts.length
      ? h(
          "ul",
          { class: "lifts" },
          lifts.map(([text, make]) => h("li", {}, h("button", { type: "button", on: { click: () => change(make) } }, text))),
        )
      : null,
    h("h2", {}, "Words in this index"),
    examples(app, EXAMPLES / 2, (name) => change((now) => widened(asked(now, name)))),
  );
}

function reasonOf({ required }, lifts) {
  const quoted = required.map((name) => `“${visible(name)}”`);
  if (quoted.length > 1) return `No image has all of the required words ${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}. Try`;
  if (lifts.length) return quoted.length && lifts.length === 1 ? `No image has the required word ${quoted[0]}. Try` : "No image meets all conditions. Try";
  return "No image has a word of this query. Only words in the model's vocabulary can be found. Try other words.";
}

/** The conditions that can be removed: `[text, change of the query]`. A word may also be required in the text. */
function liftsOf(query, { required }, about) {
  const typed = required.filter((name) => !query.require.includes(name));
  const unrequired = (name) => (now) => requiring(now, name, true);
  const lifts = [
    ...typed.map((name) => [`without “must have ${visible(name)}”`, unrequired(name)]),
    ...conditionsOf(query, about).map(({ kind, text, lift }) => [`without “${kind} ${text}”`, lift]),
  ];
  if (lifts.length > 1) lifts.push(["without conditions", (now) => widened(typed.reduce((lifted, name) => unrequired(name)(lifted), now))]);
  if (query.factors.size) lifts.push(["with the original weights", reset]);
  return lifts;
}

/** Words with hits, each as a button. */
function examples(app, most, ask) {
  const words = app.about?.suggestions ?? [];
  return h(
    "ul",
    { class: "examples", "aria-label": "Words to try" },
    words.slice(0, most).map(({ token: name }) => h("li", {}, h("button", { type: "button", on: { click: () => ask(name) } }, word(name)))),
  );
}

const GRAMMAR = [
  ["red bird", "images with these words, or with words that the model relates to them"],
  ["+bird", "only images with the word"],
  ["-water", "only images without it"],
  ["red^2", "the word counts twice"],
];
