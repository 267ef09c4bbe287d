// Why a policy chose its modules: probabilities at each step, what it saw, and what follows from another choice.

import { bitmapOf, failed, postJson } from "./api.js";
import { h, number, replace } from "./dom.js";

const SHOWN = 5;

export function makeWhy(root, store, adopt) {
  async function load() {
    const policy = store.get("policy");
    replace(root, h("p", { class: "muted" }, "asking the policy …"));
    const asked = { image: store.get("image"), detector: store.get("detector"), policy };
    const found = await postJson("/api/image/why", asked);
    const parts = [h("p", { class: "muted small" }, `${policy}: ${found.note}.`)];
    if (found.n_preprocessing) parts.push(h("p", { class: "muted small" }, `${found.n_preprocessing} ${found.n_preprocessing === 1 ? "stage runs" : "stages run"} first by a rule.`));
    found.choices.forEach((choice, step) => parts.push(stepOf(choice, step, found.choices)));
    replace(root, parts);
    found.choices.forEach((choice, step) => { if (choice.seen) paint(choice.seen, root.querySelector(`[data-seen="${step}"]`)).catch(failed); });
  }

  function stepOf(choice, step, choices) {
    const ranked = Object.entries(choice.probabilities).sort((a, b) => b[1] - a[1]);
    const listed = ranked.filter(([name, share], i) => i < SHOWN || name === choice.chosen).filter(([name, share]) => share > 0 || name === choice.chosen);
    const bars = listed.map(([name, share]) => h("li", {},
      h("button", {
        type: "button", class: `bar-row ${name === choice.chosen ? "chosen" : ""}`, disabled: name === choice.chosen,
        title: name === choice.chosen ? "the policy's choice" : `force ${name} here and let the policy go on`,
        onclick: () => force([...choices.slice(0, step).map((one) => one.chosen), name]).catch(failed),
      }, h("span", { class: "bar-name" }, name),
      h("meter", { min: "0", max: "1", value: share, "aria-hidden": "true" }),
      h("span", { class: "num bar-value" }, `${share >= 0.0995 ? Math.round(100 * share) : (100 * share).toFixed(1)} %`))));
    const rest = ranked.length - listed.length;
    const seen = choice.seen ? h("figure", { class: "seen" }, h("canvas", { width: 64, height: 64, "data-seen": String(step), role: "img", "aria-label": "What the policy saw, 64 by 64 pixels" }),
      h("figcaption", { class: "muted small" }, "what it saw, 64×64")) : null;
    return h("section", { class: "why-step" }, h("h3", {}, `Step ${step + 1}: ${choice.chosen}`,
      choice.value !== null ? h("span", { class: "chip" }, `value ${number(choice.value)}`) : null),
    seen, h("ul", { class: "bars" }, bars), rest > 0 ? h("p", { class: "muted small" }, `${rest} others are less likely`) : null);
  }

  async function paint(base64, canvas) {
    const bitmap = await bitmapOf(base64, "image/png");
    canvas.getContext("2d").drawImage(bitmap, 0, 0, 64, 64);
  }

  async function force(begin) {
    const asked = { image: store.get("image"), detector: store.get("detector"), policy: store.get("policy"), begin };
    const found = await postJson("/api/image/force", asked);
    adopt(found.pipeline, `${store.get("policy")} with ${begin[begin.length - 1]} at step ${begin.length}`);
  }

  return { load: () => load().catch((error) => { replace(root, h("p", { class: "muted" }, error.message)); }) };
}
