// Histograms: the share of pixels by value for red, green and blue, heights by the square root so that tails show.

import { svg } from "./dom.js";

const COLOURS = ["#e4572e", "#2f9e6e", "#3f7fd9"];

export function histogram(bins, width, height, label) {
  const most = Math.max(...bins.flat(), 1e-9);
  const paths = bins.map((channel, index) => {
    const step = width / channel.length;
    let path = `M0 ${height}`;
    channel.forEach((share, i) => {
      const y = (height - (height - 1) * Math.sqrt(share / most)).toFixed(1);
      path += `V${y}H${((i + 1) * step).toFixed(1)}`;
    });
    return svg("path", { d: `${path}V${height}Z`, fill: COLOURS[index], "fill-opacity": "0.42", stroke: COLOURS[index], "stroke-width": "0.8" });
  });
  const clipped = bins.some((channel) => channel[channel.length - 1] > 0.02);
  const text = `${label}${clipped ? ", some values are at the upper end" : ""}`;
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "histogram", role: "img", "aria-label": text }, paths);
}
