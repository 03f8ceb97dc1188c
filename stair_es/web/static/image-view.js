// One image: the picture, then all of its words, its metadata, and the most similar images.

import * as api from "./api.js";
import { likeImage } from "./change.js";
import { keyed, put, say, set, visible } from "./dom.js";
import { arrange } from "./grid.js";
import { hitCard, scaleOf } from "./hit.js";
import { factRow, readablePath, summary } from "./image-facts.js";
import { layout, wordBar } from "./image-parts.js";
import { copyText, errorNotice } from "./notice.js";
import { stage } from "./stage.js";
import { hrefOf, NOTHING } from "./state.js";
import { tile } from "./tile.js";
import { hues, isPiece, many, weight } from "./words.js";

const NEAR = 18;
const AHEAD = 6;

export function imageView(app) {
  const picture = stage({ step, loaded: lookAhead });
  const parts = layout(picture.element);
  const { act, words, near } = parts;
  const loading = api.latest();
  const nearing = api.latest();
  const ahead = new Map(); // id -> the image, requested in advance
  let route = null;
  let image = null;
  let nearest = null;
  let copied = []; // its copies, which are not among the most similar images
  let asked = ""; // the last requested id; "" if that failed

  const change = (fields, merge) => app.go({ ...route, ...fields }, { merge, still: true });
  const pick = (name) =>
    change({ picked: route.picked.includes(name) ? route.picked.filter((other) => other !== name) : [...route.picked, name] });
  const turn = () => change({ explain: !route.explain });
  const acts = {
    open: (id) => hrefOf({ view: "image", id, explain: route.explain }),
    like: (id) => hrefOf({ view: "search", query: likeImage(id) }),
    word: pick,
    copies: ({ id }) => app.go({ view: "image", id, explain: route.explain }), // whose page lists them
  };

  function show(next) {
    const other = asked !== next.id;
    const explained = route?.explain !== next.explain;
    route = next;
    if (strayed(other)) requestAnimationFrame(() => parts.name.focus({ preventScroll: true }));
    place();
    if (other) return load();
    if (!image) return;
    drawWords();
    if (explained && nearest) drawNear();
  }

  /** Whether to focus the heading: for another image, unless a button of the stage has the focus, and if the focus is lost. */
  function strayed(other) {
    const focused = document.activeElement;
    if (picture.element.contains(focused)) return false;
    return other || focused === document.body || !focused?.checkVisibility();
  }

  async function load() {
    asked = route.id;
    image = null;
    nearest = null;
    copied = [];
    nearing.stop();
    parts.problem.replaceChildren();
    parts.element.setAttribute("aria-busy", "true");
    sketch(app.met(route.id));
    const { result, error, stale } = await loading((signal) => ahead.get(route.id) ?? api.image(route.id, signal));
    if (stale) return;
    ahead.delete(route.id);
    parts.element.setAttribute("aria-busy", "false");
    parts.body.hidden = Boolean(error);
    parts.problem.replaceChildren(...(error ? [errorNotice(error, load)] : []));
    if (error) {
      asked = "";
      return say(parts.name, "No image");
    }
    image = result;
    app.meet([{ ...app.met(image.id), ...image, ...sizeOf(image) }]);
    draw();
    findNear();
  }

  /** Shows the facts from a list until all are loaded, so that the picture appears at once and nothing jumps. */
  function sketch(hit) {
    if (!hit) return;
    parts.body.hidden = false;
    say(parts.name, visible(hit.name));
    picture.show({ ...hit, id: route.id, original: undefined });
  }

  function draw() {
    const { facts, original, explain } = image;
    say(parts.name, visible(image.name));
    app.drawTitle();
    picture.show({ ...image, ...sizeOf(image) });
    say(parts.summed, summary(facts));
    say(parts.folder, facts.folder ? `in ${visible(facts.folder)}` : "");
    say(parts.caption, image.caption ? visible(image.caption) : "");
    for (const text of [parts.summed, parts.folder, parts.caption]) text.hidden = !text.textContent;
    set(act.like, { href: hrefOf({ view: "search", query: likeImage(image.id) }) });
    set(act.original, { href: original ?? "#" });
    set(act.download, { href: original ? `${original}?download=1` : "#", download: "" });
    act.original.hidden = act.download.hidden = !original;
    const pieces = image.tokens.filter(([name]) => isPiece(name)).length;
    const counted = pieces ? `${many(explain.token_count - pieces, "word")} and ${many(pieces, "piece")}` : many(explain.token_count, "word");
    say(words.sum, `${counted}, total weight ${weight(explain.sum_of_weights)}`);
    words.pieces.hidden = !pieces;
    parts.facts.replaceChildren(...[["uri", image.uri], ...Object.entries(facts)].map(factRow));
    drawWords();
  }

  function drawWords() {
    const hueOf = hues(image.tokens.map(([name]) => name));
    const most = Math.max(...image.tokens.map(([, value]) => value), 1e-9);
    const sought = route.find.toLowerCase();
    const all = route.pieces ? image.tokens : image.tokens.filter(([name]) => !isPiece(name) || route.picked.includes(name));
    const shown = all.filter(([name]) => name.toLowerCase().includes(sought));
    if (route.sort === "name") shown.sort(([one], [other]) => bare(one).localeCompare(bare(other)));
    put(words.find, route.find);
    words.sort.value = route.sort;
    set(words.pieces, { "aria-pressed": String(route.pieces) });
    keyed(
      words.words,
      shown,
      ([name]) => name,
      ([name]) => wordBar(name, pick),
    );
    for (const [place, [name, value]] of shown.entries())
      words.words.children[place].fill(value, most, hueOf(name), route.picked.includes(name));
    say(words.matches, sought ? `${many(shown.length, "word")} of ${all.length}` : "");
    const vector = route.picked.length ? image.tokens.filter(([name]) => route.picked.includes(name)) : image.tokens;
    say(words.withWords, route.picked.length ? `search with ${many(vector.length, "selected word")}` : "search with these words");
    set(words.withWords, { href: hrefOf({ view: "search", query: { ...NOTHING, vector } }) });
    words.clear.hidden = !route.picked.length;
  }

  async function findNear() {
    const { result, error, stale } = await nearing((signal) => api.neighbors(route.id, NEAR, signal));
    if (stale) return;
    near.trouble.replaceChildren(...(error ? [errorNotice(error, findNear)] : []));
    nearest = error ? [] : result.hits;
    copied = error ? [] : result.duplicates;
    app.meet(nearest);
    near.none.hidden = Boolean(error || nearest.length);
    drawNear();
  }

  /** The most similar images as pictures, or as cards with explanations; copies are separate. */
  function drawNear() {
    const folded = [...(app.met(image.id)?.duplicates ?? []), ...copied];
    const files = [...new Map(folded.filter(({ id }) => id !== image.id).map((copy) => [copy.id, copy])).values()];
    near.copied.hidden = !files.length;
    drawTiles(
      near.copies,
      files.map((copy) => ({ thumbnail: image.thumbnail, ...sizeOf(image), ...copy, score: 0, contributions: [], duplicates: [] })),
    );
    near.strip.hidden = route.explain;
    near.cards.hidden = !route.explain;
    set(near.explain, { "aria-pressed": String(route.explain) });
    near.explain.hidden = !nearest.length;
    drawTiles(near.strip, route.explain ? [] : nearest);
    const scale = scaleOf(nearest);
    const hueOf = hues(image.tokens.map(([name]) => name));
    const required = new Set();
    arrange(
      near.cards,
      route.explain ? nearest.map((hit) => ({ hit, scale, hueOf, required })) : [],
      (item) => item.hit.id,
      (item) => hitCard(item, acts),
    );
  }

  function drawTiles(list, hits) {
    keyed(
      list,
      hits.map((hit) => ({ hit })),
      (item) => item.hit.id,
      (item) => tile(item, acts),
    );
  }

  function place() {
    const { ids, total } = app.found();
    picture.place(ids.indexOf(route.id), ids.length, total);
  }

  /** Goes to the next (1) or previous (-1) hit; false if this image isn't a hit. */
  function step(by) {
    if (app.found().ids.includes(route.id)) walk(by);
    return app.found().ids.includes(route.id);
  }

  async function walk(by) {
    const from = route.id;
    const goal = app.found().ids.indexOf(from) + by;
    if (goal >= app.found().ids.length && !(await app.found().more())) return;
    const id = app.found().ids[goal];
    if (!id || route.id !== from || parts.element.hidden) return;
    if (image) ahead.set(from, Promise.resolve(image));
    const still = picture.element.getBoundingClientRect().bottom > innerHeight / 2;
    app.go({ ...route, id, find: "", picked: [] }, { replace: true, still });
    say(document.getElementById("said"), `image ${picture.position()}, ${parts.name.textContent}`);
  }

  /** Loads the previous and the next image with their pictures when the page is idle. */
  function lookAhead() {
    if (!image || image.id !== route.id || navigator.connection?.saveData) return;
    const { ids, more } = app.found();
    const here = ids.indexOf(image.id);
    if (here < 0) return;
    if (here === ids.length - 2) more();
    for (const id of [ids[here + 1], ids[here - 1]]) if (id && !ahead.has(id)) fetchAhead(id);
    for (const id of [...ahead.keys()].slice(0, -AHEAD)) ahead.delete(id);
  }

  async function fetchAhead(id) {
    const coming = api.image(id);
    ahead.set(id, coming);
    try {
      const { original, thumbnail } = await coming;
      new Image().src = original ?? thumbnail ?? "";
    } catch {
      ahead.delete(id); // requested again when it is shown, with an error message
    }
  }

  words.find.addEventListener("input", () => change({ find: words.find.value }, "find"));
  words.sort.addEventListener("change", () => change({ sort: words.sort.value }));
  words.clear.addEventListener("click", () => change({ picked: [] }));
  words.pieces.addEventListener("click", () => change({ pieces: !route.pieces }));
  near.explain.addEventListener("click", turn);
  act.path.addEventListener("click", () => copyText(readablePath(image.uri), "Path"));
  act.link.addEventListener("click", () => copyText(location.href, "Link"));
  return {
    element: parts.element,
    show,
    step,
    pan: picture.pan,
    zoom: picture.zoom,
    toggleFull: picture.toggleFull,
    cards: near.element,
    turn,
    name: () => (image ? visible(image.name) : ""),
  };
}

const bare = (name) => name.replace(/^##/, "");
const sizeOf = ({ facts }) => ({ width: facts.width, height: facts.height });
