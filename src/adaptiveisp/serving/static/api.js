// Requests to the viewer. The token stands behind # in the address that the command printed, and goes into a header.

import { say } from "./dom.js";

const STORED = "adaptiveisp-token";

function token() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    localStorage.setItem(STORED, given);
    history.replaceState(null, "", location.pathname + "#/");
  }
  return localStorage.getItem(STORED) || "";
}

const TOKEN = token();

export class Refused extends Error {}

let running = 0;

// Waits until no request is under way, for what must not happen while an image is in use.
export async function idle() {
  do await new Promise((done) => setTimeout(done, 60)); while (running);
}

async function asked(path, options = {}) {
  const headers = { "X-Adaptiveisp-Token": TOKEN, ...(options.headers || {}) };
  let response;
  running += 1;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("the viewer does not answer; is its command still running?");
  } finally {
    running -= 1;
  }
  if (response.ok) return response;
  const text = await response.text();
  let reason = text;
  try { reason = JSON.parse(text).error || text; } catch { /* plain text */ }
  throw new Refused(reason);
}

export async function get(path) {
  return (await asked(path)).json();
}

export async function post(path, content, signal) {
  const options = { method: "POST", body: JSON.stringify(content), headers: { "Content-Type": "application/json" }, signal };
  return asked(path, options);
}

export async function postJson(path, content, signal) {
  return (await post(path, content, signal)).json();
}

export async function upload(file) {
  const options = { method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" } };
  return (await asked(`/api/uploads?name=${encodeURIComponent(file.name)}`, options)).json();
}

export async function remove(id) {
  await asked(`/api/uploads/${encodeURIComponent(id)}`, { method: "DELETE" });
}

export function failed(error) {
  if (error.name !== "AbortError") say(error instanceof Refused ? error.message : `the page failed: ${error.message}`, true);
  if (!(error instanceof Refused) && error.name !== "AbortError") console.error(error);
}

// Runs a function for the latest arguments only: while it runs, newer arguments replace those that wait.
export function latest(work) {
  let running = false, waiting = null;
  return async function run(...given) {
    waiting = given;
    if (running) return;
    running = true;
    try {
      while (waiting) {
        const next = waiting;
        waiting = null;
        try { await work(...next); } catch (error) { failed(error); }
      }
    } finally { running = false; }
  };
}

export function later(work, milliseconds) {
  let timer = 0;
  return (...given) => { clearTimeout(timer); timer = setTimeout(() => work(...given), milliseconds); };
}

export async function bitmapOf(base64, kind) {
  const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return createImageBitmap(new Blob([bytes], { type: kind }));
}

// A picture from its bytes: red, green and blue of each pixel, row by row.
export function bitmapOfPixels(buffer, width, height) {
  const rgb = new Uint8Array(buffer), rgba = new Uint8ClampedArray(width * height * 4);
  for (let from = 0, to = 0; from < rgb.length; from += 3, to += 4) {
    rgba[to] = rgb[from];
    rgba[to + 1] = rgb[from + 1];
    rgba[to + 2] = rgb[from + 2];
    rgba[to + 3] = 255;
  }
  return createImageBitmap(new ImageData(rgba, width, height));
}
