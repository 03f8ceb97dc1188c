// Sets the selected theme, else the system's, before anything is drawn. Not a module, so that the page doesn't flash.

(() => {
  const root = document.documentElement;
  let chosen = null;
  try {
    chosen = localStorage.getItem("stair-es-theme");
  } catch {
    // Storage may be forbidden: use the system's theme.
  }
  const dark = chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "dark" : "light";
})();
