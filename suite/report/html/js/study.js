// One study: its policies, what is chosen, and who is told when that changes.
"use strict";

class Study {
  constructor(data, root) {
    this.data = data;
    this.root = root;
    this.id = root.dataset.study;
    this.listeners = {};
    this.alike = []; // other studies of this page whose figures have the same axes
    this.hidden = new Set();
    this.chosen = { a: null, b: null };
    this.pointed = null; // the policy at which the arrow keys stand
    this.view = { figure: data.figures[0]?.name, split: "test", scale: "linear", bars: data.policies.method.length < 80, linked: true, touch: "a", budget: null };
    this.rowOf = new Map(data.prompts.policies.map((policy, row) => [policy, row]));
    this.tables = {};
    this.reference = data.policies.method.findIndex((method) => data.methods[method].name === data.reference);
    if (this.reference < 0) this.reference = data.policies.setting.indexOf("(reference)");
  }

  get split() { return this.view.split; }

  /** Which metrics are drawn against each other. */
  get figure() { return this.data.figures.find(({ name }) => name === this.view.figure); }

  /** What a reader has chosen, hidden and set in an earlier drawing. */
  keep(earlier) {
    if (!earlier) return;
    this.view = earlier.view;
    this.rows = earlier.rows;
    this.training = earlier.training;
    this.hidden = earlier.hidden;
    const places = new Map([...Array(this.size).keys()].map((policy) => [this.name(policy), policy]));
    const like = (policy) => (policy === null ? null : places.get(earlier.name(policy)) ?? null);
    for (const which of ["a", "b"]) this.chosen[which] = like(earlier.chosen[which]) ?? this.chosen[which];
    this.pointed = like(earlier.pointed);
    if (this.training && this.training.kept !== null) {
      const kept = earlier.runName(this.training.kept);
      const run = [...this.data.training.runs.keys()].find((index) => this.runName(index) === kept);
      this.training.kept = run ?? null;
    }
  }

  /** Whether another study's figures measure the same, so that one axis serves both. */
  isLike({ data }) {
    const axes = ({ kind, reward, figures }) => JSON.stringify([kind, reward, figures]);
    return data.kind !== "curves" && axes(data) === axes(this.data);
  }

  /** This study and those that are set and drawn with it. */
  get together() { return this.view.linked ? [this, ...this.alike] : [this]; }

  /** A setting of this study and of those together with it. */
  set(name, value) {
    const studies = this.together;
    for (const { view, data } of studies) if (name !== "budget" || data.budgets.some(({ id }) => id === value)) view[name] = value;
    for (const study of studies) study.emit("view"); // what one draws depends on how all are set
  }

  /** Together with the others from now on, as this one is set, or each for itself. */
  link(linked) {
    for (const study of this.alike) {
      if (linked) [study.view, study.hidden] = [{ ...this.view, budget: study.view.budget }, new Set(this.hidden)];
      study.view.linked = linked;
    }
    this.view.linked = linked;
    for (const study of [this, ...this.alike]) study.emit("view"), study.emit("shown");
  }

  on(event, listener) { (this.listeners[event] ??= []).push(listener); }

  emit(event, ...values) { for (const listener of this.listeners[event] ?? []) listener(...values); }

  get size() { return this.data.policies.method.length; }

  /** The reference where a policy is: at its temperature, in its part of the figure. */
  referenceFor(policy) {
    const { method, setting, panel, x, temperature } = this.data.policies;
    const like = (other) => method[other] === method[this.reference] && setting[other] === setting[this.reference];
    const places = [...method.keys()].filter((other) => like(other) && policy !== null && temperature[other] === temperature[policy]);
    return places.find((other) => panel[other] === panel[policy] && x[other] === x[policy]) ?? places[0] ?? this.reference;
  }

  method(policy) { return this.data.methods[this.data.policies.method[policy]]; }

  column(name, policy) { return this.data.policies[name]?.[policy] ?? null; }

  /** Method, setting, seed, step and, where they differ, the place in a curve. */
  name(policy) {
    const { setting, seed, step, temperature, panel, x } = this.data.policies;
    const parts = [`${this.method(policy).name} ${setting[policy]}`.trim()];
    if (step[policy]) parts.push(`seed ${seed[policy]}`, `step ${step[policy]}`);
    else if (policy !== this.reference && this.data.facts.seeds.length > 1) parts.push(`seed ${seed[policy]}`);
    if (panel[policy] === "best_of_n") parts.push(`N = ${x[policy]}`);
    else if (panel[policy] === "training") parts.push(`${x[policy]} of training`);
    if (!this.ofRuns(policy) || temperature[policy] !== 1) parts.push(`T = ${temperature[policy]}`);
    return parts.join(", ");
  }

  /** Whether it stands for itself, and not in a part of a figure of curves. */
  ofRuns(policy) { return ["frontier", "plane"].includes(this.data.policies.panel[policy]); }

  /** A training run: method, setting, seed. */
  runName(index) {
    const run = this.data.training.runs[index];
    return `${this.data.methods[run.method].name} ${run.setting}`.trim() + `, seed ${run.seed}`;
  }

  /** Value, low and high of a metric on a split; nulls where it is not known. */
  point(policy, metric, split = this.split) {
    const columns = this.data.points[split]?.[metric];
    return columns ? [columns[0][policy], columns[1][policy], columns[2][policy]] : [null, null, null];
  }

  value(policy, metric, split = this.split) { return this.point(policy, metric, split)[0]; }

  prompts(policy, metric, split = this.split) {
    const n = this.data.points[split]?.[metric]?.[3];
    return Array.isArray(n) ? n[policy] : n;
  }

  /** A metric of every test prompt, or nothing where only the mean is kept. */
  byPrompt(policy, metric) {
    const table = this.data.prompts.tables[metric];
    if (!table || !this.rowOf.has(policy)) return null;
    this.tables[metric] ??= unpacked(table, this.data.prompts.names.length);
    return this.tables[metric][this.rowOf.get(policy)];
  }

  /** Choose what was clicked: A or, with Shift, B; on a touch screen whichever was asked for. */
  clicked(event, policy) {
    this.choose(event.shiftKey ? "b" : this.view.touch, policy);
  }

  choose(which, policy) {
    this.chosen[which] = policy;
    this.emit("chosen");
  }

  toggle(method) {
    const hide = !this.hidden.has(method);
    for (const { hidden } of this.together) hidden[hide ? "add" : "delete"](method);
    for (const study of this.together) study.emit("shown");
  }

  isShown(policy) { return !this.hidden.has(this.method(policy).name); }

  /** What is wrong with its completions; nothing where that was not judged. */
  alarm(policy) {
    const alarms = this.column("alarms", policy);
    return alarms && !alarms.startsWith("not judged") ? alarms : "";
  }

  /** What a tooltip says of a policy; the numbers are those of records.csv. */
  lines(policy) {
    const { main, rewards } = this.data;
    const lines = [this.name(policy)];
    const test = this.split;
    for (const metric of rewards) lines.push(`${metric.replace("_", " ")} ${withInterval(this.point(policy, metric), 4)}`);
    const kl = this.point(policy, "kl");
    if (kl[0] !== null) {
      lines.push(`KL ${this.column("kl_is_bound", policy) ? "at most " : ""}${withInterval(kl, 3)} nats`);
    }
    const tokens = this.value(policy, "tokens");
    lines.push(`${test} prompts ${this.prompts(policy, main) ?? "–"}${tokens === null ? "" : `, ${fixed(tokens, 1)} tokens`}`);
    const compute = this.column("compute", policy);
    const seconds = this.column("run_seconds", policy);
    if (compute) lines.push(`${large(compute)} forward tokens${seconds ? `, ${Math.round(seconds)} s for the whole run` : ""}`);
    if (this.column("privileged", policy)) lines.push("selects by the gold reward itself");
    if (this.alarm(policy)) lines.push(`alarm: ${this.alarm(policy)}`);
    if (this.column("run_key", policy)) lines.push(`run ${this.column("run_key", policy)}`);
    if (!this.rowOf.has(policy)) lines.push("not on a hull: no numbers by prompt");
    return lines;
  }

  /** Two policies to begin with: the best of `against` within 10 nats, of those whose completions are on the page, if there are such;
   * and of PPO, else of any other trained method, the one of the same seed that has gone about as far. Nothing is claimed of them.
   */
  begin() {
    const { data } = this;
    const split = data.points.validation?.[data.main] ? "validation" : "test";
    const withTexts = new Set(data.texts.rows.map(([, policy]) => policy));
    const candidates = data.prompts.policies.filter((policy) => {
      const kl = this.value(policy, "kl", split);
      return policy !== this.reference && this.value(policy, data.main, split) !== null && (kl === null || kl <= 10);
    });
    const best = (wanted) => {
      const own = candidates.filter(wanted);
      const shown = own.filter((policy) => withTexts.has(policy));
      const most = (some) => some.reduce((found, policy) => (found === null || this.value(policy, data.main, split) > this.value(found, data.main, split) ? policy : found), null);
      return most(shown.length ? shown : own);
    };
    const a = best((policy) => this.method(policy).name === data.against) ?? best(() => true);
    const near = (wanted) => candidates.filter(wanted).reduce((found, policy) => (found === null || gap(policy) < gap(found) ? policy : found), null);
    const gap = (policy) => Math.abs((this.value(policy, "kl", split) ?? 0) - (this.value(a, "kl", split) ?? 0));
    const rival = (policy) => this.method(policy) !== this.method(a) && this.column("step", policy) > 0 && this.column("seed", policy) === this.column("seed", a);
    const b = a === null ? null : near((policy) => rival(policy) && this.method(policy).name === "PPO") ?? near(rival) ?? best((policy) => policy !== a);
    this.chosen = { a, b: b ?? (this.reference >= 0 && this.reference !== a ? this.reference : null) };
  }
}
