// Pages without hits: what to try.

import { filtered, from, having, inColour, reset, widened, asked } from "./change.js";
import { h, visible } from "./dom.js";
import { many, short, word } from "./words.js";

export const EXAMPLES = 14;

/** Before anything is asked: what is in the index, or among what conditions leave of it, and words that are heavy there. */
export function landing({ about, corpus }, found, ask) {
  const examples = wordsOf(found ?? corpus).slice(0, EXAMPLES);
  const count = found?.total ?? about?.documents;
  const page = h(
    "div",
    { class: "landing" },
    h(
      "p",
      { class: "lead" },
      count === undefined ? "Images, " : `${many(count, "image")}, `,
      h("em", {}, "each a few dozen weighted words."),
    ),
    h(
      "p",
      {},
      "Type what you are looking for, or drop an image. Every hit shows the words that it was found by, and every word has a slider.",
    ),
    examples.length ? h("h2", {}, found ? "Words of these images" : "Words in this index") : null,
    examples.length
      ? h(
          "ul",
          { class: "examples" },
          examples.map(({ token: name, count: heavy }) =>
            h(
              "li",
              {},
              h(
                "button",
                { type: "button", on: { click: () => ask(name) } },
                word(name),
                h("span", { class: "n" }, String(heavy)),
              ),
            ),
          ),
        )
      : null,
    h(
      "dl",
      { class: "grammar" },
      GRAMMAR.map(([sign, does]) => h("div", {}, h("dt", {}, h("code", {}, sign)), h("dd", {}, does))),
    ),
    h("div", { class: "specimen" }),
  );
  page.example = examples.at(-1)?.token; // the rarest of them says most
  return page;
}

/** A search that found nothing: which conditions to lift, and words that would find something. */
export function nothingFound(query, corpus, change) {
  const lifts = [
    ...query.require.map((name) => [
      `without requiring ${visible(name)}`,
      (now) => ({ ...now, require: now.require.filter((other) => other !== name) }),
    ]),
    ...query.has.map((name) => [`without “with ${visible(name)}”`, (now) => having(now, name)]),
    ...query.colours.map((name) => [`in any colour, not only ${visible(name)}`, (now) => inColour(now, name)]),
    ...query.sources.map((name) => [`from all sources, not only ${short(name)}`, (now) => from(now, name)]),
    ...(query.filter ? [[`without the filter ${visible(query.filter)}`, (now) => filtered(now, "")]] : []),
  ];
  if (lifts.length > 1) lifts.push(["without conditions", widened]);
  if (query.factors.size) lifts.push(["with the original weights", reset]);
  const examples = wordsOf(corpus).slice(0, 8);
  return h(
    "div",
    { class: "landing" },
    h("p", { class: "lead" }, "Nothing found."),
    h(
      "p",
      {},
      lifts.length
        ? "No image meets all conditions. Try"
        : "No image has a word of this query. Only words of the model's vocabulary are found; try others.",
    ),
    lifts.length
      ? h(
          "ul",
          { class: "lifts" },
          lifts.map(([text, make]) => h("li", {}, h("button", { type: "button", on: { click: () => change(make) } }, text))),
        )
      : null,
    examples.length ? h("h2", {}, "Words in this index") : null,
    examples.length
      ? h(
          "ul",
          { class: "examples" },
          examples.map(({ token: name }) =>
            h(
              "li",
              {},
              h("button", { type: "button", on: { click: () => change((now) => widened(asked(now, name))) } }, word(name)),
            ),
          ),
        )
      : null,
  );
}

/** The whole words of a corpus: pieces and signs are no examples. */
export const wordsOf = (facets) => (facets?.tokens ?? []).filter(({ token: name }) => /^\p{L}{3,}$/u.test(name));

const GRAMMAR = [
  ["red bird", "images with these words, or with words that the model relates to them"],
  ["+bird", "only images with the word"],
  ["-water", "only images without it"],
  ["red^2", "the word counts twice"],
];
