// What runs logged, as small multiples; hovering one run shows it in all of them, its ticks choose its policies.
"use strict";

function trainingView(study, root) {
  const { panels, runs } = study.data.training;
  if (!runs.length) {
    put(root, el("p", {}, "Nothing was trained, or nothing was logged."));
    return;
  }
  const state = study.training ??= { by: study.data.training.by, kept: null };
  const figures = el("div", { class: "multiples small" });
  const status = el("p", { class: "note", role: "status" }, "Each line is a run, its method's mark at its end; hover to see it in every panel, click to keep it; the outermost hundredth of the values may lie beyond an axis.");
  const ticks = el("p", { class: "ticks" });
  const by = choice("Against", `by-${study.id}`, [["share", "share of the run"], ["step", "step"]], state.by, (value) => { state.by = value; all(); });
  put(root, el("div", { class: "controls" }, by), figures, status, ticks);
  const boxes = panels.map((title) => figures.appendChild(el("div", { class: "figure" }, el("h4", {}, title), el("div", { class: "plot" }))));
  let paths = panels.map(() => new Map());
  boxes.forEach((box, k) => responsive(box.lastChild, (width) => draw(k, width)));
  study.on("shown", all);
  study.on("highlight", (policy) => emphasise(policy === null ? state.kept : runs.findIndex((run) => run.method === study.data.policies.method[policy] && run.setting === study.data.policies.setting[policy] && run.seed === study.data.policies.seed[policy])));

  if (state.kept !== null && runs[state.kept]) policies(state.kept);

  function all() { boxes.forEach((box, k) => { if (box.lastChild.clientWidth) draw(k, box.lastChild.clientWidth); }); }

  /** Where a step of a run stands. */
  function placed(run, step) { return state.by === "step" ? step : step / run.step[run.step.length - 1]; }

  function draw(k, width) {
    const own = runs.map((run, index) => ({ run, index })).filter(({ run }) => run.values[k] && !study.hidden.has(study.data.methods[run.method].name));
    const values = own.flatMap(({ run }) => run.values[k]).filter((value) => value !== null).sort((a, b) => a - b);
    if (!values.length) { put(boxes[k].lastChild, el("p", { class: "note" }, "no run, or hidden above")); return; }
    const [low, high] = [values[Math.floor(0.005 * values.length)], values[Math.ceil(0.995 * values.length) - 1]];
    const room = 0.06 * (high - low || 1);
    const x = state.by === "step" ? { low: 0, high: 1.02 * Math.max(...own.map(({ run }) => run.step[run.step.length - 1])) } : { low: 0, high: 1.02, ticks: [0, 0.25, 0.5, 0.75, 1] };
    const chart = axes({ width, height: 190, margin: { left: 44, right: 12, top: 8, bottom: 24 }, label: `${panels[k]} against ${state.by === "step" ? "steps" : "the share of the run"}`, x, y: { low: low - room, high: high + room } });
    paths[k] = new Map();
    for (const { run, index } of own) {
      const method = study.data.methods[run.method];
      const xs = run.step.map((step) => chart.x(placed(run, step)));
      const ys = run.values[k].map((value) => (value === null ? NaN : chart.y(value)));
      const end = ys.findLastIndex((y) => !Number.isNaN(y));
      const tip = mark(method, 2.6);
      tip.setAttribute("transform", `translate(${xs[end]} ${ys[end]})`);
      const line = svg("g", { class: "run", style: { "--c": method.colour } }, svg("path", { d: linePath(xs, ys) }), tip);
      paths[k].set(index, line);
      chart.plot.append(line);
    }
    chart.node.addEventListener("pointermove", (event) => near(k, chart, own, event));
    chart.node.addEventListener("pointerleave", () => { tooltip.hide(); emphasise(state.kept); });
    chart.node.addEventListener("click", () => { state.kept = state.kept === hovered ? null : hovered; policies(state.kept); emphasise(state.kept ?? hovered); });
    put(boxes[k].lastChild, chart.node);
    emphasise(state.kept);
  }

  let hovered = null;

  function near(k, chart, own, event) {
    const [px, py] = placeIn(chart.node, event);
    let best = null;
    let least = 20;
    for (const { run, index } of own) {
      const far = (place) => Math.abs(chart.x(placed(run, run.step[place])) - px);
      const at = run.step.reduce((found, step, place) => (far(place) < far(found) ? place : found), 0);
      const value = run.values[k][at];
      if (value === null) continue;
      const distance = Math.abs(chart.y(value) - py);
      if (distance < least) { best = { index, value, step: run.step[at] }; least = distance; }
    }
    hovered = best ? best.index : null;
    emphasise(hovered ?? state.kept);
    if (!best) { tooltip.hide(); return; }
    tooltip.show([study.runName(best.index), `${panels[k]} ${Number(best.value.toPrecision(4))}`, `around step ${Math.round(best.step)}`], event.clientX, event.clientY);
  }

  function emphasise(index) {
    for (const own of paths) for (const [run, path] of own) path.classList.toggle("near", run === index), path.classList.toggle("far", index !== null && index >= 0 && run !== index);
  }

  function policies(index) {
    if (index === null) { put(ticks); return; }
    const run = runs[index];
    const { method, setting, seed, step } = study.data.policies;
    const own = [...step.keys()].filter((policy) => method[policy] === run.method && setting[policy] === run.setting && seed[policy] === run.seed).sort((a, b) => step[a] - step[b]);
    put(ticks, `${study.runName(index)}, policies kept at step `, ...own.map((policy) => el("button", { type: "button", on: { click: (event) => study.clicked(event, policy) } }, study.ofRuns(policy) ? String(step[policy]) : study.name(policy))), " (click: A, Shift-click: B)");
  }
}
