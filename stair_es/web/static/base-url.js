// The root of the page: `/`, or the path of a proxy, from the `<base href>` of the page.

/** The path of the page's root, without a slash at its end. */
export const BASE_PATH = new URL(document.baseURI).pathname.replace(/\/+$/, "");

/** The URL of a path below the root, such as `api/about`. @param {string} path */
export const buildUrl = (path) => `${BASE_PATH}/${path}`;

/** The path of a location below the root, with a slash in front: `/image/ID`. @param {string} pathname */
export const stripBasePath = (pathname) => (pathname.startsWith(`${BASE_PATH}/`) ? pathname.slice(BASE_PATH.length) : pathname);
