// Elements, numbers, and the page's data. Texts of strangers become text nodes and nothing else.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

/** An element of HTML: attributes, listeners under `on`, CSS variables under `style`, then children (texts or nodes). */
function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    else if (name === "style") for (const [key, own] of Object.entries(value)) node.style.setProperty(key, own);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

/** These and nothing else into an element; what is absent is left out. */
function put(root, ...children) {
  root.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

/** A number with so many digits after the point and a true minus; a dash where it is not known. */
function fixed(value, digits = 3, sign = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const text = Math.abs(value).toFixed(digits);
  const negative = value < 0 && Number(text) !== 0;
  return (negative ? "−" : sign ? "+" : "") + text;
}

/** `0.812 [0.790, 0.833]`; the bare number where there is no interval. */
function withInterval([value, low, high], digits = 3, sign = false) {
  if (value === null || value === undefined) return "–";
  const own = fixed(value, digits, sign);
  if (low === null || low === undefined || high === null || high === undefined || low === high) return own;
  return `${own} [${fixed(low, digits, sign)}, ${fixed(high, digits, sign)}]`;
}

/** 12,345,678 → "12.3 M". */
function large(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, " G"], [1e6, " M"], [1e3, " k"]]) {
    if (Math.abs(value) >= size) return (value / size).toPrecision(3) + unit;
  }
  return String(Math.round(value * 100) / 100);
}

/** Rows of a table (policies, prompts) as arrays of numbers; NaN where there is none. See `suite.report.html.numbers`. */
function unpacked(table, columns) {
  const bytes = Uint8Array.from(atob(table.data), (letter) => letter.charCodeAt(0));
  const words = new DataView(bytes.buffer);
  const rows = [];
  for (let at = 0; at < bytes.length; at += 2 * columns) {
    const row = new Float64Array(columns);
    for (let k = 0; k < columns; k += 1) {
      const whole = words.getUint16(at + 2 * k, true);
      row[k] = whole === 65535 ? NaN : table.low + whole * table.step;
    }
    rows.push(row);
  }
  return rows;
}

function mean(values) {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

/** The 97.5 % point of Student's t: the expansion in 1/freedom of Abramowitz & Stegun 1964, 26.7.5. */
function studentQuantile(freedom) {
  const z = 1.959963984540054;
  const terms = [
    (z ** 3 + z) / 4,
    (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96,
    (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384,
    (79 * z ** 9 + 776 * z ** 7 + 1482 * z ** 5 - 1920 * z ** 3 - 945 * z) / 92160,
  ];
  return terms.reduce((sum, term, k) => sum + term / freedom ** (k + 1), z);
}

/** Mean of differences with its 95 % t interval. */
function meanInterval(values) {
  const average = mean(values);
  if (values.length < 10) return [average, null, null]; // too few for the expansion below, and to say much
  let squares = 0;
  for (const value of values) squares += (value - average) ** 2;
  const half = studentQuantile(values.length - 1) * Math.sqrt(squares / (values.length - 1) / values.length);
  return [average, average - half, average + half];
}

/** Offer a text as a file. */
function download(name, text, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** One field of a CSV; what a spreadsheet would take for a formula gets a quote before it. */
function csvField(value) {
  if (value === null || value === undefined) return "";
  const text = typeof value === "string" && /^[=+\-@\t]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** A group of radio buttons that looks like one control. */
function choice(legend, name, options, chosen, onChange) {
  const inputs = options.map(([value, label]) => {
    const input = el("input", { type: "radio", name, value, checked: value === chosen, on: { change: () => onChange(value) } });
    return el("label", {}, input, el("span", {}, label));
  });
  return el("fieldset", { class: "choice" }, el("legend", {}, legend), inputs);
}

/** A table with a caption; of numbers the cells are aligned at the right. */
function dataTable(caption, head, rows, numeric = []) {
  const cell = (value, k) => el("td", { class: numeric.includes(k) ? "number" : null }, value instanceof Node ? value : String(value));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, head.map((name, k) => el("th", { scope: "col", class: numeric.includes(k) ? "number" : null }, name)))),
      el("tbody", {}, rows.map((row) => el("tr", {}, row.map(cell))))));
}

/** A part of the page that is made when it is first opened. */
function folded(title, make) {
  const node = el("details", {}, el("summary", {}, title));
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(make()); });
  return node;
}
