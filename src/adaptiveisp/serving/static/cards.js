// The pipeline as a row of cards: a small picture after each stage, its histogram, time and switch.

import { bitmapOf } from "./api.js";
import { h, number, signed } from "./dom.js";
import { histogram } from "./histogram.js";

export function makeCards(actions) {
  const row = h("ol", { class: "cards", "aria-label": "Stages of the pipeline" });
  let dragged = null;

  function card(key, title, extra = {}) {
    const picture = h("canvas", { width: 176, height: 110, "aria-hidden": "true" });
    const pick = h("button", { type: "button", class: "card-pick", onclick: () => actions.select(key) }, picture, h("span", { class: "card-name", title }, title));
    const node = h("li", { class: `card ${extra.kind || ""}`, "data-key": key, draggable: extra.stage ? "true" : null }, pick, h("div", { class: "card-foot" }));
    if (extra.stage) drag(node, key);
    return node;
  }

  function drag(node, key) {
    node.addEventListener("dragstart", (event) => { dragged = key; event.dataTransfer.effectAllowed = "move"; event.dataTransfer.setData("text/plain", key); });
    node.addEventListener("dragend", () => { dragged = null; row.querySelectorAll(".over").forEach((one) => one.classList.remove("over")); });
    node.addEventListener("dragover", (event) => { if (dragged && dragged !== key) { event.preventDefault(); node.classList.add("over"); } });
    node.addEventListener("dragleave", () => node.classList.remove("over"));
    node.addEventListener("drop", (event) => { event.preventDefault(); if (dragged && dragged !== key) actions.place(dragged, key); });
  }

  function show(stages, selected) {
    const nodes = [card("raw", "raw", { kind: "end" })];
    stages.forEach((stage, index) => {
      const node = card(stage.key, `${index + 1} ${stage.module}`, { stage });
      node.classList.toggle("off", !stage.on);
      const input = h("input", { type: "checkbox", checked: stage.on, "aria-label": `${index + 1} ${stage.module} on` });
      input.addEventListener("change", () => actions.toggle(stage.key));
      node.append(h("span", { class: "switch" }, input, h("span")));
      nodes.push(node);
    });
    nodes.push(card("result", "result", { kind: "end" }));
    row.replaceChildren(...nodes);
    select(selected);
  }

  function select(selected) {
    for (const node of row.children) {
      const on = node.dataset.key === selected;
      node.classList.toggle("selected", on);
      if (on) node.firstChild.setAttribute("aria-current", "true");
      else node.firstChild.removeAttribute("aria-current");
      if (on) node.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }

  async function fill(stages, views) {
    const places = new Map([["raw", 0], ["result", views.length - 1]]);
    let at = 0;
    for (const stage of stages) {
      if (stage.on) at += 1;
      places.set(stage.key, at);
    }
    for (const node of [...row.children]) {
      const view = views[places.get(node.dataset.key)];
      const stage = stages.find((one) => one.key === node.dataset.key);
      if (!view) continue;
      const canvas = node.querySelector("canvas"), context = canvas.getContext("2d");
      const bitmap = await bitmapOf(view.thumb, "image/jpeg");
      const scale = Math.max(canvas.width / bitmap.width, canvas.height / bitmap.height);
      const size = [bitmap.width * scale, bitmap.height * scale];
      context.clearRect(0, 0, canvas.width, canvas.height);
      context.drawImage(bitmap, (canvas.width - size[0]) / 2, (canvas.height - size[1]) / 2, ...size);
      const off = stage && !stage.on;
      const time = off ? "off" : view.left_out ? "left out: grey" : stage ? `${number(view.ms, 2)} ms` : "";
      node.querySelector(".card-foot").replaceChildren(
        histogram(view.histogram, 176, 26, `Histogram after ${node.dataset.key === "raw" ? "development" : node.dataset.key === "result" ? "all stages" : stage.module}`),
        h("div", { class: "card-time" }, h("span", { class: "muted small num" }, stage ? time : view.lift > 1 && node.dataset.key === "raw" ? `shown ${number(view.lift, 2)}× brighter` : "")));
    }
  }

  const reveal = (key) => [...row.children].find((node) => node.dataset.key === key)?.scrollIntoView({ block: "nearest", inline: "nearest" });

  // What each stage is worth, by its key, or null for nothing.
  function showWorth(worth) {
    row.querySelectorAll(".worth").forEach((one) => one.remove());
    for (const node of row.children) {
      const value = worth && worth[node.dataset.key];
      if (value) node.append(h("span", { class: `chip worth ${value.kind}`, title: value.text }, value.short));
    }
  }

  return { row, show, select, fill, reveal, showWorth };
}

// What a stage is worth, from the pipeline without it: by the loss, or without labels by the scores of the boxes.
export function worthOf(whole, without, least) {
  const sum = (boxes) => boxes.filter((box) => box.score >= least).reduce((total, box) => total + box.score, 0);
  if (whole.loss !== null && without.loss !== null) {
    const change = without.loss - whole.loss;
    const kind = change > 5e-3 ? "good" : change < -5e-3 ? "bad" : "";
    return { change, kind, short: kind === "good" ? `helps ${number(change, 2)}` : kind === "bad" ? `hurts ${number(-change, 2)}` : "≈ 0",
      text: `the loss is ${number(without.loss)} without this stage and ${number(whole.loss)} with it` };
  }
  const change = sum(whole.boxes) - sum(without.boxes);
  const kind = change > 0.05 ? "good" : change < -0.05 ? "bad" : "";
  return { change, kind, short: kind ? `${kind === "good" ? "helps" : "hurts"} ${signed(change, 2)}` : "≈ 0",
    empty: !sum(whole.boxes) && !sum(without.boxes),
    text: `the scores of the boxes change by ${signed(change, 2)} in all with this stage, whether they are right or not` };
}

// What the stages are worth in a sentence, from {name, worth} of each in their order.
export function worthText(stages, least) {
  const bad = stages.filter((one) => one.worth.kind === "bad").sort((a, b) => a.worth.change - b.worth.change).slice(0, 3).map((one) => one.name);
  if (bad.length) return `${bad[0]} hurts most${bad.length > 1 ? `, then ${bad.slice(1).join(" and ")}` : ""}, on this image; change it or switch it off`;
  if (stages.length && stages.every((one) => one.worth.empty)) return `no box of ${Math.round(100 * least)} % with or without any stage; lower the score or take another image`;
  return "no stage hurts on this image";
}
