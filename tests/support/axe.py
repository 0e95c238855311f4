"""axe-core on a page as it is, in each theme; edges of controls, and their sizes."""

from __future__ import annotations

import functools
from typing import Any

from playwright.sync_api import Page

from tests.support.npm import MODULES, needs_npm

THEMES: list[dict[str, Any]] = [
    {"color_scheme": "dark"},
    {"color_scheme": "light", "forced_colors": "active"},
]
VIOLATIONS = """async (rules) => {
  const options = rules
    ? { runOnly: { type: "rule", values: rules } }
    : { rules: { "target-size": { enabled: true } } };
  const { violations } = await axe.run({ ...options, resultTypes: ["violations"] });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, any, all }) => `${id}: ${html.slice(0, 150)} ${
      [...any, ...all].map(({ message }) => message).join("; ").slice(0, 250)}`));
}"""
# Controls that nothing sets off from what is behind them: 3:1 by their edge or their
# own background. What has neither is a word to press, or drawn by the browser.
EDGES = """() => {
  const canvas = document.createElement("canvas");
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    pen.clearRect(0, 0, 1, 1);
    pen.fillStyle = colour;
    pen.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data;
    const [x, y, z] = [r, g, b].map((c) =>
      c > 10 ? ((c / 255 + 0.055) / 1.055) ** 2.4 : c / 255 / 12.92);
    return a < 128 ? undefined : 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const controls = "button, select, input:not([type=checkbox], [type=radio])";
  return [...document.querySelectorAll(controls)].flatMap((node) => {
    const off = node.disabled || node.ariaDisabled === "true" || node.readOnly;
    if (off || !node.checkVisibility()) return [];
    const style = getComputedStyle(node);
    let around = node.parentElement;
    const back = () => light(getComputedStyle(around).backgroundColor);
    while (back() === undefined && around.parentElement) around = around.parentElement;
    const behind = back() ?? 1;
    const edge = parseFloat(style.borderTopWidth) ? style.borderTopColor : "#0000";
    const own = [edge, style.backgroundColor]
      .map(light).filter((one) => one !== undefined);
    const best = Math.max(...own.map((one) =>
      (Math.max(one, behind) + 0.05) / (Math.min(one, behind) + 0.05)));
    const fault = `edge: ${node.outerHTML.slice(0, 100)} ${best}`;
    return !own.length || best >= 3 ? [] : fault;
  });
}"""
# What can be touched and is smaller than a finger; links within a text may be.
SMALL = """() => {
  const touched = "a, button, input, textarea, select, summary";
  return [...document.querySelectorAll(touched)].flatMap((node) => {
    const target = node.closest("label") ?? node;
    const { bottom, width, height } = target.getBoundingClientRect();
    const fits = Math.min(width, height) > 43.9 || bottom < 0;
    const shown = node.checkVisibility({ visibilityProperty: true });
    if (fits || !shown || getComputedStyle(node).display === "inline") return [];
    return `small: ${node.outerHTML.slice(0, 100)} ${width} x ${height}`;
  });
}"""


@functools.cache
def axe() -> str:
    needs_npm()
    return (MODULES / "axe-core" / "axe.min.js").read_text()


def look(page: Page, *, themes: bool = True) -> list[str]:
    """Have axe look at a page as it is now, and at its colours in other themes."""
    # Colours on their way to others are none of a theme's.
    page.emulate_media(reduced_motion="reduce")
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe())
    found = [*page.evaluate(VIOLATIONS, None), *page.evaluate(EDGES)]
    for theme in THEMES if themes else []:
        page.emulate_media(**theme)
        found += page.evaluate(VIOLATIONS, ["color-contrast"])
        found += page.evaluate(EDGES)
    page.emulate_media(color_scheme="light", forced_colors="none")
    if (count := page.locator("h1").count()) != 1:
        found.append(f"{count} h1")
    return [f"{page.url}: {fault}" for fault in found]
