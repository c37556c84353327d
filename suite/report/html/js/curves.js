// Win rate, or reward, against temperature, over training, or by N.
"use strict";

const PANELS = { temperature: "sampling temperature", training: "share of the training run", best_of_n: "N of Best-of-N" };
const DASHES = [null, "6 4", "2 3", "8 3 2 3"];

function curvesView(study, root) {
  const { data } = study;
  const rates = ["win_rate", "length_controlled"].filter((metric) => data.points.test[metric]);
  const state = { metric: data.main };
  const figures = el("div", { class: "multiples wide" });
  const controls = el("div", { class: "controls" }, rates.length > 1
    ? choice("Win rate", `rate-${study.id}`, [["win_rate", "raw"], ["length_controlled", "length-controlled"]], data.main, (value) => { state.metric = value; draw(); })
    : null, touchChoice(study));
  put(root, controls, legend(study), figures,
    el("p", { class: "note" }, "Bars: 95 % over prompts, for the policies at hand. Hover to see a policy, click to choose it as A, Shift-click as B."));
  const panels = Object.keys(PANELS).filter((panel) => data.policies.panel.includes(panel));
  const boxes = panels.map((panel) => figures.appendChild(el("div", { class: "figure", "data-panel": panel })));
  boxes.forEach((box, k) => responsive(box, (width) => put(box, panelChart(panels[k], width))));
  study.on("shown", draw);

  function draw() { boxes.forEach((box, k) => { if (box.clientWidth) put(box, panelChart(panels[k], box.clientWidth)); }); }

  function panelChart(panel, width) {
    const shown = [];
    for (let policy = 0; policy < study.size; policy += 1) {
      const [value, low, high] = study.point(policy, state.metric);
      if (data.policies.panel[policy] === panel && value !== null && study.isShown(policy)) shown.push({ policy, at: data.policies.x[policy], value, low: low ?? value, high: high ?? value });
    }
    const xs = [...new Set(shown.map((one) => one.at))].sort((a, b) => a - b);
    const [first, last] = [xs[0] ?? 0, xs[xs.length - 1] ?? 1];
    const room = first === last ? 0.5 : 0.06 * (last - first);
    const log = panel === "best_of_n" && first > 0 && first < last;
    const isRate = state.metric !== "reward";
    const ends = shown.flatMap((one) => [one.low, one.high]);
    const [low, high] = isRate || !ends.length ? [0, 1] : [Math.min(...ends) - 0.03, Math.max(...ends) + 0.03];
    const what = isRate ? state.metric.replace("_", " ").replace("length controlled", "length-controlled win rate") : data.reward;
    const chart = axes({
      width, height: Math.max(280, Math.min(420, width * 0.7)), label: `${what} against ${PANELS[panel]}; the table "Every policy" has the numbers.`,
      x: { low: log ? first / 1.3 : first - room, high: log ? last * 1.3 : last + room, log, ticks: xs.length < 9 ? xs : null, label: PANELS[panel] }, y: { low, high, label: what },
    });
    if (isRate) chart.plot.append(svg("line", { x1: 0, x2: width, y1: chart.y(0.5), y2: chart.y(0.5), class: "zero" }));
    const lines = Map.groupBy(shown, ({ policy }) => (panel === "best_of_n" ? study.method(policy).name : `${study.method(policy).name} ${data.policies.setting[policy]} ${panel === "training" ? data.policies.temperature[policy] : ""}`));
    let k = 0;
    const drawn = {};
    for (const own of lines.values()) {
      own.sort((a, b) => a.at - b.at);
      const method = study.method(own[0].policy);
      const shift = log ? 0 : (k - (lines.size - 1) / 2) * 5;
      const group = svg("g", { style: { "--c": method.colour } }, svg("path", { d: linePath(own.map((one) => chart.x(one.at) + shift), own.map((one) => chart.y(one.value))), class: "line", "stroke-dasharray": DASHES[(drawn[method.name] = (drawn[method.name] ?? -1) + 1) % DASHES.length] }));
      for (const one of own) {
        const at = chart.x(one.at) + shift;
        group.append(svg("line", { x1: at, x2: at, y1: chart.y(one.low), y2: chart.y(one.high), class: "bar" }));
        const node = mark(method, 5, study.column("privileged", one.policy));
        node.setAttribute("transform", `translate(${at} ${chart.y(one.value)})`);
        const holder = svg("g", { class: "point", "data-policy": one.policy, tabindex: "0", role: "button", "aria-label": study.lines(one.policy).join("; "), on: {
          pointermove: (event) => tooltip.show(study.lines(one.policy), event.clientX, event.clientY), pointerleave: () => tooltip.hide(), click: (event) => study.clicked(event, one.policy),
          focus: (event) => tooltip.showAt(study.lines(one.policy), () => { const box = event.target.getBoundingClientRect(); return [box.right, box.bottom]; }), blur: () => tooltip.hide(),
          keydown: (event) => { if (event.key === "Enter" || event.key === " ") study.clicked(event, one.policy); },
        } }, node);
        group.append(holder);
      }
      chart.plot.append(group);
      k += 1;
    }
    chart.node.setAttribute("role", "group");
    return chart.node;
  }
}
