// Everything as tables: policies, health, costs, verdicts of a judge, runs; and as files.
"use strict";

function everyPolicy(study) {
  const { data } = study;
  const metrics = data.metrics.filter((metric) => data.points.test[metric] && !metric.startsWith("n_"));
  const rows = [...Array(study.size).keys()].map((policy) => [
    study.method(policy).name + (study.column("privileged", policy) ? " (privileged)" : ""), data.policies.setting[policy], data.policies.seed[policy], data.policies.step[policy],
    ...(data.kind !== "curves" ? [] : [data.policies.panel[policy].replace("_", " "), data.policies.x[policy], data.policies.temperature[policy]]), ...metrics.map((metric) => (metric === "kl" && study.column("kl_is_bound", policy) ? "≤ " : "") + withInterval(study.point(policy, metric, "test"))),
    study.prompts(policy, data.main, "test") ?? "–", study.column("selected", policy) ? "yes" : "", study.column("run_key", policy) ?? "",
  ]);
  const head = ["method", "setting", "seed", "step", ...(data.kind !== "curves" ? [] : ["part", "x", "T"]), ...metrics.map((metric) => metric.replaceAll("_", " ")), "n prompts", "on a hull", "run"];
  return dataTable("Every policy, test prompts, 95 % over prompts", head, rows, [...head.keys()].slice(2, -2));
}

function healthView(study, root) {
  const { policies, data: counts } = study.data;
  const parts = [];
  if (policies.alarms) {
    const ill = [...Array(study.size).keys()].filter((policy) => study.alarm(policy));
    parts.push(el("p", {}, ill.length ? `${ill.length} of ${study.size} policies have an alarm: their completions are beside the reference's longer, shorter, repeated, identical or improbable.` : `None of ${study.size} policies has an alarm.`));
    const names = Object.keys(policies).filter((name) => name.startsWith("health_"));
    const row = (policy) => [study.name(policy), ...names.map((name) => policies[name][policy] ?? "–"), policies.alarms[policy]];
    const head = ["policy", ...names.map((name) => name.slice(7).replaceAll("_", " ")), "alarms"];
    const columns = [...head.keys()].slice(1, -1);
    if (ill.length) parts.push(folded(`Policies with alarms (${ill.length})`, () => dataTable("Policies with alarms", head, ill.map(row), columns)));
    parts.push(folded("All policies", () => dataTable("Generation health, first completion per test prompt", head, [...Array(study.size).keys()].filter((policy) => policies[names[0]]?.[policy] != null).map(row), columns)));
  }
  if (counts.length) parts.push(folded("Data: what became of the rows", () => dataTable("Rows of the data", ["part", "what", "rows"], counts.map(([part, what, n]) => [part, what, n ?? "–"]), [2])));
  put(root, ...(parts.length ? parts : [el("p", {}, "Nothing is recorded.")]));
}

function costsView(study, root) {
  const { data } = study;
  const { policies } = data;
  const last = new Map();
  for (let policy = 0; policy < study.size; policy += 1) {
    if (!(policies.step[policy] > 0) || !policies.compute) continue;
    const key = [policies.method[policy], policies.setting[policy], policies.seed[policy]].join("|");
    if (!last.has(key) || policies.step[policy] > policies.step[last.get(key)]) last.set(key, policy);
  }
  const rows = data.methods.flatMap((method, k) => {
    const own = [...last.values()].filter((policy) => policies.method[policy] === k);
    const average = (name) => (policies[name] && own.length ? mean(own.map((policy) => policies[name][policy] ?? NaN)) : NaN);
    const show = (value) => (Number.isNaN(value) ? "–" : large(value));
    return own.length ? [[method.name, own.length, ...["tokens_sampled", "tokens_scored", "tokens_trained", "compute"].map((name) => show(average(name))), fixed(average("run_seconds"), 0), fixed(average("worker_peak_memory_mib"), 0)]] : [];
  });
  const head = ["method", "runs", "tokens sampled", "tokens scored", "tokens trained", "compute, forward tokens", "seconds of training", "peak memory, MiB"];
  put(root, rows.length ? dataTable("One whole run, mean over the runs of each method; tokens and compute with what the method needs beforehand", head, rows, [1, 2, 3, 4, 5, 6, 7]) : el("p", {}, "Nothing was trained, or its cost is not recorded."));
}

function judgmentsView(study, root) {
  const { judges, matchups, columns } = study.data.judgments;
  const state = { count: 50, matchup: "", winner: "" };
  const holder = el("div");
  const pick = (label, options, name) => {
    const select = el("select", { id: `${name}-${study.id}`, on: { change: () => { state[name] = select.value; state.count = 50; show(); } } }, options.map(([value, text]) => el("option", { value }, text)));
    return el("label", { class: "field", for: select.id }, `${label} `, select);
  };
  const more = el("button", { type: "button", on: { click: () => { state.count += 200; show(); } } }, "Show more");
  put(root, el("p", {}, `Judge: ${judges.join("; ")}.`),
    el("div", { class: "controls" }, matchups.length ? pick("Policy", [["", "all"], ...matchups.map((name, k) => [String(k), name])], "matchup") : null, pick("Winner", [["", "all"], ...[...new Set(columns.winner)].map((name) => [name, name || "none"])], "winner")), holder, more);
  show();

  function show() {
    const places = [...columns.verdict.keys()].filter((k) => (state.matchup === "" || columns.matchup[k] === Number(state.matchup)) && (state.winner === "" || columns.winner[k] === state.winner));
    const names = ["prompt_id", "swapped", "verdict", "winner", "reply", "failure"].filter((name) => columns[name]?.some((value) => value !== ""));
    const rows = places.slice(0, state.count).map((k) => [...(matchups.length ? [matchups[columns.matchup[k]]] : []), ...names.map((name) => (name === "reply" ? stranger(columns[name][k]) : columns[name][k]))]);
    put(holder, dataTable(`Verdicts, ${Math.min(state.count, places.length)} of ${places.length}`, [...(matchups.length ? ["policy"] : []), ...names.map((name) => name.replaceAll("_", " "))], rows));
    more.hidden = places.length <= state.count;
  }
}

function provenanceView(study, root, bibtex) {
  const { facts, lines, deviations, runs } = study.data;
  const command = el("pre", { tabindex: "0" }, facts.command);
  const copy = el("button", { type: "button", on: { click: async () => {
    await navigator.clipboard?.writeText(facts.command).catch(() => {});
    getSelection().selectAllChildren(command);
    copy.textContent = "Copied";
  } } }, "Copy the command");
  const told = [["profile", facts.profile], ["task", facts.task], ["model", facts.model], ["labels", facts.labels], ["training seeds", facts.seeds.join(", ")], ["test prompts", facts.test_prompts],
    ["longest completion, tokens", facts.max_new_tokens], ["training runs", facts.runs], ["worker-minutes", facts.worker_minutes], ["machine", facts.machine], ["workers", facts.workers], ["device", facts.device], ["sampler", facts.sampler_dtype], ["date", facts.date], ["commit", facts.commits.map((commit) => commit.replace(/^([0-9a-f]{12})[0-9a-f]+/, "$1")).join(", ")]];
  const bib = el("pre", { tabindex: "0" }, bibtex);
  put(root, command, copy,
    el("dl", { class: "told" }, told.filter(([, value]) => value !== null && value !== "").map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, String(value))))),
    el("ul", {}, lines.map((line) => el("li", {}, line))),
    deviations.length ? folded("Beside the paper's protocol", () => dataTable("Where this departs from the paper", ["item", "the paper", "here"], deviations.map((row) => row.slice(0, 3)))) : null,
    folded(`Every run behind the numbers (${runs.reduce((sum, stage) => sum + stage.runs.length, 0)})`, () => el("div", {}, runs.map(stageView))),
    el("p", { class: "controls" }, el("button", { type: "button", on: { click: () => download(`${study.data.name.replaceAll("/", "_")}.csv`, recordsCsv(study), "text/csv") } }, "Records as CSV")),
    folded("Cite", () => bib));
}

function stageView({ stage, shared, runs }) {
  const settings = (pairs) => pairs.map(([name, value]) => `${name} = ${value}`).join(", ");
  return folded(`${stage}: ${runs.length} run${runs.length > 1 ? "s" : ""}`, () => el("div", {},
    shared.length ? el("p", { class: "note" }, `All of them: ${settings(shared)}`) : null,
    dataTable(stage, ["key", "what", "seconds", "its own settings"], runs.map(([key, title, own, seconds]) => [el("code", {}, key), title, seconds ?? "–", settings(own)]), [2])));
}

/** One row per policy, split and metric, with the names of records.csv. */
function recordsCsv(study) {
  const { policies, points } = study.data;
  const names = ["setting", "seed", "step", "panel", "x", "temperature", "run_key", "git_sha", "compute", "alarms"].filter((name) => policies[name]);
  const lines = [["method", ...names, "split", "metric", "value", "ci_low", "ci_high", "n"].join(",")];
  for (const [split, metrics] of Object.entries(points)) {
    for (const metric of Object.keys(metrics)) {
      for (let policy = 0; policy < study.size; policy += 1) {
        const numbers = study.point(policy, metric, split);
        if (numbers[0] === null) continue;
        lines.push([study.method(policy).name, ...names.map((name) => policies[name][policy]), split, metric, ...numbers, study.prompts(policy, metric, split)].map(csvField).join(","));
      }
    }
  }
  return `${lines.join("\n")}\n`;
}
