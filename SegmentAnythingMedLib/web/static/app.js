// What the page does by itself: keys, ink while drawing, files in and out. All decisions are made by the session.
(function () {
  "use strict";
  const PASSED_ON = new Set(["ArrowUp", "ArrowDown", "ArrowLeft", "ArrowRight", "PageUp", "PageDown"]);
  const DRAWN = new Set(["scribble", "background-scribble", "lasso"]);
  const DRAG_PIXELS = 6;
  const trigger = (name, ...values) => window.trame.trigger(name, values);
  const panel = () => window.trame.state.get("panel");
  const viewOf = (target) => (target instanceof Element ? target.closest(".view") : null);

  // -- keys: they act while a view has the focus, which it gets from the mouse
  document.addEventListener("pointerover", (event) => {
    const picture = event.target instanceof Element && event.target.closest(".view .picture");
    if (!picture || isTyping()) return;
    const focusable = picture.querySelector("[tabindex]");
    if (focusable && document.activeElement !== focusable) focusable.focus({ preventScroll: true });
    look(viewOf(picture).dataset.view);
  });

  function isTyping() {
    return document.activeElement instanceof Element && document.activeElement.matches("input[type=text], select");
  }

  let looked = "";
  function look(tag) {
    if (tag === looked) return;
    looked = tag;
    trigger("look", tag);
  }

  document.addEventListener("keydown", (event) => {
    const view = viewOf(event.target);
    if (!view || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, button")) return;
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const name = window.trame.state.get("shortcuts")[event.shiftKey ? `Shift+${key}` : key];
    if (name) trigger("act", name, view.dataset.view);
    else if (PASSED_ON.has(event.key)) {
      const steps = { ArrowUp: 1, ArrowRight: 1, PageUp: 10, ArrowDown: -1, ArrowLeft: -1, PageDown: -10 }[event.key];
      trigger("step_slice", view.dataset.view, steps);
    } else return stop(event, false); // the views' own single-letter keys would change what is shown
    stop(event, true);
  }, true);

  function stop(event, prevent) {
    event.stopPropagation();
    if (prevent) event.preventDefault();
  }

  // -- strokes: drawn here, so that no point is lost on the way; the session makes the prompt when the button is released
  let ink = null;
  document.addEventListener("pointerdown", (event) => {
    const picture = event.target instanceof Element && event.target.closest(".view .picture");
    closeMenus(event.target);
    if (!picture || event.button !== 0 || viewOf(picture).dataset.view === "ThreeD") return;
    const kind = panel().placing;
    if (!DRAWN.has(kind) && kind !== "box") return;
    const shape = document.createElementNS("http://www.w3.org/2000/svg", kind === "box" ? "rect" : "polyline");
    const box = picture.getBoundingClientRect();
    ink = { svg: picture.querySelector(".ink"), shape, kind, box, view: viewOf(picture).dataset.view, points: [] };
    extend(event);
    if (DRAWN.has(kind)) stop(event, false); // of a box the view must see the press: it may become two clicks
  }, true);

  document.addEventListener("pointermove", (event) => {
    if (!ink) return;
    for (const one of event.getCoalescedEvents ? event.getCoalescedEvents() : [event]) extend(one);
    if (DRAWN.has(ink.kind)) stop(event, false);
    if (!isDrag()) return;
    if (!ink.shape.parentNode) ink.svg.append(ink.shape);
    if (ink.kind === "box") {
      const [x0, y0] = ink.points[0], [x1, y1] = ink.points[ink.points.length - 1];
      const place = { x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) };
      for (const [name, value] of Object.entries(place)) ink.shape.setAttribute(name, value);
    } else ink.shape.setAttribute("points", ink.points.map((point) => point.join(",")).join(" "));
  }, true);

  document.addEventListener("pointerup", (event) => {
    if (!ink) return;
    extend(event);
    if (DRAWN.has(ink.kind)) stop(event, false);
    const fractions = ink.points.map(([x, y]) => [x / ink.box.width, y / ink.box.height]);
    if (isDrag()) trigger("stroke", ink.kind, ink.view, ink.kind === "box" ? [fractions[0], fractions.at(-1)] : fractions);
    ink.shape.remove();
    ink = null;
  }, true);

  document.addEventListener("pointercancel", () => { if (ink) ink.shape.remove(); ink = null; }, true);

  function extend(event) {
    ink.points.push([event.clientX - ink.box.left, event.clientY - ink.box.top]);
  }

  function isDrag() {
    const [x0, y0] = ink.points[0];
    const far = (point) => [Math.abs(point[0] - x0), Math.abs(point[1] - y0)];
    if (ink.kind === "box") return Math.min(...far(ink.points.at(-1))) >= DRAG_PIXELS;
    return ink.points.some((point) => Math.max(...far(point)) >= DRAG_PIXELS);
  }

  function closeMenus(target) {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  }

  // -- files
  async function send(files, to = "upload") {
    if (!files.length) return;
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    try {
      const answer = await fetch(to, { method: "POST", body: form });
      if (!answer.ok) trigger("say", await sentence(answer));
    } catch (error) {
      trigger("say", "The files could not be sent: the connection was lost, or they are too large.");
    }
  }

  async function sentence(answer) {
    try { return (await answer.json()).sentence; } catch { return `The server answered ${answer.status}.`; }
  }

  async function download(kind) {
    closeMenus(null);
    const answer = await fetch(`download/${kind}`);
    if (!answer.ok) return trigger("say", await sentence(answer));
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = decodeURIComponent(answer.headers.get("X-File-Name"));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  for (const name of ["dragover", "drop", "dragleave"]) {
    document.addEventListener(name, (event) => {
      if (!event.dataTransfer || !event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      document.body.classList.toggle("dropping", name === "dragover");
      if (name === "drop") send([...event.dataTransfer.files]);
    });
  }

  // -- the end of a session
  function watchConnection() {
    const client = window.trame && window.trame.client;
    if (!client) return setTimeout(watchConnection, 200);
    client.onConnectionClose(sayEnded);
  }
  watchConnection();

  function sayEnded() { // beside the page: trame takes the page away when the connection is closed
    const box = document.createElement("div"), words = document.createElement("p"), again = document.createElement("button");
    words.textContent = "The session has ended: the server was stopped, or nobody used it for a long time.";
    again.textContent = "Start a new session";
    again.onclick = () => { window.location.href = "../../"; };
    box.className = "ended";
    box.append(document.createElement("div"));
    box.firstChild.append(words, again);
    document.body.append(box);
  }

  window.trame.utils.sam = {
    download,
    upload(event) {
      const files = [...event.target.files];
      event.target.value = "";
      closeMenus(null);
      send(files);
    },
    fraction(event) {
      const box = event.currentTarget.getBoundingClientRect();
      return (event.clientX - box.left) / box.width;
    },
    scroll(tag, event) { trigger("scroll_view", tag, Number(event.target.value)); },
    chooseChannel(place, event) {
      const chosen = [...panel().channels];
      chosen[place] = event.target.value;
      trigger("choose_channels", ...chosen.filter(Boolean));
    },
    chooseModel(event) {
      trigger("choose_model", event.target.value);
      event.target.value = panel().model; // one that is not here is only offered: the list shows what is used
    },
    importWeights(event) {
      const files = [...event.target.files].slice(0, 1);
      event.target.value = "";
      send(files, "weights");
    },
  };
})();
