"""The page that follows a run: a document without anything from elsewhere that asks for ``run.json`` again and again.

Whatever a run says enters the page as text (``textContent``), never as markup.
"""

from __future__ import annotations

from string import Template

# More clients than these are shown as one row for each modality.
MAX_ROWS = 40
# Milliseconds between two questions of the page.
ASK_MS = 1000

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Softbeam</title><link rel="icon" href="data:,"><style nonce="$nonce">
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #5d6570; --line: #d4d7dc; --page: #ffffff; --panel: #f5f6f8;
  --good: #00704f; --bad: #b3261e; --accent: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --muted: #a3abb6; --line: #3a414b; --page: #14171b;
  --panel: #1e2329; --good: #4fd1a5; --bad: #ff8a80; --accent: #5fb0e8; } }
body { margin: 1.5rem auto; padding: 0 1rem; max-width: 60rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.4rem; margin: 0; overflow-wrap: anywhere; } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem; }
.note { color: var(--muted); font-size: .88rem; overflow-wrap: anywhere; } .bad { color: var(--bad); }
.good { color: var(--good); } progress { width: 100%; height: 1rem; accent-color: var(--accent); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .6rem; margin: 1rem 0;
  padding: 0; } .facts div { background: var(--panel); padding: .5rem .7rem; border-radius: 4px; }
.facts dt { color: var(--muted); font-size: .8rem; } .facts dd { margin: 0; font-size: 1.15rem;
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.wide { overflow-x: auto; background: /* shadows at the sides to which it can be scrolled */
  linear-gradient(to right, var(--page) 30%, transparent) 0 0 / 3rem 100% no-repeat local,
  linear-gradient(to left, var(--page) 30%, transparent) 100% 0 / 3rem 100% no-repeat local,
  linear-gradient(to right, var(--line), transparent) 0 0 / 1rem 100% no-repeat scroll,
  linear-gradient(to left, var(--line), transparent) 100% 0 / 1rem 100% no-repeat scroll; }
table { border-collapse: collapse; width: 100%; font-size: .86rem; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .5rem; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); } td.text { white-space: normal; min-width: 10rem; }
td.n, th.n { text-align: right; } svg.line { width: 7rem; height: 1.5rem; vertical-align: middle; }
svg.line polyline { fill: none; stroke: var(--accent); stroke-width: 2; }
svg.line circle { fill: var(--accent); }
</style></head><body><main>
<h1 id="title">Softbeam</h1><p class="note" id="run"></p>
<p id="state" role="status">Waiting for the first answer.</p>
<progress id="bar" max="1" value="0" aria-label="work done in this phase"></progress>
<dl class="facts" id="facts"></dl>
<section id="clients" hidden><h2>Clients</h2>
<p class="note">Scores on the common test set, mean of the horizons, after each round, on one scale for all.
The table scrolls sideways where it is wider than the page.</p>
<div class="wide" tabindex="0" role="region" aria-label="Clients"><table><thead></thead><tbody></tbody></table></div>
</section><section id="nodes" hidden><h2>Machines</h2>
<div class="wide" tabindex="0" role="region" aria-label="Machines"><table><thead></thead><tbody></tbody></table></div>
</section><noscript><p>This page needs JavaScript; softbeam watch shows the same in a terminal.</p></noscript>
</main><script nonce="$nonce">
"use strict";
const MAX_ROWS = $max_rows, ASK_MS = $ask_ms, SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);
function element(tag, text, kind) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}
const percent = (value) => value === null || value === undefined ? "\u2013" : value.toFixed(1) + " %";
function bytes(count) {
  for (const [size, unit] of [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]])
    if (count >= size) return (count / size).toFixed(1) + " " + unit;
  return count + " B";
}
function duration(seconds) {
  if (seconds === null) return "\u2013";
  const whole = Math.round(seconds);
  return whole < 120 ? whole + " s" : Math.round(whole / 60) + " min";
}
const known = (series) => series.filter((value) => value !== null);
const last = (series) => known(series).at(-1) ?? null;
function line(series, top) {
  const drawn = document.createElementNS(SVG, "svg"), values = series.map((value, at) => [at, value]);
  drawn.setAttribute("class", "line");
  drawn.setAttribute("viewBox", "0 0 100 24");
  drawn.setAttribute("preserveAspectRatio", "none");
  drawn.setAttribute("role", "img");
  drawn.setAttribute("aria-label", known(series).length ? "from " + percent(known(series)[0]) + " to "
    + percent(last(series)) : "no score");
  const points = values.filter((pair) => pair[1] !== null).map(([at, value]) =>
    [2 + 96 * at / Math.max(series.length - 1, 1), 22 - 20 * value / top]);
  if (points.length === 1) {
    const dot = document.createElementNS(SVG, "circle");
    dot.setAttribute("cx", points[0][0]); dot.setAttribute("cy", points[0][1]); dot.setAttribute("r", 2);
    drawn.append(dot);
  } else if (points.length) {
    const path = document.createElementNS(SVG, "polyline");
    path.setAttribute("points", points.map((point) => point.join(",")).join(" "));
    path.setAttribute("vector-effect", "non-scaling-stroke");
    drawn.append(path);
  }
  return drawn;
}
function fill(id, titles, rows) {
  const section = byId(id);
  section.hidden = rows.length === 0;
  const head = document.createElement("tr");
  for (const [title, kind] of titles) {
    const cell = element("th", title, kind);
    cell.scope = "col";
    head.append(cell);
  }
  section.querySelector("thead").replaceChildren(head);
  section.querySelector("tbody").replaceChildren(...rows.map((cells) => {
    const row = document.createElement("tr");
    cells.forEach((cell, at) => {
      const made = element("td", "", titles[at][1]);
      made.append(cell);
      row.append(made);
    });
    return row;
  }));
}
const mean = (values) => values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
function grouped(clients) {
  const groups = new Map();
  for (const client of clients) {
    const name = client.id.split("-").slice(1).join("-") || client.id;
    groups.set(name, [...(groups.get(name) ?? []), client]);
  }
  return [...groups].sort().map(([name, members]) => {
    const length = Math.max(...members.map((one) => one.scores.length));
    const failing = members.filter((one) => one.problem).length;
    return { id: name + " (" + members.length + ")",
      scores: Array.from({ length }, (_, at) => mean(known(members.map((one) => one.scores[at] ?? null)))),
      last_round: Math.max(...members.map((one) => one.last_round ?? 0)) || null,
      uplink_bytes: members.reduce((sum, one) => sum + one.uplink_bytes, 0),
      downlink_bytes: members.reduce((sum, one) => sum + one.downlink_bytes, 0),
      problem: failing ? failing + " did not count: " + members.find((one) => one.problem).problem : "" };
  });
}
function show(view) {
  const state = byId("state"), hasFailed = ["failed", "killed", "stopped"].includes(view.state);
  document.title = (view.title || "Softbeam") + ": " + view.state;
  byId("title").textContent = view.title || "Softbeam";
  byId("run").textContent = view.run;
  const doing = view.state === "running" && view.phase ? ": " + view.phase : "";
  state.textContent = (view.state === "waiting" ? "There is no run yet" : "The run is " + view.state) + doing
    + (view.error ? ". " + view.error : "");
  state.className = hasFailed ? "bad" : view.state === "finished" ? "good" : "";
  byId("bar").value = view.state === "finished" ? 1 : view.total ? view.done / view.total : 0;
  const facts = [["round", view.round + " of " + view.rounds], ["work of this phase", view.done + " of " + view.total],
    ["left in this phase", duration(view.seconds_left)], ["teacher, " + view.metric, percent(last(view.teacher))],
    ["clients, mean " + view.metric, percent(mean(known(view.clients.map((one) => last(one.scores)))))],
    ["up, all clients", bytes(view.clients.reduce((sum, one) => sum + one.uplink_bytes, 0))],
    ["down, all clients", bytes(view.clients.reduce((sum, one) => sum + one.downlink_bytes, 0))]];
  byId("facts").replaceChildren(...facts.map(([name, value]) => {
    const made = document.createElement("div");
    made.append(element("dt", name), element("dd", value));
    return made;
  }));
  const rows = view.clients.length > MAX_ROWS ? grouped(view.clients) : view.clients;
  const top = Math.max(1, ...rows.flatMap((one) => known(one.scores)));
  fill("clients", [["client"], [view.metric, "n"], ["by round"], ["last answer", "n"], ["up", "n"], ["down", "n"],
    ["problem", "text"]], rows.map((one) => [one.id, percent(last(one.scores)), line(one.scores, top),
    one.last_round === null ? "\u2013" : "round " + one.last_round, bytes(one.uplink_bytes),
    bytes(one.downlink_bytes), element("span", one.problem, "bad")]));
  fill("nodes", [["machine"], ["senses"], ["status"], ["last message"], ["trouble", "text"]], view.nodes.map((one) =>
    [one.name, one.modality, one.status, one.last_message, element("span", one.trouble, "bad")]));
  return ["finished", "failed", "killed", "stopped"].includes(view.state);
}
async function ask() {
  let wait = ASK_MS;
  try {
    const answer = await fetch("run.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(await answer.text());
    if (show(await answer.json())) wait = 10 * ASK_MS;  // a run that has ended may be resumed
  } catch (error) {
    byId("state").textContent = "No answer from softbeam watch: " + error.message;
    byId("state").className = "bad";
    wait = 5 * ASK_MS;
  }
  setTimeout(ask, wait);
}
ask();
</script></body></html>
""")


def page(nonce: str) -> str:
    """The document; its style and its script carry the nonce, without which the policy of the answer lets none run."""
    return PAGE.substitute(nonce=nonce, max_rows=MAX_ROWS, ask_ms=ASK_MS)
