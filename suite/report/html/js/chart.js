// Axes, scales, marks and the one tooltip of every chart.
"use strict";

const MARGIN = { left: 52, right: 14, top: 12, bottom: 40 };

/** Round numbers between two ends. */
function ticksOf(low, high, most) {
  const raw = (high - low) / Math.max(1, most);
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= raw);
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k += 1) found.push(Number((k * step).toPrecision(12)));
  return found;
}

/** Ticks of a logarithmic axis: 1, 2 and 5 times the powers of ten, fewer where there are many. */
function logTicks(low, high, most) {
  const found = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const factor of [1, 2, 5]) {
      const value = Number((factor * 10 ** power).toPrecision(6));
      if (value >= low && value <= high) found.push(value);
    }
  }
  return found.length > most ? found.filter((value) => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9) : found;
}

/** Numbers with as many digits as it takes to tell neighbours apart. */
function written(ticks, sign = false) {
  const gap = Math.min(...ticks.slice(1).map((tick, k) => tick - ticks[k]));
  const digits = ticks.length < 2 ? 2 : Math.max(0, -Math.floor(Math.log10(gap) + 1e-9));
  return (tick) => fixed(tick, digits, sign && tick !== 0);
}

function scaleOf({ low, high, log }, from, to) {
  const a = log ? Math.log(low) : low;
  const b = log ? Math.log(high) : high;
  const at = (value) => from + ((log ? Math.log(Math.max(value, low)) : value) - a) / (b - a || 1) * (to - from);
  return at;
}

/** An SVG with axes. Returns `node`, `plot` (where to draw), scales `x` and `y`, and its `width` and `height`. */
function axes({ width, height, x, y, label, margin = MARGIN }) {
  const sx = scaleOf(x, margin.left, width - margin.right);
  const sy = scaleOf(y, height - margin.bottom, margin.top);
  const node = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, class: "chart" });
  const clip = `clip-${axes.count = (axes.count || 0) + 1}`;
  node.append(svg("clipPath", { id: clip }, svg("rect", {
    x: margin.left, y: margin.top - 4, width: width - margin.left - margin.right, height: height - margin.top - margin.bottom + 8,
  })));
  const frame = svg("g", { class: "axes", "aria-hidden": "true" });
  const xTicks = x.ticks || (x.log ? logTicks(x.low, x.high, width / 60) : ticksOf(x.low, x.high, width / 80));
  const xText = x.log || x.ticks ? String : written(xTicks, x.sign);
  for (const tick of xTicks) {
    const at = sx(tick);
    frame.append(svg("line", { x1: at, x2: at, y1: margin.top, y2: height - margin.bottom, class: "grid" }),
      svg("text", { x: at, y: height - margin.bottom + 15, "text-anchor": "middle" }, xText(tick)));
  }
  const yTicks = y.ticks || ticksOf(y.low, y.high, height / 55);
  const yText = written(yTicks);
  for (const tick of yTicks) {
    const at = sy(tick);
    frame.append(svg("line", { x1: margin.left, x2: width - margin.right, y1: at, y2: at, class: "grid" }),
      svg("text", { x: margin.left - 6, y: at + 4, "text-anchor": "end" }, yText(tick)));
  }
  if (x.label) frame.append(svg("text", { x: (margin.left + width - margin.right) / 2, y: height - 6, "text-anchor": "middle", class: "axis-title" }, x.label));
  if (y.label) {
    frame.append(svg("text", { transform: `translate(12 ${(margin.top + height - margin.bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "axis-title" }, y.label));
  }
  const plot = svg("g", { "clip-path": `url(#${clip})` });
  node.append(frame, plot);
  return { node, plot, x: sx, y: sy, width, height };
}

/** A path through points; gaps where a value is not known. */
function linePath(xs, ys) {
  let pen = "M";
  let path = "";
  for (let k = 0; k < xs.length; k += 1) {
    if (ys[k] === null || Number.isNaN(ys[k])) { pen = "M"; continue; }
    path += `${pen}${xs[k].toFixed(1)} ${ys[k].toFixed(1)}`;
    pen = "L";
  }
  return path;
}

function bandPath(xs, lows, highs) {
  if (!xs.length) return "";
  const back = [...xs.keys()].reverse();
  return `${linePath(xs, lows)}${back.map((k) => `L${xs[k].toFixed(1)} ${highs[k].toFixed(1)}`).join("")}Z`;
}

const OUTLINES = {
  circle: (r) => `M${-r} 0a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0Z`,
  square: (r) => `M${-r} ${-r}H${r}V${r}H${-r}Z`,
  diamond: (r) => polygon(4, 1.3 * r, 0),
  up: (r) => polygon(3, 1.3 * r, 0),
  down: (r) => polygon(3, 1.3 * r, 180),
  left: (r) => polygon(3, 1.3 * r, -90),
  right: (r) => polygon(3, 1.3 * r, 90),
  thin_diamond: (r) => polygon(4, 1.4 * r, 0, 1, 0.6),
  pentagon: (r) => polygon(5, 1.2 * r, 0),
  hexagon: (r) => polygon(6, 1.15 * r, 0),
  flat_hexagon: (r) => polygon(6, 1.15 * r, 30),
  octagon: (r) => polygon(8, 1.1 * r, 22.5),
  plus: (r) => crossed(r, 0, 0.38),
  thin_plus: (r) => crossed(r, 0, 0.16),
  cross: (r) => crossed(r, 45, 0.38),
  thin_cross: (r) => crossed(r, 45, 0.16),
  star: (r) => polygon(10, 1.6 * r, 0, 0.45),
};

function polygon(corners, radius, turn, inner = 1, width = 1) {
  const points = [];
  for (let k = 0; k < corners; k += 1) {
    const angle = (k * 360 / corners + turn - 90) * Math.PI / 180;
    const r = k % 2 ? radius * inner : radius;
    points.push(`${(width * r * Math.cos(angle)).toFixed(2)} ${(r * Math.sin(angle)).toFixed(2)}`);
  }
  return `M${points.join("L")}Z`;
}

/** A cross whose arms are so wide, as a share of their length. */
function crossed(r, turn, width) {
  const w = width * r;
  const corners = [[-w, -r], [w, -r], [w, -w], [r, -w], [r, w], [w, w], [w, r], [-w, r], [-w, w], [-r, w], [-r, -w], [-w, -w]];
  const angle = turn * Math.PI / 180;
  const turned = corners.map(([x, y]) => [1.2 * (x * Math.cos(angle) - y * Math.sin(angle)), 1.2 * (x * Math.sin(angle) + y * Math.cos(angle))]);
  return `M${turned.map((point) => point.map((value) => value.toFixed(2)).join(" ")).join("L")}Z`;
}

/** The mark of a method, for charts and legends. */
function mark(method, radius, hollow = false) {
  return svg("path", { d: OUTLINES[method.shape](radius), class: hollow ? "mark hollow" : "mark", style: { "--c": method.colour } });
}

/** A method's mark beside its name. */
function swatch(method, hollow = false) {
  return svg("svg", { viewBox: "-8 -8 16 16", width: 16, height: 16, class: "swatch", "aria-hidden": "true" }, mark(method, 4.6, hollow));
}

/** The one tooltip: lines of text beside the pointer, read out to those who do not see it. */
const tooltip = {
  node: null,
  place: null, // where the keyboard's point stands; null for the pointer's
  show(lines, x, y) {
    this.node ??= document.body.appendChild(el("div", { class: "tooltip", role: "status" }));
    put(this.node, ...lines.map((line, k) => el(k ? "div" : "strong", {}, line)));
    this.node.classList.add("shown");
    this.place = null;
    this.move(x, y);
  },
  /** Beside a point that the keyboard chose: `place()` gives [x, y] in the window, asked again when the page scrolls. */
  showAt(lines, place) {
    this.show(lines, ...place());
    this.place = place;
  },
  move(x, y) {
    const { width, height } = this.node.getBoundingClientRect();
    const left = x + 14 + width > innerWidth ? Math.max(4, x - width - 14) : x + 14;
    const top = Math.max(4, Math.min(y + 14, innerHeight - height - 4));
    this.node.style.left = `${left}px`;
    this.node.style.top = `${top}px`;
  },
  /** The pointer's point has gone from under it; the keyboard's, which may have scrolled the page into view itself, is followed. */
  scrolled() {
    if (this.place) this.move(...this.place());
    else this.hide();
  },
  hide() { this.place = null; this.node?.classList.remove("shown"); },
};

addEventListener("scroll", () => tooltip.scrolled(), { passive: true });

/** Where a pointer stands in the units of an SVG's viewBox. */
function placeIn(node, event) {
  const box = node.getBoundingClientRect();
  const [, , width, height] = node.getAttribute("viewBox").split(" ").map(Number);
  return [(event.clientX - box.left) * width / box.width, (event.clientY - box.top) * height / box.height];
}

/** Draw now, and again whenever the width changes. */
function responsive(root, draw) {
  let width = 0;
  const redraw = () => {
    const now = Math.round(root.clientWidth);
    if (now && now !== width) { width = now; draw(width); }
  };
  new ResizeObserver(redraw).observe(root);
  redraw();
}
