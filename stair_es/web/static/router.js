// The history: one route at a time, which links, actions and the back button change.

import { buildUrl, stripBasePath } from "./base-url.js";
import { buildHref, parseRoute } from "./routes.js";

const PAGE_PATHS = /^\/(compare|coverage|image\/.*)?$/;

export class Router {
  route = parseRoute(location);
  /** The URL of the last search, to go back to. @type {string} */
  searchUrl = history.state?.from ?? buildUrl("");
  #mergeKey = "";

  /** @param {RouterCallbacks} callbacks */
  constructor({ onNavigate, onShow, onReturn }) {
    this.onNavigate = onNavigate;
    this.onShow = onShow;
    this.onReturn = onReturn;
    history.scrollRestoration = "manual";
    addEventListener("popstate", ({ state }) => this.#handlePop(state?.y ?? 0));
    addEventListener("click", (event) => this.#followLink(event));
  }

  /** Shows the route of the URL. */
  show(isMoved = false) {
    const { view, id } = { id: "", ...this.route };
    const route = parseRoute(location);
    this.route = route;
    if (route.view === "search") this.searchUrl = location.pathname + location.search;
    this.onShow(route, isMoved || route.view !== view || (route.view === "image" && route.id !== id));
  }

  /** Goes to a route. @param {RouteTarget} target @param {NavigateOptions} [options] */
  navigate(target, { mergeKey = "", replace = false, keepScroll = false } = {}) {
    this.onNavigate();
    const href = buildHref(target);
    if (href === location.pathname + location.search) return this.show();
    const previous = this.route;
    if (replace || (mergeKey && mergeKey === this.#mergeKey)) history.replaceState(history.state, "", href);
    else {
      history.replaceState({ ...history.state, y: scrollY }, "");
      history.pushState(this.#buildState(target), "", href);
    }
    this.#mergeKey = mergeKey;
    this.show();
    const isSearchUpdate = previous.view === "search" && target.view === "search";
    if (!keepScroll && !isSearchUpdate) scrollTo(0, 0);
    this.#reportReturn(previous);
  }

  /** Goes back in the history, to the same scroll position, or forward to the search if the image wasn't reached from it. */
  goBackToSearch() {
    if (history.state?.steps) history.go(-history.state.steps);
    else this.navigate(parseRoute(new URL(this.searchUrl, location.href)));
  }

  /** The history state of a step to an image: its search, and the number of steps since. */
  #buildState(/** @type {RouteTarget} */ target) {
    if (target.view !== "image") return {};
    const steps = this.route.view === "search" ? 1 : history.state?.steps && history.state.steps + 1;
    return { from: this.searchUrl, steps };
  }

  #handlePop(/** @type {number} */ y) {
    const previous = this.route;
    this.#mergeKey = "";
    this.show();
    requestAnimationFrame(() => {
      scrollTo(0, y);
      this.#reportReturn(previous);
    });
  }

  #reportReturn(/** @type {Route} */ previous) {
    if (previous.view === "image" && this.route.view === "search") this.onReturn(previous.id);
  }

  /** Follows links within the page without reloading it. */
  #followLink(/** @type {MouseEvent} */ event) {
    const link = event.target instanceof Element ? event.target.closest("a") : null;
    const hasModifier = event.metaKey || event.ctrlKey || event.shiftKey || event.altKey;
    if (!link?.hasAttribute("href") || event.defaultPrevented || event.button || hasModifier) return;
    const url = new URL(link.href);
    const isOurs = url.origin === location.origin && !link.target && !link.hash && PAGE_PATHS.test(stripBasePath(url.pathname));
    if (!isOurs) return;
    event.preventDefault();
    if (link.dataset.nav === "back") this.goBackToSearch();
    else this.navigate(parseRoute(url));
  }
}
