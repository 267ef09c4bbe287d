// The page: which part of it is shown, and what all parts share.

import { failed, get } from "./api.js";
import { h, replace, say } from "./dom.js";
import { streamPage } from "./stream_page.js";
import { setUpTheme } from "./theme.js";
import { trainingPage } from "./training_page.js";
import { imagePage } from "./image_page.js";
import { reportPage } from "./report_page.js";

const PAGES = {
  image: { title: "Images", make: imagePage },
  report: { title: "Report", make: reportPage },
  training: { title: "Training", make: trainingPage },
  stream: { title: "Stream", make: streamPage },
};
const state = { catalogue: null, open: null };

function address() {
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [page, ...rest] = path.split("/").map(decodeURIComponent);
  return { page: page || "", rest, query: new URLSearchParams(query) };
}

export function link(page, rest = [], query = {}) {
  const path = [page, ...rest].map(encodeURIComponent).join("/");
  const text = new URLSearchParams(query).toString();
  return `#/${path}${text ? "?" + text : ""}`;
}

function available(page) {
  const { catalogue } = state;
  const lists = { report: catalogue.reports, training: catalogue.runs, stream: catalogue.streams };
  return page === "image" || (page in lists && lists[page].length > 0);
}

async function show() {
  const where = address();
  const page = where.page in PAGES && available(where.page) ? where.page : state.catalogue.first in PAGES ? state.catalogue.first : "image";
  const links = Object.entries(PAGES).filter(([name]) => available(name)).map(([name, entry]) =>
    h("a", { href: link(name), "aria-current": name === page ? "page" : null }, entry.title));
  replace(document.getElementById("pages"), links);
  document.title = `${PAGES[page].title} – adaptiveisp view`;
  if (state.open && state.open.name === page && state.open.go) return state.open.go(where);
  if (state.open && state.open.close) state.open.close();
  const main = document.getElementById("page");
  for (const name of Object.keys(main.dataset)) delete main.dataset[name];
  state.open = { name: page, ...(await PAGES[page].make(main, state.catalogue, where)) };
}

async function begin() {
  setUpTheme(document.getElementById("theme"));
  const help = document.getElementById("help");
  document.getElementById("keys").addEventListener("click", () => help.showModal());
  try {
    state.catalogue = await get("/api/catalogue");
  } catch (error) {
    failed(error);
    replace(document.getElementById("page"), h("p", { class: "empty" }, error.message));
    return;
  }
  window.addEventListener("hashchange", () => show().catch(failed));
  await show().catch(failed);
  if (state.catalogue.notes.length) say(state.catalogue.notes[0]);
}

begin();
