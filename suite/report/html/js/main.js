// The page: one component for each study, and the switch between light and dark.
"use strict";

function start() {
  const { studies, bibtex } = JSON.parse(document.getElementById("data").textContent);
  for (const root of document.querySelectorAll("[data-study]")) {
    const study = new Study(studies[Number(root.dataset.study)], root);
    study.begin();
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const views = {
      verdict: verdictView, frontier: study.data.kind === "frontier" ? frontierView : curvesView, beside: besideView, training: trainingView,
      health: healthView, costs: costsView, provenance: (own, node) => provenanceView(own, node, bibtex),
    };
    for (const [name, view] of Object.entries(views)) view(study, part(name));
    if (study.data.judgments.columns) judgmentsView(study, part("judgments"));
    put(part("points"), folded("Every policy", () => everyPolicy(study)));
  }
  const theme = document.getElementById("theme");
  theme.addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
    document.documentElement.dataset.theme = dark ? "light" : "dark";
  });
  addEventListener("beforeprint", () => { for (const node of document.querySelectorAll("[data-print] details")) node.open = true; });
}

start();
