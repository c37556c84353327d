// Two policies on the same prompts. They share random numbers on a prompt, so differences are those of the policies.
"use strict";

const ROWS_AT_ONCE = 20;
const SHORT_TEXT = 600;
const ORDERS = {
  order: ["as drawn", (row) => row.prompt],
  largest: ["A better by most", (row) => -row.difference],
  smallest: ["B better by most", (row) => row.difference],
  kl: ["KL of A, largest first", (row) => -(row.a.kl ?? 0)],
  length: ["tokens of A, most first", (row) => -(row.a.tokens ?? row.a.text?.length ?? 0)],
};

function besideView(study, root) {
  const { data } = study;
  const names = data.prompts.names;
  if (!data.prompts.tables[data.prompts.metric]) {
    put(root, el("p", {}, "These records hold no numbers by prompt."));
    return;
  }
  const texts = new Map(data.texts.rows.map(([prompt, policy, text, ended, reward, tokens]) => [`${prompt} ${policy}`, { text, ended, reward, textTokens: tokens }]));
  const expected = new Set(data.prompts.expected);
  const state = study.rows ??= { order: texts.size ? "order" : "largest", search: "", only: "all", prompt: null, count: ROWS_AT_ONCE };
  const selects = { a: policySelect("a"), b: policySelect("b") };
  const summary = el("p", { class: "summary", role: "status" });
  const figures = el("div", { class: "multiples" });
  const scatter = figures.appendChild(el("div", { class: "figure scatter" }));
  const histogram = figures.appendChild(el("div", { class: "figure histogram" }));
  const list = el("div", { class: "beside-rows" });
  const counted = el("p", { class: "note", role: "status" });
  const search = el("input", { type: "search", id: `search-${study.id}`, placeholder: "word", value: state.search, on: { input: () => { state.search = search.value.toLowerCase(); again(); } } });
  const order = el("select", { id: `order-${study.id}`, on: { change: () => { state.order = order.value; again(); } } },
    Object.entries(ORDERS).map(([value, [label]]) => el("option", { value, selected: value === state.order }, label)));
  const only = el("select", { id: `only-${study.id}`, on: { change: () => { state.only = only.value; again(); } } },
    [["all", "all prompts"], ["texts", "prompts with texts"], ["a", "A is better"], ["b", "B is better"]].map(([value, label]) => el("option", { value, selected: value === state.only }, label)));
  const more = el("button", { type: "button", on: { click: () => { state.count += 5 * ROWS_AT_ONCE; rows(); } } }, "Show more");
  put(root, 
    el("div", { class: "controls pair" }, selects.a.field, el("button", { type: "button", on: { click: swap } }, "Swap"), selects.b.field),
    summary, figures,
    el("div", { class: "controls" }, el("label", { class: "field", for: order.id }, "Sort by ", order), el("label", { class: "field", for: only.id }, "Show ", only), el("label", { class: "field", for: search.id }, "Search texts and prompts ", search)),
    counted, list, more,
  );
  let pairs = [];
  responsive(scatter, drawScatter);
  responsive(histogram, drawHistogram);
  study.on("chosen", update);
  update();

  function policySelect(which) {
    const groups = data.methods.map((method) => [method.name, data.prompts.policies.filter((policy) => study.method(policy) === method)]);
    const select = el("select", { id: `${which}-${study.id}`, on: { change: () => study.choose(which, Number(select.value)) } },
      groups.filter(([, own]) => own.length).map(([name, own]) => el("optgroup", { label: name }, own.map((policy) => el("option", { value: policy }, study.name(policy))))));
    const spare = el("option", { value: "-1", disabled: true }, "a policy that is not on a hull");
    select.append(spare);
    return { field: el("label", { class: "field", for: select.id }, `${which.toUpperCase()} `, select), select, spare };
  }

  /** Rows as the controls say, and no longer the one prompt that was clicked. */
  function again() {
    state.prompt = null;
    state.count = ROWS_AT_ONCE;
    rows();
  }

  function swap() {
    const { a, b } = study.chosen;
    study.chosen.a = b;
    study.choose("b", a);
  }

  function side(policy, prompt) {
    const of = (metric) => { const row = study.byPrompt(policy, metric); return row && !Number.isNaN(row[prompt]) ? row[prompt] : null; };
    return { main: of(data.prompts.metric), others: data.rewards.slice(1).map((metric) => [metric, of(metric)]), kl: of("kl"), tokens: of("tokens"), mean: expected.has(policy), ...texts.get(`${prompt} ${policy}`) };
  }

  function update() {
    const { a, b } = study.chosen;
    for (const which of ["a", "b"]) {
      const policy = study.chosen[which];
      const known = study.rowOf.has(policy);
      selects[which].select.value = known ? policy : "-1";
      selects[which].spare.textContent = policy === null || known ? "a policy that is not on a hull" : study.name(policy);
    }
    pairs = [];
    state.prompt = null;
    if (a !== b && study.rowOf.has(a) && study.rowOf.has(b)) {
      for (let prompt = 0; prompt < names.length; prompt += 1) {
        const [mine, theirs] = [side(a, prompt), side(b, prompt)];
        if (mine.main !== null && theirs.main !== null) pairs.push({ prompt, a: mine, b: theirs, difference: mine.main - theirs.main });
      }
    }
    summary.textContent = words(a, b);
    if (scatter.clientWidth) { drawScatter(scatter.clientWidth); drawHistogram(histogram.clientWidth); }
    rows();
  }

  function words(a, b) {
    if (a === null || b === null) return "Choose two policies.";
    const outside = [a, b].filter((policy) => !study.rowOf.has(policy)).map((policy) => study.name(policy));
    if (outside.length) return `${outside.join(" and ")}: not on a hull, so its numbers by prompt are not on this page (measurements.parquet has them).`;
    if (a === b) return "A and B are the same policy.";
    const gaps = pairs.map((pair) => pair.difference);
    const better = gaps.filter((gap) => gap > 0).length;
    const worse = gaps.filter((gap) => gap < 0).length;
    const spent = [a, b].map((policy) => study.value(policy, "kl", "test"));
    const amounts = [a, b].map((policy, k) => (study.column("kl_is_bound", policy) ? "at most " : "") + fixed(spent[k], 2));
    const kl = spent.every((value) => value !== null) ? ` Their KL: ${amounts.join(" and ")} nats.` : "";
    const means = [a, b].filter((policy) => expected.has(policy)).map((policy) => study.name(policy));
    const how = means.length ? ` Of ${means.join(" and ")} a number by prompt is the mean over the pool's samples, which varies less than one completion.` : "";
    return `A minus B${data.kind === "plane" ? ` in ${data.main}` : ""}: ${withInterval(meanInterval(gaps), 3, true)} (95 % over ${gaps.length} test prompts, paired, for these two policies alone: no verdict on methods). A is better on ${better} prompts, B on ${worse}.${kl}${how}`;
  }

  function domain(values) {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.04 * (high - low || 1);
    return { low: low - room, high: high + room };
  }

  function drawScatter(width) {
    if (!pairs.length) { put(scatter); return; }
    const both = domain(pairs.flatMap((pair) => [pair.a.main, pair.b.main]));
    const chart = axes({ width, height: Math.min(380, width), label: `${data.main} of A against B by prompt`, x: { ...both, label: `${data.prompts.metric} of B` }, y: { ...both, label: `${data.prompts.metric} of A` } });
    chart.plot.append(svg("line", { x1: chart.x(both.low), y1: chart.y(both.low), x2: chart.x(both.high), y2: chart.y(both.high), class: "zero" }));
    for (const pair of pairs) {
      chart.plot.append(svg("circle", { cx: chart.x(pair.b.main), cy: chart.y(pair.a.main), r: 3, class: "dot", on: {
        pointermove: (event) => tooltip.show([names[pair.prompt], `A ${fixed(pair.a.main)}, B ${fixed(pair.b.main)}, difference ${fixed(pair.difference, 3, true)}`, "click to see this prompt"], event.clientX, event.clientY),
        pointerleave: () => tooltip.hide(), click: () => { state.prompt = pair.prompt; rows(); list.scrollIntoView({ block: "nearest" }); },
      } }));
    }
    put(scatter, chart.node);
  }

  function drawHistogram(width) {
    if (!pairs.length) { put(histogram); return; }
    const gaps = pairs.map((pair) => pair.difference);
    const reach = Math.max(1e-9, ...gaps.map(Math.abs));
    const bins = 24;
    const counts = new Array(bins).fill(0);
    for (const gap of gaps) counts[Math.min(bins - 1, Math.floor((gap + reach) / (2 * reach) * bins))] += 1;
    const chart = axes({ width, height: Math.min(380, width), label: "Differences A minus B by prompt: how many prompts", x: { low: -reach, high: reach, label: "A minus B", sign: true }, y: { low: 0, high: Math.max(...counts) * 1.06, label: "prompts" } });
    counts.forEach((count, k) => {
      const [left, right] = [chart.x(-reach + 2 * reach * k / bins), chart.x(-reach + 2 * reach * (k + 1) / bins)];
      if (count) chart.plot.append(svg("rect", { x: left + 0.5, width: right - left - 1, y: chart.y(count), height: chart.y(0) - chart.y(count), class: "column" }));
    });
    const average = mean(gaps);
    chart.plot.append(svg("line", { x1: chart.x(0), x2: chart.x(0), y1: 0, y2: chart.y(0), class: "zero" }), svg("line", { x1: chart.x(average), x2: chart.x(average), y1: 0, y2: chart.y(0), class: "average" }));
    put(histogram, chart.node);
  }

  function shown() {
    const matches = (pair) => {
      if (state.prompt !== null) return pair.prompt === state.prompt;
      if (state.only === "texts" && !data.texts.prompts[pair.prompt]) return false;
      if ((state.only === "a" && !(pair.difference > 0)) || (state.only === "b" && !(pair.difference < 0))) return false;
      if (!state.search) return true;
      const [, prompt = "", answer = ""] = data.texts.prompts[pair.prompt] ?? [];
      return [names[pair.prompt], prompt, answer, pair.a.text ?? "", pair.b.text ?? ""].some((text) => text.toLowerCase().includes(state.search));
    };
    const key = ORDERS[state.order][1];
    return pairs.filter(matches).sort((one, other) => key(one) - key(other) || one.prompt - other.prompt);
  }

  function rows() {
    const found = shown();
    const part = found.slice(0, state.count);
    put(counted, `${found.length} of ${pairs.length} prompts${part.length < found.length ? `, the first ${part.length} are shown` : ""}${texts.size ? `; texts are here of ${data.texts.prompts.length} of ${names.length} prompts` : ""}.`,
      ...(state.prompt === null ? [] : [" ", el("button", { type: "button", on: { click: () => { state.prompt = null; rows(); } } }, "Show all prompts")]),
      ...(texts.size ? [] : [" No texts are in this page (--page-samples puts some in)."]));
    const start = study.referenceFor(study.chosen.a);
    const withStart = start >= 0 && study.rowOf.has(start);
    const head = ["prompt", ...(withStart ? ["reference"] : []), "A", "B", "A minus B"];
    put(list, el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Completions side by side" }, el("table", { class: "completions" },
      el("caption", {}, "Completions side by side"), el("thead", {}, el("tr", {}, head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, part.map((pair) => {
        const [, prompt, answer] = data.texts.prompts[pair.prompt] ?? [null, "", ""];
        const cells = [el("th", { scope: "row" }, el("code", {}, names[pair.prompt]), prompt ? stranger(prompt) : null, answer ? el("div", { class: "note" }, "answer of the data:", stranger(answer)) : null)];
        if (withStart) cells.push(el("td", {}, completion(side(start, pair.prompt))));
        cells.push(el("td", {}, completion(pair.a)), el("td", {}, completion(pair.b)), el("td", { class: "number" }, fixed(pair.difference, 3, true)));
        return el("tr", { "data-prompt": names[pair.prompt] }, cells);
      })))));
    more.hidden = part.length >= found.length;
  }

  // A mean is that over all samples of the pool; the text beside it is one of them, with a reward of its own.
  function completion({ main, others, kl, tokens, text, ended, reward, textTokens, mean: isMean }) {
    const facts = [];
    if (isMean && text !== undefined && reward !== null) facts.push(`this text ${fixed(reward)}`);
    facts.push(`${isMean ? "mean " : ""}${data.prompts.metric} ${fixed(main)}`);
    for (const [metric, value] of others) if (value !== null) facts.push(`${metric} ${fixed(value)}`);
    if (kl !== null) facts.push(`KL ${fixed(kl, 1)}`);
    const length = tokens ?? textTokens ?? null;
    if (length !== null) facts.push(`${fixed(length, 0)} tokens`);
    if (ended !== undefined && ended !== null) facts.push(ended ? "ended" : "cut");
    return [text === undefined ? null : stranger(text), el("div", { class: "facts" }, facts.join(" · "))];
  }
}

/** A stranger's text: isolated in direction, shortened until asked for. */
function stranger(text) {
  const node = el("bdi", { class: "text" }, text.length > SHORT_TEXT ? `${text.slice(0, SHORT_TEXT)}…` : text || "(empty)");
  if (text.length <= SHORT_TEXT) return node;
  const button = el("button", { type: "button", on: { click: () => { node.textContent = text; button.remove(); } } }, `all ${text.length.toLocaleString("en")} characters`);
  return el("div", {}, node, button);
}
