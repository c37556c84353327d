// The page: one component for each study, and the switch between light and dark.
"use strict";

/** Draw every study; drawn again with other data it keeps what was chosen, hidden and set. */
function render({ studies, bibtex }) {
  render.drawn ??= new Map();
  for (const root of document.querySelectorAll("[data-study]")) {
    const number = Number(root.dataset.study);
    const study = new Study(studies[number], root);
    const open = [...root.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
    study.begin();
    study.keep(render.drawn.get(number));
    render.drawn.set(number, study);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const views = {
      verdict: verdictView, frontier: study.data.kind === "frontier" ? frontierView : curvesView, beside: besideView, training: trainingView,
      health: healthView, costs: costsView, provenance: (own, node) => provenanceView(own, node, bibtex),
    };
    for (const [name, view] of Object.entries(views)) view(study, part(name));
    if (study.data.judgments.columns) judgmentsView(study, part("judgments"));
    put(part("points"), study.size ? folded("Every policy", () => everyPolicy(study)) : null);
    for (const summary of root.querySelectorAll("details > summary")) summary.parentElement.open = open.includes(summary.textContent);
  }
}

const page = JSON.parse(document.getElementById("data").textContent);
render(page);
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
addEventListener("beforeprint", () => { for (const node of document.querySelectorAll("[data-print] details")) node.open = true; });
