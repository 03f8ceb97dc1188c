// The root of the page: `/`, or the path of a proxy, from the `<base href>` of the page.

/** The path of the page's root, without a slash at its end. */
export const ROOT = new URL(document.baseURI).pathname.replace(/\/+$/, "");

/** The URL of a path below the root, such as `api/about`. */
export const urlOf = (path) => `${ROOT}/${path}`;

/** The path of a location below the root, with a slash in front: `/image/ID`. */
export const pathOf = (pathname) => (pathname.startsWith(`${ROOT}/`) ? pathname.slice(ROOT.length) : pathname);
