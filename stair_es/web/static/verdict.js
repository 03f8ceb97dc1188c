// The summary of a response: the number of matches, unknown words, and whether any match is good.

import { asked } from "./change.js";
import { h, visible } from "./dom.js";
import { asks, hrefOf, narrows } from "./state.js";
import { many, weight } from "./words.js";

/** The number of matches: `counts` has `strong` and `weak` of the loaded hits, and `total` or null; `more` if matches may follow. */
export function countLine(query, answer, { strong, weak, total, more }) {
  if (!asks(query)) return total === null || !narrows(query) ? "Newest first" : `${many(total, "image")}, newest first`;
  if (total === null) return many(strong, "match", "matches");
  if (weak) return `${more ? "more than " : ""}${many(strong, "match", "matches")}`;
  const open = answer.weak_below > 0 && strong < total; // the end of the matches isn't known yet
  return open ? `more than ${many(strong, "match", "matches")}` : many(total, "match", "matches");
}

/** The number of weak matches after the matches, some of which may not be loaded. */
export const countWeak = ({ strong, weak, total }) => (total === null ? weak : Math.max(weak, total - strong));

/** Notes above the hits: unknown words with similar ones, and remarks about the interpretation of the query. */
export function notesOf(query, answer) {
  const unknown = (answer.unknown_words ?? []).map(({ word: name, suggestions }) =>
    h(
      "li",
      {},
      `“${visible(name)}” is not a word of this model.`,
      suggestions.length ? [" Did you mean ", ...joined(suggestions.map((other) => instead(query, name, other))), "?"] : null,
    ),
  );
  return [...unknown, ...(answer.remarks ?? []).map((text) => h("li", {}, sentence(visible(text))))];
}

/** Whether the model knows no word of the query: then the server treats every hit as a weak match. */
export function knowsNone(answer) {
  if (!answer?.unknown_words?.length) return false;
  const highest = Math.hypot(...answer.query.map((item) => item.weight)); // the score of an image with the same weights as the query
  return answer.weak_below >= 0.999 * highest;
}

/** The text instead of matches, if all hits are weak. */
export function noGoodMatch(answer, best) {
  const cut = answer.weak_below > 0
      ? `: the best score is ${weight(best.score)}, and a match has at least ${weight(answer.weak_below)} or each word of the query`
      : "";
  return [
    h("p", { class: "lead" }, "No good match."),
    h("p", {}, `No image has enough of the query's words${cut}. The nearest images are below.`),
  ];
}

/** A link to the same query with another word in place of an unknown one. */
function instead(query, name, other) {
  const escaped = name.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
  const whole = new RegExp(`(?<![\\p{L}\\p{N}])${escaped}(?![\\p{L}\\p{N}])`, "giu");
  return h("a", { href: hrefOf({ view: "search", query: asked(query, query.text.replace(whole, () => other)) }) }, visible(other));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1);

const joined = (links) =>
  links.flatMap((link, place) => (place ? [place === links.length - 1 ? " or " : ", ", link] : [link]));
