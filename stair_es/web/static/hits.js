// Hits for display: copies folded, weak matches separate, and their shared scale and colors. Pure.

import { scaleOf } from "./hit.js";
import { inOrder } from "./panel.js";
import { hues } from "./words.js";

/** Hits of one or more pages without repetitions: the same image, or another one with the same bytes. */
export function fold(hits) {
  const kept = [];
  const places = new Map(); // id or SHA-256 -> index of its hit
  for (const hit of hits) {
    const place = places.get(hit.id) ?? (hit.sha256 ? places.get(hit.sha256) : undefined);
    if (place === undefined) {
      for (const key of [hit.id, hit.sha256, ...copiesOf(hit).map((copy) => copy.id)]) if (key) places.set(key, kept.length);
      kept.push(hit);
    } else kept[place] = withCopies(kept[place], [{ id: hit.id, name: hit.name, uri: hit.uri }, ...copiesOf(hit)]);
  }
  return kept;
}

function withCopies(hit, more) {
  const copies = new Map([...copiesOf(hit), ...more].map((copy) => [copy.id, copy]));
  copies.delete(hit.id);
  return copies.size === copiesOf(hit).length ? hit : { ...hit, duplicates: [...copies.values()] };
}

const copiesOf = (hit) => hit.duplicates ?? [];

/** The matches and the weak matches. */
export function split(hits) {
  return { strong: hits.filter((hit) => !hit.weak), weak: hits.filter((hit) => hit.weak) };
}

/** The data of tiles and cards: hits with their shared colors and scale. */
export function itemsOf(answer, hits) {
  const hueOf = hues(answer ? inOrder(answer.query).map((item) => item.token) : []);
  const required = new Set(answer?.required ?? []);
  const scale = scaleOf(hits);
  return hits.map((hit, place) => ({ hit, place, scale, hueOf, required }));
}
