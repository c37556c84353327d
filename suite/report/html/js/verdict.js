// Who won: a budget is chosen, its sentences and differences are shown.
"use strict";

function verdictView(study, root) {
  const { data } = study;
  const { budgets, against } = data;
  if (!budgets.length) {
    put(root, el("p", { class: "note" }, "There is nothing to compare yet, or nobody to compare with."));
    return;
  }
  const groups = [...new Set(budgets.map((budget) => budget.group))];
  const select = el("select", { id: `budget-${study.id}`, on: { change: () => study.set("budget", select.value) } },
    groups.map((group) => el("optgroup", { label: group },
      budgets.filter((budget) => budget.group === group).map((budget) => el("option", { value: budget.id }, budget.label)))));
  const body = el("div", { "aria-live": "polite" });
  let shown = null;
  put(root, el("label", { for: select.id, class: "field" }, "Compared at ", select), body, budgets.length > 1 ? overview() : null);

  study.on("view", () => { if (study.view.budget !== null && study.view.budget !== shown) show(study.view.budget); });

  function show(id) {
    shown = select.value = id;
    const budget = budgets.find((one) => one.id === id);
    const seeds = `${budget.seeds} training seed${budget.seeds > 1 ? "s" : ""}`;
    const opened = body.querySelector("details")?.open;
    const gold = data.methods.some((method) => method.name.endsWith("-GT"));
    put(body,
      budget.lead ? el("p", { class: "lead" }, budget.lead) : null,
      el("ul", { class: "sentences" }, budget.rows.map((row) => el("li", { "data-word": row.word }, row.sentence))),
      el("p", { class: "note" }, `Differences are ${budget.title}; n = ${budget.n} test prompts, ${seeds}, paired, intervals ${budget.kind}${data.kind === "frontier" ? `. Reward: gold reward, ${data.reward}` : ""}. `
        + (budget.verdict ? "Better or worse: the interval lies on one side of 0; equivalent: within ±0.02, the grey band." : "A verdict on methods takes three seeds or more, and rates that were searched.")
        + (gold ? " GT (ground truth): learns from, or selects by, the gold reward that measures all of them, which nobody has in practice." : "")),
      data.texts.rows.length ? el("p", { class: "note" }, "What they say on the same prompts: ", el("a", { href: `#beside-${study.id}` }, "A beside B"), ".") : null,
      el("div", { class: "forest" }),
    );
    const known = budget.rows.filter((row) => row.difference);
    if (known.length) responsive(body.querySelector(".forest"), (width) => put(body.querySelector(".forest"), forest(budget, known, width)));
    if (known.length) body.append(folded("The same as a table", () => rewards(budget)));
    if (opened && known.length) body.lastChild.open = true;
  }

  /** Every budget at once: a click on one chooses it. */
  function overview() {
    const methods = [...new Set(budgets.flatMap((budget) => budget.rows.map((row) => row.method)))];
    const signs = { better: "▲", worse: "▼", equivalent: "=" };
    const cell = (budget, method) => {
      const row = budget.rows.find((one) => one.method === method);
      const text = row?.difference ? `${fixed(row.difference[0], 3, true)} ${signs[row.word] ?? ""}` : "–";
      return el("td", { class: "number", "data-word": row?.word, title: row?.sentence }, text);
    };
    const head = budgets.map((budget) => el("th", { scope: "col", class: "number" }, el("button", { type: "button", on: { click: () => study.set("budget", budget.id) } }, budget.label)));
    const caption = `${against} minus the other at every budget; ▲ better, ▼ worse, = equivalent, no sign: not resolved or no verdict; –: not compared there`;
    return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Every budget" }, el("table", { class: "overview" }, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, `${against} minus`), head)),
      el("tbody", {}, methods.map((method) => el("tr", {}, el("th", { scope: "row" }, method), budgets.map((budget) => cell(budget, method)))))));
  }

  function forest(budget, rows, width) {
    const left = Math.min(190, width * 0.34);
    const ends = rows.flatMap((row) => row.difference.slice(1)).filter((value) => value !== null);
    const reach = Math.max(0.03, ...ends.map(Math.abs)) * 1.08;
    const { node, plot, x } = axes({
      width, height: 58 + 26 * rows.length, margin: { left, right: 14, top: 10, bottom: 40 },
      x: { low: -reach, high: reach, label: width < 500 ? `${against} minus the other` : `${against} worse ←   ${against} minus the other   → ${against} better`, sign: true },
      y: { low: 0, high: rows.length, ticks: [] }, label: `Differences from ${against} with intervals; the sentences have the numbers.`,
    });
    const step = 26;
    const privileged = new Set([...Array(study.size).keys()].filter((policy) => study.column("privileged", policy)).map((policy) => study.method(policy).name));
    plot.append(svg("line", { x1: x(0), x2: x(0), y1: 0, y2: 14 + step * rows.length, class: "zero" }));
    if (budget.verdict) plot.append(svg("rect", { x: x(-0.02), width: x(0.02) - x(-0.02), y: 6, height: step * rows.length + 6, class: "margin" }));
    rows.forEach((row, k) => {
      const at = 22 + step * k;
      const own = study.data.methods.filter((one) => `${row.method} `.startsWith(`${one.name} `));
      const method = own.sort((one, other) => other.name.length - one.name.length)[0] ?? { colour: "#555555", shape: "circle" };
      const [value, low, high] = row.difference;
      const group = svg("g", { style: { "--c": method.colour } });
      if (low !== null) group.append(svg("line", { x1: x(low), x2: x(high), y1: at, y2: at, class: "bar" }));
      const sign = mark(method, 5, privileged.has(method.name));
      sign.setAttribute("transform", `translate(${x(value)} ${at})`);
      group.append(sign);
      plot.append(group);
      const short = row.method.length > left / 7 ? `${row.method.slice(0, Math.floor(left / 7) - 1)}…` : row.method;
      node.append(svg("text", { x: left - 8, y: at + 4, "text-anchor": "end", class: "label" }, short));
      node.append(svg("rect", { x: 0, y: at - step / 2, width, height: step, class: "catch", on: {
        pointermove: (event) => tooltip.show([row.sentence, ...(row.p === null ? [] : [`p (${budget.test}) ${chance(row.p)}`]),
          ...(row.detectable ? [`a gap of ${fixed(row.detectable)} would show four times in five`] : [])], event.clientX, event.clientY),
        pointerleave: () => tooltip.hide(),
      } }));
    });
    return node;
  }

  /** A p-value; what is below 0.001 is no zero. */
  function chance(p) { return p !== null && p < 0.001 ? "below 0.001" : fixed(p, 3); }

  function rewards(budget) {
    const rows = budget.rows.map((row) => [row.method, withInterval(row.reward), row.difference ? withInterval(row.difference, 3, true) : "–", chance(row.p), row.word, fixed(row.detectable)]);
    if (budget.own) rows.unshift([against, withInterval(budget.own.reward), "", "", "", ""]);
    return dataTable(`Compared at ${budget.label}`, ["method", "reward, 95 %", `${against} minus it`, `p (${budget.test})`, `${against} is`, "a gap that would show"], rows, [1, 2, 3, 5]);
  }

  show(budgets.some((budget) => budget.id === study.view.budget) ? study.view.budget : select.value);
}
