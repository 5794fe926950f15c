"""The template of a report: the page, its words, its tables, and its figures in the colours of the page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from string import Template

from clients.learning.task import BEAM_WORDING, Wording
from sim.report.style import GAIN, GRID, INK, LOSS, MUTED, PALETTE

# In the page these colours follow its light or dark scheme; the other colours are readable on both.
_PAGE_COLOURS = {
    PALETTE["camera"]: "var(--camera)",
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    GAIN: "var(--good)",
    LOSS: "var(--bad)",
}

PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title><style>
:root { color-scheme: light dark; --ink: #1b1f24; --muted: #5d6570; --line: #d4d7dc; --page: #ffffff; --panel: #f5f6f8;
  --shade: #0004; --good: #00704f; --bad: #b3261e; --camera: #0072b2; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --muted: #a3abb6; --line: #3a414b;
  --page: #14171b; --panel: #1e2329; --shade: #000c; --good: #4fd1a5; --bad: #ff8a80; --camera: #3d9bdc; } }
body { margin: 2rem auto; padding: 0 1.2rem; max-width: 62rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { line-height: 1.2; margin-bottom: .3rem; } h2 { margin-top: 2.4rem; border-bottom: 1px solid var(--line); }
.lead { color: var(--muted); } .verdict { background: var(--panel); border-left: 4px solid var(--muted);
  padding: .8rem 1.1rem; } .verdict p { margin: .3rem 0; } .verdict.helped { border-color: var(--good); }
.wide, pre { overflow-x: auto; background: linear-gradient(90deg, var(--page) 30%, transparent) 0 0,
  linear-gradient(270deg, var(--page) 30%, transparent) 100% 0, linear-gradient(90deg, var(--shade), transparent) 0 0,
  linear-gradient(270deg, var(--shade), transparent) 100% 0, var(--page); background-repeat: no-repeat;
  background-size: 2rem 100%, 2rem 100%, .7rem 100%, .7rem 100%; background-attachment: local, local, scroll, scroll; }
table { border-collapse: collapse; width: 100%; font-size: .8rem; margin: .8rem 0;
  font-variant-numeric: tabular-nums; } th, td { padding: .22rem .3rem; text-align: left; white-space: nowrap; }
th { white-space: normal; border-bottom: 2px solid var(--line); vertical-align: bottom; }
td.n, th.n { text-align: right; }
td.text { white-space: normal; } tr.first td { border-top: 1px solid var(--line); }
.better { color: var(--good); font-weight: 700; } .worse { color: var(--bad); font-weight: 700; }
.tie { color: var(--muted); } .unit { color: var(--muted); font-weight: 400; }
figure { margin: 1.4rem 0; break-inside: avoid; } figure svg { width: 100%; height: auto; }
figure > .wide > svg { min-width: 36rem; }
.frame { background-repeat: no-repeat; width: 100%; min-width: 4rem; border: 1px solid var(--line); }
.sheet td { padding: .15rem; } .sheet th[scope=row] { border: 0; }
.strips { display: grid; gap: .25rem; margin: .6rem 0; } .strip { display: flex; gap: .5rem; align-items: center; }
.strip span:first-child { flex: 0 0 7rem; font-size: .8rem; } .strip.axis { justify-content: space-between; }
.strip.axis span { font-size: .75rem; color: var(--muted); } .strip.axis span:nth-child(2) { margin-right: auto; }
.strip img { flex: 1; min-width: 0; height: 4.5rem; image-rendering: pixelated; border: 1px solid var(--line); }
.viewer { background: var(--panel); padding: .8rem; margin: 1rem 0; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; }
.controls input { flex: 1 1 10rem; min-width: 6rem; } .controls output { min-width: 12rem; font-size: .85rem; }
.stage { display: flex; flex-wrap: wrap; gap: .6rem; margin: .6rem 0; }
.stage figure { flex: 1 1 9rem; max-width: 18rem; margin: 0; } .stage svg { max-height: 11rem; }
.track { fill: none; stroke: var(--muted); stroke-width: .3; } .mast { fill: var(--ink); }
.vehicle { fill: var(--bad); } .best { fill: none; stroke: var(--bad); stroke-width: .25; }
.row { display: flex; flex-wrap: wrap; gap: .1rem .5rem; align-items: center; font-size: .8rem; margin: .15rem 0; }
.row span { flex: 0 0 7rem; } .row svg { flex: 1 1 12rem; min-width: 0; width: auto; border: 1px solid var(--line); }
.row output { flex: 0 0 11rem; font-variant-numeric: tabular-nums; }
figcaption, .note { color: var(--muted); font-size: .88rem; } dt { font-weight: 600; } dd { margin: 0 0 .45rem 1rem; }
pre, code { font: .84rem/1.45 ui-monospace, "DejaVu Sans Mono", monospace; } summary { cursor: pointer; }
pre { --page: var(--panel); padding: .8rem; }
@media (max-width: 40rem) { .row svg { flex-basis: 100%; } .strip span:first-child { flex-basis: 5rem; } }
@media print { body { margin: 0; max-width: none; font-size: 10.5pt; } tr, pre { break-inside: avoid; }
  table { font-size: 7.2pt; } th, td { padding: .1rem .2rem; }
  .wide, pre { overflow: visible; } pre { white-space: pre-wrap; } }
</style></head><body><main>
$body
</main></body></html>
""")

_TRACKING = """<dt>Beam tracking</dt><dd>A base station chooses one of many narrow radio beams for a passing vehicle,
now and for the next time slots. Here it is predicted from sensors instead of searched for by radio.</dd>"""
_METRICS = """<dt>Top-1, Top-3, Top-5</dt><dd>Share of samples whose best beam is among the first 1, 3 or 5 guesses.
Where neighbouring beams are nearly equal in power, Top-1 alone says little.</dd>
<dt>DBA, DBA (K=3)</dt><dd>Distance-based accuracy: a guess a few beams off earns part of the credit. DBA is the score
of the DeepSense 6G challenge; the K=3 form, which some papers report under that name, is always at least as large.</dd>
<dt>Power loss</dt><dd>Received power lost by using the first guess instead of the best beam, in dB; 0 is perfect, 3 dB
is half the power.</dd>"""
# What travels, by the kind of exchange (`configs.recipes.Traits`).
_EXCHANGES = {
    "public": "Clients and server exchange predictions for a shared set of samples (soft labels on the public set), "
    "never sensor data and never weights, and learn from what the others predict.",
    "secure_sum": "Clients and server exchange predictions for a shared set of samples (soft labels on the public "
    "set), never sensor data and never weights; the server sees only their sum.",
    "classes": "Each client sends its mean prediction for every $noun that it has seen, and learns from those of "
    "others.",
    "prototypes": "Clients and server exchange the mean feature of every $noun.",
    "weights": "Clients send the weights of their students, and the server averages them within each modality.",
    "nothing": "This strategy is a baseline in which nothing is exchanged: every client learns alone.",
    "pooled": "This strategy is a baseline in which the clients of a modality pool their recordings.",
}
_ARMS = {
    "local": "on its own data alone",
    "offline_kd": "with the predictions of the teacher as it was before the federation",
    "federated": "in the federation",
}


def words(
    arm_titles: Mapping[str, str], *, exchange: str, teacher_is_larger: bool, wording: Wording = BEAM_WORDING
) -> str:
    """The words of a page, explained as far as they are true of its runs.

    Args:
        arm_titles: arm -> its title, of those that the page shows.
        exchange: what travels, as `configs.recipes.Traits` names it; empty if that is not known.
        teacher_is_larger: whether the teacher has more parameters than every student.
        wording: what the task and its scores are called.
    """
    larger = "a larger network" if teacher_is_larger else "a network"
    client = "is a sensor at a roadside mast that trains" if wording.is_of_beams else "trains"
    own = "passes" if wording.is_of_beams else "labelled data"
    pairs = [
        (
            "Client, teacher",
            f"A client {client} a small network (the student) on its own {own}. The teacher is {larger} on the server.",
        )
    ]
    if exchange in _EXCHANGES:
        pairs.append(("What is exchanged", _EXCHANGES[exchange].replace("$noun", escape(wording.noun))))
    if len(arm_titles) > 1:
        how = "; ".join(_ARMS[arm] for arm in arm_titles)
        title = ", ".join(arm_titles.values())
        title = title[0].upper() + title[1:]
        pairs.append((title, f"The same student, trained for the same number of steps: {how}."))
    told = "\n".join(f"<dt>{title}</dt><dd>{text}</dd>" for title, text in pairs)
    begin, end = _TRACKING, _METRICS
    if not wording.is_of_beams:
        titles = escape(", ".join(metric.title for metric in wording.metrics.values()))
        begin = f"<dt>{escape(wording.title.capitalize())}</dt><dd>The task: which {escape(wording.noun)} it is.</dd>"
        end = f"<dt>{titles}</dt><dd>The scores that the task itself computes from probabilities and labels.</dd>"
    return f"<details open><summary>The words of this page</summary><dl>\n{begin}\n{told}\n{end}</dl></details>"


def table(header: Sequence[tuple[str, str]], lines: Iterable[tuple[bool, Sequence[str]]], *, numeric: set[int]) -> str:
    """A table of columns (title, unit) and lines (begins a group, HTML cells); numeric columns are set to the right."""
    kinds = [' class="n"' if i in numeric else "" for i in range(len(header))]
    if len(header) - 1 not in numeric:
        kinds[-1] = ' class="text"'
    titles = "".join(
        f'<th{kind}>{title}<br><span class="unit">{unit}</span></th>'
        for kind, (title, unit) in zip(kinds, header, strict=True)
    )
    body = "".join(
        f"<tr{' class=first' if is_first else ''}>"
        + "".join(f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, cells, strict=True))
        + "</tr>\n"
        for is_first, cells in lines
    )
    return (
        '<div class="wide" tabindex="0" role="group" aria-label="Table">'
        f"<table><thead><tr>{titles}</tr></thead><tbody>\n{body}</tbody></table></div>"
    )


def page_svg(svg: str, stem: str, alt: str) -> str:
    """The SVG of Matplotlib, made fit for a page: in its colours, with unique ids and a text for screen readers."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Two figures use the same ids, so the name of the figure is put before them.
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{stem}-", svg)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)
