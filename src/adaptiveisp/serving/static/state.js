// What the image page knows: values by name, and who wants to hear of their changes.

export function makeStore(values) {
  const listeners = new Map();
  return {
    get: (name) => values[name],
    set(name, value) {
      values[name] = value;
      for (const work of listeners.get(name) || []) work(value);
    },
    on(names, work) {
      for (const name of names) listeners.set(name, [...(listeners.get(name) || []), work]);
    },
  };
}

let number = 0;

// A stage as the page keeps it: with an identity that survives moves, and a switch.
export function stageOf(module, params, on = true) {
  number += 1;
  return { key: `s${number}`, module, params: { ...params }, on };
}

// The pipeline that the server gets: the stages that are switched on.
export function pipelineOf(store, stages = store.get("stages")) {
  const kept = stages.filter((stage) => stage.on);
  return {
    version: 1,
    module_set: store.get("moduleSet"),
    stages: kept.map((stage) => ({ module: stage.module, params: stage.params })),
  };
}

// The place of a stage among those that are switched on, from 1; 0 for the raw, the last one for the result.
export function placeOf(store, selected) {
  const stages = store.get("stages");
  if (selected === "raw") return 0;
  if (selected === "result") return stages.filter((stage) => stage.on).length;
  const index = stages.findIndex((stage) => stage.key === selected);
  return stages.slice(0, index + 1).filter((stage) => stage.on).length;
}
