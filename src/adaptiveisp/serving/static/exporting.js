// Files from the page: the pipeline, the picture, a look-up table, and the command that repeats the result.

import { failed, post, postJson, Refused } from "./api.js";
import { h, say } from "./dom.js";
import { pipelineOf } from "./state.js";

function save(blob, name) {
  const address = URL.createObjectURL(blob);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function makeExport(root, store, adopt) {
  const command = h("textarea", { class: "command hidden", readOnly: true, rows: 5, "aria-label": "Command" });
  const note = h("p", { class: "muted small" });
  const stem = () => (store.get("facts").name.split(/[\\/]/).pop() || "image").replace(/\.[^.]*$/, "").replace(/[^\w.-]+/g, "_") || "image";
  const asked = (kind) => {
    if (!store.get("editable")) throw new Refused(`${store.get("policy")} has no pipeline that a file can hold; take the PNG of run`);
    return content(kind);
  };
  const content = (kind) => ({ image: store.get("image"), detector: store.get("detector"), kind, pipeline: pipelineOf(store) });

  async function file(kind, ending, type) {
    const response = await post("/api/image/export", asked(kind));
    const content = kind === "json" ? new Blob([JSON.stringify(await response.json(), null, 2) + "\n"], { type }) : await response.blob();
    save(content, `${stem()}.${ending}`);
    say(`${stem()}.${ending} is saved`);
  }

  async function show() {
    const found = await postJson("/api/image/export", asked("command"));
    command.value = found.command;
    command.classList.toggle("hidden", !found.command);
    note.textContent = found.note;
    if (found.command) { command.focus(); command.select(); }
  }

  const picker = h("input", { type: "file", accept: ".json", class: "sr", tabindex: "-1", "aria-label": "Pipeline JSON to open", onchange: () => openFile(picker.files[0]).catch(failed) });

  async function openFile(file) {
    picker.value = "";
    if (!file) return;
    let content = null;
    try { content = file.size < 1e6 ? JSON.parse(await file.text()) : null; } catch { /* said below */ }
    if (!content || !Array.isArray(content.stages)) return say(`${file.name}: is no pipeline JSON`, true);
    await postJson("/api/image/check", { pipeline: content });
    await adopt({ module_set: content.module_set || "extended", stages: content.stages.map((stage) => ({ module: stage.module, params: stage.params || {} })) }, `${file.name} is open`);
  }

  const entry = (title, text, work) => h("li", {}, h("button", { type: "button", onclick: () => work().catch(failed) }, title), h("p", { class: "muted small" }, text));
  root.replaceChildren(h("ul", { class: "exports" },
    entry("Pipeline JSON", "for run --pipeline and eval --policy", () => file("json", "pipeline.json", "application/json")),
    entry("PNG", "the detector's input, as run writes it", () => file("png", "png", "image/png")),
    entry("Look-up table .cube", "colours of the pointwise stages, looked up by cube-root RGB", () => file("cube", "cube", "text/plain")),
    entry("Command line", "that repeats this result", show)), command, note,
  h("h3", {}, "Open"), h("ul", { class: "exports" }, entry("Open a pipeline JSON", "as run --pipeline takes it", async () => picker.click())), picker);
}
