// Reward against KL, or one reward against another: points, bars, hulls, the ideal; hovering tells, a click chooses A, with Shift B.
"use strict";

function frontierView(study, root) {
  const { data } = study;
  const ofKl = data.kind === "frontier";
  const figures = data.figures.filter(({ y }) => data.points.test[y]);
  const validated = Boolean(data.points.validation.reward);
  const figure = el("div", { class: "figure" });
  const status = el("p", { class: "note", role: "status" });
  const controls = el("div", { class: "controls" });
  put(root, controls, legend(study), figure, status, note());
  settings();
  let width = 0;
  let marks = [];
  let current = null;
  responsive(figure, (now) => { width = now; draw(); });
  study.on("shown", draw);
  study.on("view", () => { if (!controls.contains(document.activeElement)) settings(); draw(); });
  study.on("chosen", rings);
  study.on("highlight", highlight);

  function settings() {
    const { view } = study;
    const set = (name) => (value) => study.set(name, value);
    const check = (text, checked, change) => el("label", { class: "check" }, el("input", { type: "checkbox", checked, on: { change: (event) => change(event.target.checked) } }), ` ${text}`);
    put(controls,
      figures.length > 1 ? choice(ofKl ? "Reward as" : "Figure", `metric-${study.id}`, figures.map(({ name }) => [name, name]), view.figure, set("figure")) : null,
      validated ? choice("Prompts", `split-${study.id}`, [["test", "test"], ["validation", "validation"]], view.split, set("split")) : null,
      ofKl ? choice("KL axis", `scale-${study.id}`, [["linear", "linear"], ["log", "logarithmic"]], view.scale, set("scale")) : null,
      check("intervals of points", view.bars, set("bars")),
      touchChoice(study),
      study.alike.length ? check("same axes and settings as the other studies", view.linked, (linked) => study.link(linked)) : null);
  }

  function note() {
    const seeds = data.facts.seeds.length;
    const words = ["Hover to see a policy, click to choose it as A, Shift-click as B; arrow keys walk along the points, Enter and Shift-Enter choose."];
    if (ofKl) words.push(`Lines: hulls chosen on validation prompts, ${seeds > 1 ? "mean over seeds; dashed where not every seed has policies on both sides" : "of the one training seed"}${seeds > 2 ? "; bands: 95 % over seeds and prompts" : ""}.`,
      "Between two policies a line is what mixing them reaches. On validation prompts lines flatter: those prompts chose them. Hollow marks select by the gold reward itself; pale ones have no numbers by prompt on this page.");
    else words.push("Dashed: the policies that no other beats in both.");
    words.push("Intervals of points: 95 % over prompts. A thin × through a mark: completions degenerate.");
    if (data.ideal) words.push(`The line and band without marks: the ideal, π* of the gold reward, as far as the reference's samples on test prompts show it, for test prompts and not as log-odds (${fixed(data.ideal.kl[data.ideal.kl.length - 1], 1)} nats).`);
    if (data.behindName) words.push(`Broad and pale: ${data.behindName}.`);
    return el("p", { class: "note" }, words.join(" "));
  }

  function draw() {
    if (!width) return;
    tooltip.hide();
    const drawn = study.figure;
    const log = study.view.scale === "log";
    const shown = shownOf(study);
    if (!shown.length) {
      put(figure, el("p", { class: "note" }, "Nothing is measured yet, or every method is hidden."));
      marks = [];
      figure.chart = null;
      return;
    }
    const every = study.together.flatMap(shownOf);
    const across = drawn.x === "kl" ? klDomain(every, log) : around(every.map((one) => one.at));
    const beyond = shown.filter((one) => one.at > across.high);
    const y = around(every.filter((one) => one.at <= across.high).map((one) => one.reward));
    const height = Math.max(320, Math.min(560, width * 0.62));
    const chart = axes({
      width, height, label: `${drawn.y_title} against ${ofKl ? "KL" : drawn.x_title} on ${study.split} prompts: ${shown.length} policies. The table "Every policy" has the numbers.`,
      x: { ...across, label: `${drawn.x_title}${log ? ", logarithmic" : ""}` }, y: { ...y, label: drawn.y_title },
    });
    chart.node.setAttribute("tabindex", "0");
    chart.node.setAttribute("role", "group");
    chart.node.addEventListener("keydown", keys);
    chart.node.addEventListener("focus", rings);
    chart.node.addEventListener("blur", () => { tooltip.hide(); rings(); });
    chart.node.addEventListener("pointermove", (event) => hover(near(event, chart.node), event));
    chart.node.addEventListener("pointerleave", () => { tooltip.hide(); highlight(null); });
    chart.node.addEventListener("click", (event) => {
      const found = near(event, chart.node);
      hover(found, event); // there is no pointer to hover with on a touch screen
      if (found) study.clicked(event, found.policy);
    });
    lines(chart, drawn, log ? across.low : -Infinity);
    if (drawn.x !== "kl") chart.plot.append(svg("path", { d: tradeOff(shown, chart), class: "line ideal dashed" }));
    marks = shown.filter((one) => one.at <= across.high).map((one) => point(one, chart, drawn));
    marks.sort((one, other) => one.at - other.at);
    const over = svg("g", { class: "rings" });
    chart.node.append(over);
    chart.over = over;
    figure.chart = chart;
    put(figure, chart.node);
    status.textContent = beyond.length ? `${beyond.length} of ${shown.length} points lie beyond the axis (KL up to ${fixed(Math.max(...beyond.map((one) => one.at)), 0)} nats); the logarithmic axis shows them.` : log ? "KLs below 0.05 nats, the reference's 0 among them, stand at the left end." : "";
    current = marks.find((one) => one.policy === study.pointed) ?? null;
    rings();
  }

  /** The policies of a study that have both metrics of this figure and are not hidden. */
  function shownOf(own) {
    const { x, y } = own.figure;
    return [...Array(own.size).keys()].filter((policy) => own.isShown(policy))
      .map((policy) => ({ policy, at: own.value(policy, x), reward: own.value(policy, y) }))
      .filter(({ at, reward }) => at !== null && reward !== null);
  }

  function klDomain(shown, log) {
    const most = Math.max(1, ...shown.map((one) => one.at));
    const high = log ? most * 1.2 : Math.min(25, most * 1.08);
    return { low: log ? 0.05 : -0.02 * high, high, log };
  }

  function around(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const span = Math.max(0.02, high - low);
    return { low: low - 0.06 * span, high: high + 0.08 * span };
  }

  /** Steps through the policies that no other beats in both. */
  function tradeOff(shown, { x, y, height }) {
    const beats = (one, other) => one.at >= other.at && one.reward >= other.reward && (one.at > other.at || one.reward > other.reward);
    const best = shown.filter((one) => !shown.some((other) => beats(other, one))).sort((one, other) => one.at - other.at);
    return `M0 ${y(best[0].reward)}${best.map((one) => `V${y(one.reward)}H${x(one.at)}`).join("")}V${height}`;
  }

  function lines({ plot, x, y }, drawn, least) {
    const at = (line, values) => values.filter((_, k) => line.kl[k] >= least);
    const curve = (line, values) => linePath(at(line, line.kl).map(x), at(line, values).map((value) => (value === null ? NaN : y(value))));
    const area = (line) => bandPath(at(line, line.kl).map(x), at(line, line.low).map(y), at(line, line.high).map(y));
    for (const [name, line] of Object.entries(data.behind[drawn.y] ?? {})) {
      const method = data.methods.find((one) => one.name === name);
      if (method && !study.hidden.has(name) && study.split === "test") plot.append(svg("path", { d: curve(line, line.value), class: "behind", style: { "--c": method.colour } }));
    }
    if (data.ideal && drawn.y === "reward" && study.split === "test") {
      plot.append(svg("path", { d: area(data.ideal), class: "band ideal" }), svg("path", { d: curve(data.ideal, data.ideal.reward), class: "line ideal" }));
    }
    for (const [name, parts] of Object.entries(data.hulls[study.split]?.[drawn.y] ?? {})) {
      const method = data.methods.find((one) => one.name === name);
      if (!method || study.hidden.has(name)) continue;
      for (const part of parts) {
        if (part.low) plot.append(svg("path", { d: area(part), class: "band", style: { "--c": method.colour } }));
        plot.append(svg("path", { d: curve(part, part.value), class: part.solid ? "line" : "line dashed", style: { "--c": method.colour } }));
      }
    }
    const start = study.value(study.reference, drawn.y);
    if (start !== null) plot.append(svg("line", { x1: 0, x2: 5000, y1: y(start), y2: y(start), class: "start" }));
  }

  function point({ policy, at, reward }, { plot, x, y }, drawn) {
    const method = study.method(policy);
    const [, low, high] = study.point(policy, drawn.y);
    const [, nearest, farthest] = study.point(policy, drawn.x);
    const place = { policy, at, x: x(at), y: y(reward) };
    const isReference = method.name === data.reference;
    const bare = study.rowOf.has(policy) ? "" : " bare";
    const group = svg("g", { class: `point${isReference ? " reference" : ""}${bare}`, "data-policy": policy, style: { "--c": method.colour } });
    if (study.view.bars && low !== null && low !== high) group.append(svg("line", { x1: place.x, x2: place.x, y1: y(low), y2: y(high), class: "bar" }));
    if (study.view.bars && nearest !== null && nearest !== farthest) group.append(svg("line", { x1: x(nearest), x2: x(farthest), y1: place.y, y2: place.y, class: "bar" }));
    const many = study.size > 80;
    const own = mark(method, isReference ? 5 : many ? 3.2 : 4.6, study.column("privileged", policy));
    own.setAttribute("transform", `translate(${place.x} ${place.y})`);
    group.append(own);
    if (study.alarm(policy)) {
      group.append(svg("path", { d: "M-6-6L6 6M-6 6L6-6", transform: `translate(${place.x} ${place.y})`, class: "alarm" }));
    }
    plot.append(group);
    return { ...place, node: group };
  }

  function near(event, node) {
    const [px, py] = placeIn(node, event);
    let best = null;
    let least = 16 ** 2;
    for (const one of marks) {
      const distance = (one.x - px) ** 2 + (one.y - py) ** 2;
      if (distance < least) { best = one; least = distance; }
    }
    return best;
  }

  function hover(found, event) {
    if (!found) { tooltip.hide(); study.emit("highlight", null); return; }
    pointAt(found);
    tooltip.show(study.lines(found.policy), event.clientX, event.clientY);
  }

  function pointAt(found) {
    current = found;
    study.pointed = found.policy;
    study.emit("highlight", found.policy);
  }

  function highlight(policy) {
    for (const one of marks) one.node.classList.toggle("near", policy !== null && sameRun(study, one.policy, policy));
  }

  function keys(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (step) {
      const walk = event.key === "ArrowUp" || event.key === "ArrowDown" ? marks.filter((one) => !current || study.method(one.policy) === study.method(current.policy)) : marks;
      const next = walk[(walk.indexOf(current) + step + walk.length) % walk.length];
      const { chart } = figure;
      pointAt(next);
      tooltip.showAt(study.lines(next.policy), () => {
        const box = chart.node.getBoundingClientRect();
        const scale = box.width / chart.width;
        return [box.left + next.x * scale, box.top + next.y * scale];
      });
      rings();
    } else if (event.key === "Enter" && current) study.clicked(event, current.policy);
    else if (event.key === "Escape") { current = study.pointed = null; tooltip.hide(); highlight(null); rings(); } else return;
    event.preventDefault();
  }

  function rings() {
    const over = figure.chart?.over;
    if (!over) return;
    put(over);
    if (current && document.activeElement === figure.chart.node) over.append(svg("circle", { cx: current.x, cy: current.y, r: 9, class: "ring focus" }));
    for (const [which, policy] of Object.entries(study.chosen)) {
      const found = marks.find((one) => one.policy === policy);
      if (!found) continue;
      over.append(svg("circle", { cx: found.x, cy: found.y, r: 8, class: "ring" }),
        svg("text", { x: found.x + (which === "a" ? -9 : 9), y: found.y - 9, "text-anchor": which === "a" ? "end" : "start", class: "ring-name" }, which.toUpperCase()));
    }
  }
}

/** Whether two policies are of the same training run. */
function sameRun(study, one, other) {
  return ["method", "setting", "seed"].every((name) => study.data.policies[name][one] === study.data.policies[name][other]);
}

/** Where there is no Shift key: what the next touch chooses. */
function touchChoice(study) {
  const node = choice("A touch chooses", `touch-${study.id}`, [["a", "A"], ["b", "B"]], study.view.touch, (value) => { study.view.touch = value; });
  node.classList.add("touch");
  return node;
}

/** Buttons that show and hide methods, in every chart of the study. */
function legend(study) {
  const hollow = new Set(study.data.policies.method.filter((method, policy) => study.column("privileged", policy)));
  const buttons = study.data.methods.map((method, k) => {
    const button = el("button", { type: "button", on: { click: () => study.toggle(method.name) } }, swatch(method, hollow.has(k)), " ", method.name);
    const press = () => button.setAttribute("aria-pressed", String(!study.hidden.has(method.name)));
    press();
    study.on("shown", press);
    return button;
  });
  return el("div", { class: "legend", role: "group", "aria-label": "Show and hide methods" }, buttons);
}
