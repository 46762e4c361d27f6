// An open page looks again when the verifier says that something changed. Without this script every page still works.
"use strict";
(() => {
  // A file chosen here is only read into the form's text, where it can be seen before it is sent.
  document.querySelectorAll("[data-needs-script]").forEach((one) => { one.hidden = false; });
  document.querySelectorAll("input[type=file][data-into]").forEach((input) => {
    input.addEventListener("change", async () => {
      if (input.files.length) document.getElementById(input.dataset.into).value = await input.files[0].text();
    });
  });
})();
(() => {
  const main = document.querySelector("main[data-live]");
  if (!main || !window.EventSource) return;
  const status = document.getElementById("live");
  const pause = 2000;
  let waiting = false;
  let busy = false;

  const editing = () => main.contains(document.activeElement) && /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement.tagName);

  async function refresh() {
    waiting = false;
    if (busy || editing() || document.hidden) return;
    busy = true;
    try {
      const reply = await fetch(location.href, { credentials: "same-origin" });
      if (!reply.ok || reply.redirected) return;
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").querySelector("main");
      if (!fresh) return;
      const open = [...main.querySelectorAll("details")].map((one) => one.open);
      main.replaceChildren(...fresh.childNodes);
      main.querySelectorAll("details").forEach((one, index) => { if (open[index]) one.open = true; });
    } finally {
      busy = false;
    }
  }

  const source = new EventSource("/dashboard/live");
  source.addEventListener("change", () => {
    if (!waiting) { waiting = true; setTimeout(refresh, pause); }
  });
  source.addEventListener("open", () => { status.textContent = "live"; });
  source.addEventListener("error", () => { status.textContent = "not live"; });
  addEventListener("pagehide", () => source.close());
})();
