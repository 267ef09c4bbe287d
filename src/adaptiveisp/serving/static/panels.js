// The panel beside the picture: the selected stage with its sliders, facts about the raw, and the list of boxes.

import { failed } from "./api.js";
import { STYLES, styleOf } from "./boxes.js";
import { h, number, replace, signed } from "./dom.js";
import { histogram } from "./histogram.js";
import { sliders } from "./sliders.js";
import { placeOf } from "./state.js";

export function stagePanel(root, store, actions, keepSliders) {
  const selected = store.get("selected"), stage = store.get("stages").find((one) => one.key === selected);
  const views = store.get("views"), view = views[placeOf(store, selected)];
  if (keepSliders && root.dataset.shown === selected && stage) {
    const old = root.querySelector(".stage-histogram");
    if (old && view) replace(old, histogram(view.histogram, 300, 64, "Histogram after this stage"));
    return;
  }
  root.dataset.shown = selected;
  replace(root, stage ? ofStage(stage, store, actions, view) : selected === "raw" ? ofRaw(store, view) : ofResult(store, actions, view));
}

function picture(view) {
  return h("div", { class: "stage-histogram" }, view ? histogram(view.histogram, 300, 64, "Histogram after this stage") : null);
}

function ofStage(stage, store, actions, view) {
  const module = store.get("modules").get(stage.module);
  const same = store.get("chosen").filter((one) => one.module === stage.module);
  const chosen = same.length === 1 ? same[0].params : null;
  const slopes = store.get("slopes");
  const input = h("input", { type: "checkbox", checked: stage.on, "aria-label": "stage on", onchange: () => actions.toggle(stage.key) });
  return [
    h("div", { class: "stage-head" }, h("h2", {}, stage.module), h("span", { class: "switch" }, input, h("span"))),
    module ? h("p", { class: "muted small" }, module.effect) : null,
    h("div", { class: "stage-buttons" },
      h("button", { type: "button", onclick: () => actions.move(-1), "aria-label": "Move the stage earlier" }, "← earlier"),
      h("button", { type: "button", onclick: () => actions.move(1), "aria-label": "Move the stage later" }, "later →"),
      h("button", { type: "button", onclick: actions.removeStage }, "Remove")),
    picture(view),
    module && module.params.length ? sliders(module, stage, chosen, slopes && slopes[stage.key], actions.moved) : h("p", { class: "muted" }, "This module has no parameters."),
    slopeButton(store, actions),
  ];
}

function slopeButton(store, actions) {
  const facts = store.get("facts");
  if (!facts || !facts.has_loss) return h("p", { class: "muted small" }, "Which slider would help can be computed only for images with labels: open a data set. Without labels, “What is each stage worth?” goes by the scores of the boxes.");
  if (!store.get("editable")) return null;
  return h("button", { type: "button", class: "wide", onclick: () => actions.findSlopes().catch(failed) }, "Which slider would help?");
}

function ofRaw(store, view) {
  const facts = store.get("facts");
  if (!facts) return null;
  const row = (name, value) => (value === null || value === undefined ? null : h("tr", {}, h("th", { scope: "row" }, name), h("td", {}, value)));
  const raw = facts.facts;
  return [h("h2", {}, facts.name), picture(view), h("table", {}, h("tbody", {},
    row("full frame", `${facts.full[0]}×${facts.full[1]}`), row("worked on at", `${facts.small[0]}×${facts.small[1]}`), row("pattern", raw.pattern),
    row("levels", `${number(raw.black)} to ${number(raw.white, 5)}`), row("camera", raw.camera), row("ISO", raw.iso),
    row("exposure", raw.exposure_s ? `${number(raw.exposure_s)} s` : null), row("light", facts.light !== null ? number(facts.light) : null),
    row("read, develop", `${number(facts.times.read, 2)} ms, ${number(facts.times.develop, 2)} ms`))),
  facts.remarks.map((text) => h("p", { class: "small" }, text))];
}

function ofResult(store, actions, view) {
  const after = store.get("after"), before = store.get("before"), verdict = store.get("verdict"), slopes = store.get("slopes");
  const total = store.get("views").slice(1).reduce((sum, one) => sum + one.ms, 0);
  const parts = [h("h2", {}, "Result"), picture(view)];
  if (after && verdict) {
    const count = (name) => verdict.list.filter((box) => box.change === name).length;
    const row = (name, ...value) => h("tr", {}, h("th", { scope: "row" }, name), h("td", { class: "num" }, value));
    const change = after.loss !== null && before && before.loss !== null ? after.loss - before.loss : null;
    parts.push(h("table", {}, h("tbody", {},
      row("boxes", String(verdict.list.filter((box) => box.change !== "lost").length)),
      row("gained", h("span", { class: count("gained") ? "good" : "" }, String(count("gained")))), row("lost", h("span", { class: count("lost") ? "bad" : "" }, String(count("lost")))),
      verdict.objects !== null ? row("objects found", `${verdict.found} of ${verdict.objects}`) : null,
      after.loss !== null ? row("loss", number(after.loss), change !== null ? h("span", { class: change < 0 ? "good" : change > 0 ? "bad" : "" }, ` (${signed(change)} against ${store.get("beforeName").split(",")[0]})`) : null) : null,
      row("modules", `${number(total, 2)} ms`), row("detector", `${number(after.ms, 2)} ms`))));
    if (after.loss === null) parts.push(h("p", { class: "muted small" }, `${after.no_loss[0].toUpperCase()}${after.no_loss.slice(1)}.`));
  }
  parts.push(slopeButton(store, actions));
  if (slopes) parts.push(ranking(store, slopes, actions));
  return parts;
}

function ranking(store, slopes, actions) {
  const rows = store.get("stages").flatMap((stage, index) => Object.entries(slopes[stage.key] || {}).map(([param, change]) => ({ stage, index, param, change })));
  rows.sort((a, b) => Math.abs(b.change) - Math.abs(a.change));
  const shown = rows.filter((row) => Math.abs(row.change) >= 5e-4).slice(0, 6);
  if (!shown.length) return h("p", { class: "muted small" }, "No slider changes the loss by more than 0.0005.");
  return h("ul", { class: "ranking" }, shown.map((row) => h("li", {}, h("button", { type: "button", onclick: () => actions.select(row.stage.key) },
    h("span", {}, `${row.index + 1} ${row.stage.module} · ${row.param} ${row.change < 0 ? "→ up" : "← down"}`), h("span", { class: "good num" }, `−${number(Math.abs(row.change), 2)}`)))),
  h("li", { class: "muted small" }, "change of the loss for a tenth of a slider's way, by the gradient"));
}

export function boxesPanel(root, store, pane, against) {
  const verdict = store.get("verdict");
  const word = { kept: "in both", gained: "gained", lost: "lost", missed: "missed", "": "" };
  const rows = [...verdict.list, ...verdict.missed].map((box) => {
    const style = styleOf(box);
    const light = (on) => () => { store.set("highlight", on ? box : null); pane.redraw(); };
    const dot = h("span", { class: `dot ${style.dash.length ? "dashed" : ""}`, "aria-hidden": "true" });
    dot.style.setProperty("--dot", style.colour);
    return h("li", { onmouseenter: light(true), onmouseleave: light(false) }, dot, h("span", { class: "grow" }, box.class),
      box.score !== undefined ? h("span", { class: "num" }, `${Math.round(100 * box.score)} %`) : null,
      h("span", { class: `chip ${box.change === "gained" ? "good" : box.change === "lost" || box.change === "missed" ? "bad" : ""}` }, word[box.change]),
      box.verdict === "false" ? h("span", { class: "chip" }, "no label") : null);
  });
  const labels = verdict.objects !== null ? `${verdict.found} of ${verdict.objects} labelled objects are found. ` : "This image has no labels. ";
  replace(root, h("p", { class: "muted small" }, `${labels}Gained and lost are against ${against}.`),
    rows.length ? h("ul", { class: "box-list" }, rows) : h("p", { class: "muted" }, "No boxes of this score."));
}

export { STYLES };
