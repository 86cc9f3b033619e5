"use strict";
// Fetches the page again when the console says that something changed; without it, the page is as it was.
const asked = new EventSource("/changes");
asked.addEventListener("changed", async () => {
  if (document.hidden || document.activeElement?.closest("form")) return;
  const answer = await fetch(location.href, {cache: "no-store"}).catch(() => null);
  if (!answer?.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  const old = document.querySelector("main");
  if (fresh && old && fresh.innerHTML !== old.innerHTML) old.replaceWith(fresh);
});
