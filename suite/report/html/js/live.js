// A page over a sweep at work: asks for what has changed, draws it again, and keeps what was chosen.
"use strict";

const SECONDS = 4;

async function follow() {
  const box = document.querySelector(".live") ?? document.querySelector("h1").insertAdjacentElement("afterend", el("p", { class: "live" }));
  const status = box.insertAdjacentElement("afterend", el("p", { class: "note progress", role: "status" }, "…"));
  let version = null;
  for (;;) {
    try {
      const found = await (await fetch("data.json")).json();
      const { runs, done, now, failed } = found.progress;
      const words = `${done} of ${runs} runs done${now.length ? `; at work: ${now.join(", ")}` : ""}${failed.length ? `; failed: ${failed.join(", ")}` : ""}`;
      if (status.textContent !== words) status.textContent = words;
      if (found.version !== version) {
        if (version !== null) render({ ...page, studies: found.studies });
        version = found.version;
      }
    } catch {
      status.textContent = "No answer: suite watch has ended, or is busy. What is shown is what there was.";
    }
    await new Promise((resolve) => setTimeout(resolve, 1000 * SECONDS));
  }
}

follow();
