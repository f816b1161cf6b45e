// What the pages do beyond htmx: relative times, the dialog, and the mark that shows whether the
// page is live. Everything can be read and pressed without it.
"use strict";

(() => {
  const UNITS = [["d", 86400], ["h", 3600], ["min", 60]];

  // The same words as in pgworker/status/durations.py.
  const duration = (seconds) => {
    for (const [unit, size] of UNITS) {
      if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${unit}`;
    }
    return `${Math.max(Math.round(seconds), 0)} s`;
  };

  const relative = (time) => {
    const ahead = (Date.parse(time.dateTime) - Date.now()) / 1000;
    return ahead > 0 ? `in ${duration(ahead)}` : `${duration(-ahead)} ago`;
  };

  const tick = () => {
    for (const time of document.querySelectorAll("time[data-relative]")) {
      const text = relative(time);
      if (time.textContent !== text) time.textContent = text;
    }
  };

  const show = (state, text, title) => {
    const shown = document.getElementById("live-state");
    if (!shown || shown.dataset.state === state) return;
    shown.dataset.state = state;
    shown.textContent = text;
    shown.title = title;
  };
  const found = () => show("live", "Live", "Changes are shown as they happen");
  const lost = () => show("lost", "Reconnecting", "This page may be out of date");

  const dialog = document.getElementById("dialog");

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target.id === "dialog-body" && !dialog.open) dialog.showModal();
    if (event.detail.target.id === "live") found();
    tick();
  });
  // An error (the client was deleted, the session has ended) is shown as a page of its own.
  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.target.id === "dialog-body") location.assign(event.detail.pathInfo.requestPath);
  });
  document.addEventListener("click", (event) => {
    const closes = event.target.closest("[data-close]") || event.target === dialog;
    if (closes && dialog.open) {
      event.preventDefault();
      dialog.close();
    }
  });
  // A second press of the same button would submit the form twice.
  document.addEventListener("submit", (event) => {
    const button = event.submitter;
    if (button && event.target.method === "post") setTimeout(() => (button.disabled = true));
  });
  // After the browser's back button, the buttons of the restored page work again.
  addEventListener("pageshow", () => {
    for (const button of document.querySelectorAll("form button:disabled")) button.disabled = false;
  });

  // A refresh may return another page: the session has ended, the client was deleted.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr, shouldSwap } = event.detail;
    if (target.id === "live" && shouldSwap && !xhr.responseText.includes('id="live"')) {
      event.detail.shouldSwap = false;
      location.reload();
    }
  });
  for (const trouble of ["htmx:responseError", "htmx:sendError"]) {
    document.addEventListener(trouble, (event) => {
      if (event.detail.target.id === "live") lost();
    });
  }
  document.addEventListener("htmx:sseOpen", found);
  document.addEventListener("htmx:sseError", lost);

  // The message is shown once, and not again after a reload.
  if (location.search.includes("done=")) {
    const url = new URL(location.href);
    for (const name of ["done", "n"]) url.searchParams.delete(name);
    history.replaceState(null, "", url);
  }

  tick();
  setInterval(tick, 1000);
})();
