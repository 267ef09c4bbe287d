// The list of images, with a place to drop raws.

import { failed, idle, remove, upload } from "./api.js";
import { h, number, replace, say } from "./dom.js";

export function makeList(catalogue, open) {
  const list = h("ul", { class: "images", "aria-label": "Images" });
  const search = h("input", { type: "search", placeholder: "Find an image", "aria-label": "Find an image", oninput: show });
  const picker = h("input", { type: "file", multiple: true, class: "sr", "aria-label": "Raw files to open", tabindex: "-1", onchange: () => take([...picker.files]) });
  const zone = h("button", { type: "button", class: "drop", onclick: () => picker.click() }, "Drop raws here, or choose");
  const root = h("aside", { class: "side-list", "aria-label": "Images" }, h("div", { class: "list-head" }, search), list, h("div", { class: "list-foot" }, zone, picker));
  let current = "";

  function shown() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    return catalogue.images.filter((image) => words.every((word) => `${image.name} ${image.group}`.toLowerCase().includes(word)));
  }

  function show() {
    const nodes = [];
    let group = null;
    for (const image of shown().slice(0, 1500)) {
      if (image.group !== group) {
        group = image.group;
        nodes.push(h("li", { class: "group" }, group));
      }
      const facts = [image.light !== null && image.light !== undefined ? `light ${number(image.light, 2)}` : "",
        image.labels !== null ? `${image.labels} ${image.labels === 1 ? "label" : "labels"}` : ""].filter(Boolean).join(" · ");
      const off = image.uploaded ? h("button", {
        type: "button", class: "quiet away", "aria-label": `Remove ${image.name}`, onclick: () => away(image).catch(failed),
      }, "×") : null;
      nodes.push(h("li", {}, h("button", {
        type: "button", class: "image-pick", "data-id": image.id, "aria-current": image.id === current ? "true" : null,
        title: image.name, onclick: () => open(image.id),
      }, h("span", { class: "image-name" }, image.name), facts ? h("span", { class: "muted small" }, facts) : null), off));
    }
    replace(list, nodes.length ? nodes : h("li", { class: "muted small nothing" }, catalogue.images.length ? "no image of that name" : "no images yet; drop a raw below"));
  }

  async function away(image) {
    catalogue.images = catalogue.images.filter((one) => one !== image);
    if (current === image.id && catalogue.images.length) await open(catalogue.images[0].id);
    show();
    await idle();
    await remove(image.id);
  }

  async function take(files) {
    let first = null;
    for (const file of files) {
      say(`reading ${file.name} …`);
      try {
        const made = await upload(file);
        catalogue.images.unshift(made);
        first = first || made.id;
        say(`${made.name} is open`);
      } catch (error) { failed(error); }
    }
    picker.value = "";
    show();
    if (first) open(first);
  }

  function select(id) {
    current = id;
    show();
    const node = list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (node) node.scrollIntoView({ block: "nearest" });
  }

  function step(by) {
    const images = shown();
    const next = images[images.findIndex((image) => image.id === current) + by];
    if (next) open(next.id);
  }

  for (const name of ["dragover", "drop"]) {
    window.addEventListener(name, (event) => {
      if (!event.dataTransfer || ![...event.dataTransfer.types].includes("Files")) return;
      event.preventDefault();
      zone.classList.toggle("over", name === "dragover");
      if (name === "drop") take([...event.dataTransfer.files]);
    });
  }
  window.addEventListener("dragleave", () => zone.classList.remove("over"));
  show();
  return { root, select, step };
}
