// The page: one component for each study, and the switch between light and dark.
"use strict";

/** Draw every study; drawn again with other data it keeps what was chosen, hidden and set. */
function render({ studies, bibtex }) {
  tooltip.hide(); // what it tells of is drawn anew
  render.drawn ??= new Map();
  const all = [...document.querySelectorAll("[data-study]")].map((root) => new Study(studies[Number(root.dataset.study)], root));
  for (const study of all) {
    study.alike = all.filter((other) => other !== study && study.isLike(other));
    study.begin();
    study.keep(render.drawn.get(study.id));
    render.drawn.set(study.id, study);
  }
  for (const study of all) {
    const { root } = study;
    const focused = root.contains(document.activeElement) ? pathTo(document.activeElement, root) : null;
    const open = [...root.querySelectorAll("details[open] > summary")].map((summary) => summary.textContent);
    const part = (name) => root.querySelector(`[data-part="${name}"]`);
    const views = {
      verdict: verdictView, frontier: study.data.kind === "curves" ? curvesView : frontierView, beside: besideView, training: trainingView,
      health: healthView, costs: costsView, provenance: (own, node) => provenanceView(own, node, bibtex),
    };
    for (const [name, view] of Object.entries(views)) view(study, part(name));
    if (study.data.judgments.columns) judgmentsView(study, part("judgments"));
    put(part("points"), study.size ? folded("Every policy", () => everyPolicy(study)) : null);
    for (const summary of root.querySelectorAll("details > summary")) summary.parentElement.open = open.includes(summary.textContent);
    if (focused) focusAt(focused, root);
  }
}

/** Where an element stands below another: tag and place among its siblings, on every level. */
function pathTo(node, root) {
  const path = [];
  for (let at = node; at !== root; at = at.parentNode) path.unshift([at.tagName, [...at.parentNode.children].indexOf(at)]);
  return path;
}

/** Give the focus to what stands there now, if it is of the same kind. */
function focusAt(path, root) {
  let node = root;
  for (const [tag, place] of path) {
    node = node.children[place];
    if (node?.tagName !== tag) return;
  }
  node.focus({ preventScroll: true });
  if (node.type === "search") node.setSelectionRange(node.value.length, node.value.length);
}

const page = JSON.parse(document.getElementById("data").textContent);
render(page);
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
addEventListener("beforeprint", () => { for (const node of document.querySelectorAll("[data-print] details")) node.open = true; });
