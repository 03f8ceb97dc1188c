// What the page says of an answer: how many match, which words are unknown, and whether any match is a good one.

import { asked } from "./change.js";
import { h, visible } from "./dom.js";
import { asks, hrefOf, narrows } from "./state.js";
import { many, weight } from "./words.js";

/** How many images match: `counts` has `strong` and `weak` of those that were loaded, `total` of all or null; `more` if matches may follow. */
export function countLine(query, answer, { strong, weak, total, more }) {
  if (!asks(query)) return total === null || !narrows(query) ? "Newest first" : `${many(total, "image")}, newest first`;
  if (total === null) return many(strong, "match", "matches");
  if (weak) return `${more ? "more than " : ""}${many(strong, "match", "matches")}`;
  const open = answer.weak_below > 0 && strong < total; // where the matches end isn't known yet
  return open ? `more than ${many(strong, "match", "matches")}` : many(total, "match", "matches");
}

/** How many weak matches there are: those after the matches, of which some may not be loaded. */
export const countWeak = ({ strong, weak, total }) => (total === null ? weak : Math.max(weak, total - strong));

/** Notes above the hits: words that the model lacks, with near ones, and remarks on how the query was read. */
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

/** Whether the model knows no word of the query: the server then takes no image for a match, whatever its score. */
export function knowsNone(answer) {
  if (!answer?.unknown_words?.length) return false;
  const highest = Math.hypot(...answer.query.map((item) => item.weight)); // the score of an image with the query's own weights
  return answer.weak_below >= 0.999 * highest;
}

/** Said in place of matches, if all hits are weak. */
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
