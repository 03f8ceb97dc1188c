// Starts the page: its header, and one view for each kind of route.

import { ApiError, encodeImage, getAbout } from "./api.js";
import { CompareView } from "./compare-view.js";
import { CoverageView } from "./coverage-view.js";
import { createIcon, createIconButton, escapeControls, getById, getKey, h, renderList, setProps, setValue } from "./dom.js";
import { listenForImages, loadThumbnail, saveThumbnail } from "./image-upload.js";
import { ImageView } from "./image-view.js";
import { copyText, showError } from "./notifications.js";
import { EMPTY_QUERY, setQueryText, setVector } from "./query.js";
import { Router } from "./router.js";
import { buildCompareHref } from "./routes.js";
import { SearchView } from "./search-view.js";
import { listenForShortcuts } from "./shortcuts.js";
import { TeachMode } from "./teach-mode.js";

const MIB = 1024 ** 2;
const THEME_KEY = "stair-es-theme";

const main = getById("main");
const searchBox = /** @type {HTMLInputElement} */ (getById("text"));
/** The images of lists by their ids, for chips and for the image's page. @type {Map<string, ImageSummary>} */
const images = new Map();
let isAboutLoading = false;

/** @type {App} */
const app = {
  about: null,
  aboutError: null,
  navigate: (target, options) => router.navigate(target, options),
  loadAbout,
  renderTitle,
  getImage: (id) => images.get(id),
  rememberImages,
  getHitSequence: () => views.search.getHitSequence(),
  get teach() {
    return teach;
  },
  searchAgain,
};
const teach = new TeachMode(app);
const views = {
  search: new SearchView(app),
  image: new ImageView(app),
  compare: new CompareView(app),
  coverage: new CoverageView(app),
};
const forgetAboutError = () => {
  app.aboutError = null; // so that it is requested again
};
const router = new Router({ onNavigate: forgetAboutError, onShow: showRoute, onReturn: focusReturnedImage });

function showRoute(/** @type {Route} */ route, /** @type {boolean} */ isMoved) {
  document.body.dataset.view = route.view;
  for (const [name, view] of Object.entries(views)) view.element.hidden = name !== route.view;
  renderHeader();
  /** @type {{show: (route: any) => void}} */ (views[route.view]).show(route);
  renderTitle();
  if (!app.about && !app.aboutError && !isAboutLoading) loadAbout();
  if (isMoved && document.activeElement === document.body) main.focus({ preventScroll: true });
}

/** Back at the hits: focuses the image that was opened last, and scrolls to it if it isn't visible. */
function focusReturnedImage(/** @type {string} */ id) {
  const item = views.search.element.querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (item?.matches(".waiting"))
    for (const waiting of [...(item.parentElement?.children ?? [])]) waiting.classList.remove("waiting");
  /** @type {HTMLElement | null | undefined} */ (item?.querySelector("a[href]:not([tabindex='-1'])"))?.focus({
    preventScroll: true,
  });
  item?.scrollIntoView({ block: "nearest" });
}

/** The query of the search; elsewhere the empty one. */
const getQuery = () => (router.route.view === "search" ? router.route.query : EMPTY_QUERY);

// ---- The header ----

function renderHeader() {
  setValue(searchBox, getQuery().text);
  /** @type {NodeListOf<HTMLAnchorElement>} */
  const links = document.querySelectorAll("a[data-nav]");
  for (const link of links) {
    if (link.dataset.nav === "back" || link.dataset.nav === "search") link.href = router.searchUrl;
    else if (link.dataset.nav === "compare") link.href = buildCompareHref(router.searchUrl);
    else if (link.dataset.nav === "coverage") link.hidden = !app.about?.coverage;
    setProps(link, { "aria-current": link.dataset.nav === router.route.view ? "page" : null });
  }
  teach.update(app.about?.teach ?? false, router.route.view === "search");
  renderChips();
}

/** The title of the tab: the content, and the title of the page. */
function renderTitle() {
  const { route } = router;
  const fixed = { compare: "Compare", coverage: "Coverage" };
  const content = { search: escapeControls(getQuery().text), image: views.image.getTitle(), ...fixed }[route.view];
  document.title = [content, app.about ? escapeControls(app.about.title) : "stair-es"].filter(Boolean).join(" · ");
}

/** The images in the query: an uploaded one, and one from the index. */
function renderChips() {
  const query = getQuery();
  const chips = [];
  if (query.vector.length) chips.push(buildUploadChip(query));
  if (query.like) chips.push(buildSimilarChip(query));
  renderList(getById("chips"), chips, getKey, createChip);
  getById("chips").hidden = !chips.length;
}

/** @param {Query} query @returns {QueryChip} */
const buildUploadChip = ({ vector }) => ({
  key: `vector ${vector.length} ${vector[0][0]}`,
  label: `an image's ${vector.length} words`,
  thumbnail: loadThumbnail(vector),
  getRest: () => setVector(getQuery(), []),
});

/** @param {Query} query @returns {QueryChip} */
function buildSimilarChip({ like }) {
  const image = images.get(like);
  return {
    key: `like ${like} ${Boolean(image)}`,
    label: `like ${escapeControls(image?.name ?? "an image")}`,
    thumbnail: image?.thumbnail ?? null,
    getRest: () => ({ ...getQuery(), like: "" }),
  };
}

function createChip(/** @type {QueryChip} */ { label, thumbnail, getRest }) {
  const showIcon = (/** @type {Event} */ { target }) => /** @type {Element} */ (target).replaceWith(createIcon("picture"));
  const props = { src: thumbnail, alt: "", width: 28, height: 28, on: { error: showIcon } };
  const remove = () => app.navigate({ view: "search", query: getRest() });
  const button = createIconButton("close", `Remove ${label}`, { on: { click: remove } });
  const picture = thumbnail ? h("img", props) : createIcon("picture");
  return { element: h("li", { class: "chip image-chip" }, picture, h("span", {}, label), button) };
}

function renderTheme() {
  const isDark = document.documentElement.dataset.theme === "dark";
  getById("theme").replaceChildren(createIcon(isDark ? "sun" : "moon"));
  setProps(getById("theme"), { "aria-pressed": String(isDark) });
}

function switchTheme() {
  const { dataset } = document.documentElement;
  dataset.theme = dataset.theme === "dark" ? "light" : "dark";
  try {
    localStorage.setItem(THEME_KEY, dataset.theme);
  } catch {
    // Storage is full or forbidden: nothing is kept.
  }
  renderTheme();
}

const copyLink = () => copyText(location.href, "Link");

// ---- Effects ----

/** Remembers what lists tell about images. @param {(ImageSummary & {id: string})[]} listed */
function rememberImages(listed) {
  for (const { id, name, thumbnail, caption, width, height, duplicates } of listed)
    images.set(id, { name, thumbnail, caption, width, height, duplicates });
  if (images.has(getQuery().like)) renderChips();
}

/** Searches with the picture of the user. */
async function searchByImage(/** @type {Blob} */ blob) {
  const maxBytes = app.about?.max_upload_bytes ?? Infinity;
  if (blob.size > maxBytes) {
    const [size, limit] = [blob.size, maxBytes].map((bytes) => `${(bytes / MIB).toFixed(1)} MiB`);
    const remedy = "Use a smaller one: 640 pixels are enough.";
    return showError(new ApiError(`the image has ${size}; at most ${limit} are allowed`, remedy, 0));
  }
  document.body.classList.add("reading");
  try {
    const { tokens, thumbnail } = await encodeImage(blob);
    /** @type {TokenWeight[]} */
    const vector = tokens.map(([token, weight]) => [token, Number(weight.toFixed(4))]);
    saveThumbnail(vector, thumbnail);
    app.navigate({ view: "search", query: setVector({ ...getQuery(), like: "" }, vector) });
  } catch (error) {
    showError(/** @type {Error} */ (error));
  } finally {
    document.body.classList.remove("reading");
  }
}

/** Searches again after a change of the index, for another text if one is given. @param {string} [text] */
function searchAgain(text) {
  views.search.forgetAnswers();
  app.navigate({ view: "search", query: text === undefined ? getQuery() : { ...EMPTY_QUERY, text } });
  loadAbout();
}

/** Loads the facts about the server, and words to try; after a failure it is requested again with the next step. */
async function loadAbout() {
  isAboutLoading = true;
  app.aboutError = null;
  try {
    app.about = await getAbout();
    getById("title").textContent = escapeControls(app.about.title);
  } catch (error) {
    app.aboutError = /** @type {Error} */ (error);
  }
  isAboutLoading = false;
  router.show();
}

// ---- Keys ----

/** Closes what is open, or goes back; false if there is nothing. */
function closeOrGoBack() {
  const { drawer } = views.search.layout;
  const { zoom } = views.image.viewer;
  const focused = document.activeElement;
  if (drawer.isOpen()) drawer.setOpen(false);
  else if (focused instanceof HTMLInputElement) focused.blur();
  else if (teach.hidePreview()) return true;
  else if (router.route.view !== "image") return false;
  else if (zoom.isZoomed()) zoom.reset();
  else router.goBackToSearch();
  return true;
}

/** Searches for images like the focused or the shown one; false if there is none. */
function searchSimilar() {
  const focusedId = document.activeElement?.closest("[data-id]")?.getAttribute("data-id");
  const id = focusedId ?? (router.route.view === "image" ? router.route.id : null);
  if (id === null) return false;
  app.navigate({ view: "search", query: views.search.buildSimilarQuery(id) });
}

/** @param {string} key */
function moveByArrow(key) {
  if (router.route.view === "search") return views.search.moveFocus(key);
  return router.route.view === "image" && views.image.moveByArrow(key);
}

/** An action on the shown image; elsewhere the key does nothing. @param {(view: ImageView) => unknown} action */
const createImageAction = (action) => () => router.route.view === "image" && action(views.image);

const zoomIn = createImageAction(({ viewer }) => viewer.zoom.zoomBy(1));
const showShortcuts = listenForShortcuts(
  {
    "/": () => {
      searchBox.select();
      searchBox.focus();
    },
    j: createImageAction((view) => view.step(1)),
    k: createImageAction((view) => view.step(-1)),
    z: createImageAction(({ viewer }) => viewer.zoom.toggle()),
    "+": zoomIn,
    "=": zoomIn,
    "-": createImageAction(({ viewer }) => viewer.zoom.zoomBy(-1)),
    f: createImageAction(({ viewer }) => viewer.toggleFullScreen()),
    m: searchSimilar,
    x: () => {
      const view = views[router.route.view];
      return "toggleExplain" in view ? view.toggleExplain() : false;
    },
    e: () => router.route.view === "search" && views.search.layout.drawer.focusContent(),
    c: copyLink,
    t: switchTheme,
    Escape: closeOrGoBack,
  },
  moveByArrow,
);

getById("choose").append(createIcon("picture"));
getById("copy").append(createIcon("link"));
getById("help").append(createIcon("help"));
main.replaceChildren(...Object.values(views).map(({ element }) => element));
main.after(teach.element);
views.search.layout.results.prepend(teach.preview.element);
views.search.layout.status.element.append(teach.opener);
getById("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  app.navigate({ view: "search", query: setQueryText(getQuery(), searchBox.value.trim()) });
});
getById("copy").addEventListener("click", copyLink);
getById("theme").addEventListener("click", switchTheme);
getById("help").addEventListener("click", showShortcuts);
document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // <base> would make it a link to the root
  main.focus();
});
renderTheme();
listenForImages({
  button: getById("choose"),
  input: /** @type {HTMLInputElement} */ (getById("file")),
  onImage: searchByImage,
  onReject: (message) => showError(new ApiError(message, "", 0)),
});
router.show(true);
