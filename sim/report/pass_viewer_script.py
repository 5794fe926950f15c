"""The script that steps through a pass: plain JavaScript without a library, about a hundred lines.

It reads the data beside it and shows nothing that the page does not hold; it asks for nothing from outside.
"""

SCRIPT = r"""
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("viewer-data").textContent);
  const root = document.getElementById("viewer");
  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const add = (parent, name, attributes = {}, text = "") => {
    const isDrawn = parent.namespaceURI.endsWith("svg") || name === "svg";
    const made = isDrawn ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.textContent = text;
    return parent.appendChild(made);
  };
  for (const pass of data.passes) {
    pass.level = bytes(pass.level);
    pass.probs = pass.probs.map(bytes);
  }

  const controls = add(root, "div", { class: "controls" });
  const choice = add(add(controls, "label", {}, "Pass "), "select");
  data.passes.forEach((pass, index) => add(choice, "option", { value: index }, String(pass.number)));
  const back = add(controls, "button", { type: "button", "aria-label": "One moment back" }, "◀");
  const play = add(controls, "button", { type: "button" }, "Play");
  const on = add(controls, "button", { type: "button", "aria-label": "One moment on" }, "▶");
  const slider = add(controls, "input", { type: "range", min: 0, value: 0, "aria-label": "Moment of the pass" });
  const clock = add(controls, "output", { "aria-live": "polite" });
  const stage = add(root, "div", { class: "stage" });
  const chart = add(root, "div", { class: "beams" });
  let timer = null, pass = null, frames = [], marker = null, bars = [], rows = [];

  const drawTrack = () => {
    const known = pass.track.filter((point) => point[0] !== null && point[1] !== null);
    if (known.length === 0) return;
    const xs = [0, ...known.map((point) => point[0])], ys = [0, ...known.map((point) => -point[1])];
    const [west, east, top, low] = [Math.min(...xs) - 3, Math.max(...xs) + 3, Math.min(...ys) - 3, Math.max(...ys) + 3];
    const box = add(stage, "figure");
    const picture = add(box, "svg", { viewBox: [west, top, east - west, low - top].join(" "), role: "img" });
    picture.setAttribute("aria-label", "Track of the vehicle from above");
    add(picture, "polyline", { points: known.map(([x, y]) => `${x},${-y}`).join(" "), class: "track" });
    add(picture, "path", { d: "M0,-1.2 L1,0.8 L-1,0.8 Z", class: "mast" });
    marker = add(picture, "circle", { r: 0.9, class: "vehicle" });
    add(box, "figcaption", {}, "From above, by GPS; triangle: mast");
  };

  const row = (name, title, colour, height) => {
    const line = add(chart, "div", { class: "row" });
    add(line, "span", {}, title);
    const drawn = { viewBox: `0 0 ${pass.beams} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true" };
    const picture = add(line, "svg", { ...drawn, style: `height:${height * 1.4}px` });
    const cells = Array.from({ length: pass.beams }, (_, beam) =>
      add(picture, "rect", { x: beam + 0.06, width: 0.88, y: 0, height, fill: colour }));
    const best = add(picture, "rect", { width: 1, height, y: 0, class: "best" });
    return { cells, best, height, text: add(line, "output") };
  };

  const choose = (index) => {
    pass = data.passes[index];
    const held = document.getElementById(`pass-${index}`).style;
    stage.textContent = chart.textContent = "";
    marker = null;
    frames = pass.sensors.map(([name, title, aspect]) => {
      const box = add(stage, "figure");
      const picture = add(box, "div", { class: "frame", role: "img", "aria-label": title });
      picture.style.aspectRatio = aspect;
      picture.style.backgroundImage = held.getPropertyValue(`--frames-${name}`);
      picture.style.backgroundSize = `${100 * pass.frames}% 100%`;
      add(box, "figcaption", {}, title);
      return picture;
    });
    if (pass.track) drawTrack();
    bars = row("power", "Measured power", "var(--muted)", 40);
    rows = data.learners.map((learner) => row(learner.name, learner.name, learner.colour, 14));
    slider.max = pass.frames - 1;
    show(Math.min(Number(slider.value), pass.frames - 1));
  };

  const show = (frame) => {
    slider.value = frame;
    clock.textContent = `${(frame * data.slot).toFixed(1)} s, frame ${frame + 1} of ${pass.frames}`;
    const place = pass.frames > 1 ? (100 * frame) / (pass.frames - 1) : 0;
    for (const picture of frames) picture.style.backgroundPosition = `${place}% 0`;
    const point = pass.track && pass.track[frame];
    if (marker && point && point[0] !== null) {
      marker.setAttribute("cx", point[0]);
      marker.setAttribute("cy", -point[1]);
    }
    const at = (values) => values.subarray(frame * pass.beams, (frame + 1) * pass.beams);
    const level = at(pass.level), best = pass.best[frame];
    bars.cells.forEach((cell, beam) => {
      const height = (bars.height * level[beam]) / 255;
      cell.setAttribute("height", height);
      cell.setAttribute("y", bars.height - height);
    });
    bars.best.setAttribute("x", best);
    bars.text.textContent = `best: beam ${best}`;
    rows.forEach((line, index) => {
      const isKnown = pass.known.includes(frame), probs = at(pass.probs[index]);
      line.cells.forEach((cell, beam) => cell.setAttribute("fill-opacity", isKnown ? probs[beam] / 255 : 0));
      line.best.setAttribute("x", best);
      const first = probs.indexOf(Math.max(...probs)), off = Math.abs(first - best);
      const lost = (-data.floor * (255 - level[first])) / 255;
      const loss = level[first] === 0 ? `${-data.floor} dB or more` : `${lost.toFixed(1)} dB`;
      line.text.textContent = isKnown
        ? `beam ${first}, ${off === 0 ? "right" : `${off} off, loses ${loss}`}` : "no window ends here";
    });
  };

  const stop = () => { clearInterval(timer); timer = null; play.textContent = "Play"; };
  const step = (by) => show((Number(slider.value) + by + pass.frames) % pass.frames);
  choice.addEventListener("change", () => choose(Number(choice.value)));
  slider.addEventListener("input", () => show(Number(slider.value)));
  back.addEventListener("click", () => { stop(); step(-1); });
  on.addEventListener("click", () => { stop(); step(1); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    play.textContent = "Stop";
    timer = setInterval(() => step(1), 3 * 1000 * data.slot);
  });
  choose(0);
  show(Math.floor(pass.frames / 2));
  root.hidden = false;
})();
"""
