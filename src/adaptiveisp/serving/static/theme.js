// Light and dark: as the system says, until the switch decides.

const STORED = "adaptiveisp-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

function apply() {
  const chosen = localStorage.getItem(STORED) || (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = chosen;
  document.dispatchEvent(new Event("themechange"));
}

export function setUpTheme(button) {
  system.addEventListener("change", apply);
  button.addEventListener("click", () => {
    localStorage.setItem(STORED, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  apply();
}

export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
