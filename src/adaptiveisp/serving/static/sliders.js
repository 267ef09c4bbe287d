// Sliders of a stage, made from the module's declaration: range, unit and scale.

import { h, number, signed } from "./dom.js";

const STEPS = 1000;

export function toPlace(param, value) {
  if (param.scale === "log") return Math.log(value / param.low) / Math.log(param.high / param.low);
  return (value - param.low) / (param.high - param.low);
}

export function toValue(param, place) {
  if (param.scale === "log") return param.low * (param.high / param.low) ** place;
  return param.low + (param.high - param.low) * place;
}

function rounded(param, value) {
  const step = param.scale === "log" ? Math.abs(value) / 1000 : (param.high - param.low) / 20000;
  const digits = Math.min(8, Math.max(0, Math.ceil(-Math.log10(step || 1e-8))));
  return Math.min(param.high, Math.max(param.low, Number(value.toFixed(digits))));
}

// One row for each parameter. `slopes` has the change of the loss for a tenth of a slider's way, by parameter.
export function sliders(module, stage, chosen, slopes, changed) {
  return module.params.map((param) => {
    const name = `${param.name}${param.unit ? `, ${param.unit}` : ""}`;
    const id = `${stage.key}-${param.name}`;
    const range = h("input", { type: "range", id, min: "0", max: String(STEPS), step: "1", "data-param": param.name });
    const box = h("input", { type: "number", class: "num", step: "any", min: String(param.low), max: String(param.high), "aria-label": `${name}, as a number` });
    const show = () => {
      const value = stage.params[param.name];
      range.value = String(Math.round(STEPS * toPlace(param, value)));
      range.setAttribute("aria-valuetext", `${number(value, 4)} ${param.unit}`.trim());
      box.value = String(Number(value.toPrecision(4)));
    };
    const take = (value, final) => {
      stage.params[param.name] = Math.min(param.high, Math.max(param.low, value));
      changed(stage, final);
      show();
    };
    range.addEventListener("input", () => take(rounded(param, toValue(param, Number(range.value) / STEPS)), false));
    range.addEventListener("change", () => changed(stage, true));
    box.addEventListener("change", () => (Number.isFinite(box.valueAsNumber) ? take(box.valueAsNumber, true) : show()));
    const back = chosen && param.name in chosen ? chosen[param.name] : param.neutral;
    const reset = h("button", {
      type: "button", class: "quiet reset", title: chosen ? `back to the policy's ${number(back)}` : `neutral, ${number(back)}`,
      "aria-label": `${param.name}: ${chosen ? "back to the policy's value" : "neutral value"}`, onclick: () => take(back, true),
    }, "↺");
    show();
    const slope = slopes && slopes[param.name];
    const hint = slope === undefined || slope === null || Math.abs(slope) < 5e-4 ? null : h("p", { class: "hint" },
      h("span", { class: "good" }, slope > 0 ? "← lowers the loss" : "lowers the loss →"),
      ` by about ${number(Math.abs(slope), 2)} for a tenth of the way`);
    return h("div", { class: "param" },
      h("label", { for: id }, param.name, param.unit ? h("span", { class: "muted" }, ` ${param.unit}`) : null),
      box, reset, range, hint);
  });
}

export { signed };
