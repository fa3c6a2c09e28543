// Beside htmx: what is being written is not swapped away, what was opened stays open, times are told in the reader's
// own, and pages that nobody looks at ask for nothing. Everything works without it, but does not move by itself.
"use strict";

(() => {
  const notice = (text) => {
    const line = document.getElementById("notice");
    line.textContent = text;
    line.hidden = !text;
  };

  const age = (seconds) => {
    const past = seconds >= 0;
    const size = Math.abs(seconds);
    const [unit, per] = size < 90 ? ["s", 1] : size < 5400 ? ["min", 60] : size < 129600 ? ["h", 3600] : ["d", 86400];
    const words = `${Math.round(size / per)} ${unit}`;
    return past ? `${words} ago` : `in ${words}`;
  };

  document.addEventListener("mouseover", (event) => {
    const time = event.target.closest?.("time[datetime]");
    if (!time) return;
    const at = new Date(time.dateTime);
    time.title = `${at.toLocaleString()} here, ${age((Date.now() - at) / 1000)}`;
  });

  const isWritten = (live) =>
    [...live.querySelectorAll("textarea, input:not([type=hidden])")].some((field) =>
      field.type === "radio" || field.type === "checkbox"
        ? field.checked !== field.defaultChecked
        : field.value !== field.defaultValue || field === document.activeElement,
    );

  let open = new Set();
  document.addEventListener("htmx:beforeRequest", (event) => {
    if (document.hidden) event.preventDefault();
  });
  document.addEventListener("htmx:beforeSwap", (event) => {
    const live = document.getElementById("live");
    if (!event.detail.shouldSwap) return;
    if (isWritten(live)) {
      event.detail.shouldSwap = false;
      notice("This has changed since. What you write here is kept; load the page anew to see how it stands.");
      return;
    }
    open = new Set([...live.querySelectorAll("details[open][id]")].map((each) => each.id));
  });
  document.addEventListener("htmx:afterSwap", () => {
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
  });
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful && !document.getElementById("notice").textContent.startsWith("This has changed")) {
      notice("");
    }
  });
  const away = () => notice("Not live just now: the API cannot be reached, or cannot reach its ledger.");
  document.addEventListener("htmx:sendError", away);
  document.addEventListener("htmx:responseError", away);

  // What is shown once is not asked for again by loading the page anew, which would have another one made.
  const once = document.querySelector("[data-once]");
  if (once) history.replaceState(null, "", once.dataset.once);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("input, textarea, select")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.querySelector(".find input")?.focus();
    } else if (event.key === "g") {
      document.querySelector(".brand")?.click();
    } else if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll("a.row")];
      const here = rows.indexOf(document.activeElement);
      rows[Math.max(0, Math.min(rows.length - 1, here + (event.key === "j" ? 1 : -1)))]?.focus();
    }
  });
})();
