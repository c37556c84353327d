// What runs logged, as small multiples; hovering one run shows it in all of them, its ticks choose its policies.
"use strict";

function trainingView(study, root) {
  const { panels, runs } = study.data.training;
  if (!runs.length) {
    put(root, el("p", {}, "Nothing was trained, or nothing was logged."));
    return;
  }
  const figures = el("div", { class: "multiples small" });
  const status = el("p", { class: "note", role: "status" }, "Each line is a run, against the share of its steps; hover to see it in every panel, click to keep it; the outermost hundredth of the values may lie beyond an axis.");
  const ticks = el("p", { class: "ticks" });
  put(root, figures, status, ticks);
  const boxes = panels.map((title) => figures.appendChild(el("div", { class: "figure" }, el("h4", {}, title), el("div", { class: "plot" }))));
  let kept = null;
  let paths = panels.map(() => new Map());
  boxes.forEach((box, k) => responsive(box.lastChild, (width) => draw(k, width)));
  study.on("shown", () => boxes.forEach((box, k) => { if (box.lastChild.clientWidth) draw(k, box.lastChild.clientWidth); }));
  study.on("highlight", (policy) => emphasise(policy === null ? kept : runs.findIndex((run) => run.method === study.data.policies.method[policy] && run.setting === study.data.policies.setting[policy] && run.seed === study.data.policies.seed[policy])));

  function draw(k, width) {
    const own = runs.map((run, index) => ({ run, index })).filter(({ run }) => run.values[k] && !study.hidden.has(study.data.methods[run.method].name));
    const values = own.flatMap(({ run }) => run.values[k]).filter((value) => value !== null).sort((a, b) => a - b);
    if (!values.length) { put(boxes[k].lastChild, el("p", { class: "note" }, "no run")); return; }
    const [low, high] = [values[Math.floor(0.005 * values.length)], values[Math.ceil(0.995 * values.length) - 1]];
    const room = 0.06 * (high - low || 1);
    const chart = axes({ width, height: 190, margin: { left: 44, right: 8, top: 8, bottom: 24 }, label: `${panels[k]} over training`, x: { low: 0, high: 1, ticks: [0, 0.25, 0.5, 0.75, 1] }, y: { low: low - room, high: high + room } });
    paths[k] = new Map();
    for (const { run, index } of own) {
      const last = run.step[run.step.length - 1];
      const path = svg("path", { d: linePath(run.step.map((step) => chart.x(step / last)), run.values[k].map((value) => (value === null ? NaN : chart.y(value)))), class: "run", style: { "--c": study.data.methods[run.method].colour } });
      paths[k].set(index, path);
      chart.plot.append(path);
    }
    chart.node.addEventListener("pointermove", (event) => near(k, chart, own, event));
    chart.node.addEventListener("pointerleave", () => { tooltip.hide(); emphasise(kept); });
    chart.node.addEventListener("click", () => { kept = hovered; if (kept !== null) policies(kept); });
    put(boxes[k].lastChild, chart.node);
  }

  let hovered = null;

  function near(k, chart, own, event) {
    const [px, py] = placeIn(chart.node, event);
    let best = null;
    let least = 20;
    for (const { run, index } of own) {
      const last = run.step[run.step.length - 1];
      const at = run.step.reduce((found, step, place) => (Math.abs(chart.x(step / last) - px) < Math.abs(chart.x(run.step[found] / last) - px) ? place : found), 0);
      const value = run.values[k][at];
      if (value === null) continue;
      const distance = Math.abs(chart.y(value) - py);
      if (distance < least) { best = { index, value, step: run.step[at] }; least = distance; }
    }
    hovered = best ? best.index : null;
    emphasise(hovered ?? kept);
    if (!best) { tooltip.hide(); return; }
    tooltip.show([runName(best.index), `${panels[k]} ${Number(best.value.toPrecision(4))}`, `around step ${Math.round(best.step)}`], event.clientX, event.clientY);
  }

  function emphasise(index) {
    for (const own of paths) for (const [run, path] of own) path.classList.toggle("near", run === index), path.classList.toggle("far", index !== null && index >= 0 && run !== index);
  }

  function runName(index) {
    const run = runs[index];
    return `${study.data.methods[run.method].name} ${run.setting}`.trim() + `, seed ${run.seed}`;
  }

  function policies(index) {
    const run = runs[index];
    const { method, setting, seed, step } = study.data.policies;
    const own = [...step.keys()].filter((policy) => method[policy] === run.method && setting[policy] === run.setting && seed[policy] === run.seed).sort((a, b) => step[a] - step[b]);
    put(ticks, `${runName(index)}, policies kept at step `, ...own.map((policy) => el("button", { type: "button", on: { click: (event) => study.choose(event.shiftKey ? "b" : "a", policy) } }, study.data.kind === "frontier" ? String(step[policy]) : study.name(policy))), " (click: A, Shift-click: B)");
  }
}
