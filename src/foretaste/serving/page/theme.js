// Light or dark: the system's choice until the reader makes one. It runs before the page is
// painted, so that nobody who chose dark sees a white flash.
(() => {
  const KEY = "foretaste.theme";
  const system = matchMedia("(prefers-color-scheme: dark)");
  const sheet = document.getElementById("dark");
  let chosen = null;
  try {
    chosen = localStorage.getItem(KEY);
  } catch {
    // A browser that keeps nothing follows the system.
  }

  const isDark = () => (chosen === null ? system.matches : chosen === "dark");
  const apply = () => {
    if (chosen !== null) sheet.media = chosen === "dark" ? "all" : "not all";
  };

  apply();
  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      chosen = isDark() ? "light" : "dark";
      apply();
      try {
        localStorage.setItem(KEY, chosen);
      } catch {
        // It holds until the page is closed.
      }
    });
  });
})();
