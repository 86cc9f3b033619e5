"use strict";
// Fetches the page again when the console says that something changed; without it, the page is as it was.
const asked = new EventSource("/changes");
asked.addEventListener("changed", async () => {
  if (document.hidden || document.querySelector("main form :focus, main :focus-visible")) return;
  if (!getSelection().isCollapsed) return;
  const answer = await fetch(location.href, {cache: "no-store"}).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const old = document.querySelector("main");
  if (!fresh || !old) return;
  const opened = new Set([...old.querySelectorAll("details[open] > summary")].map((one) => one.textContent));
  for (const one of fresh.querySelectorAll("details > summary")) {
    one.parentElement.toggleAttribute("open", opened.has(one.textContent));
  }
  if (fresh.innerHTML !== old.innerHTML) old.replaceWith(fresh);
});
