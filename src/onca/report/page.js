// Draws every chart at the page's width, in the light or dark theme, and again when the theme changes.
"use strict";
(() => {
  const themes = "THEMES";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const draw = () => {
    for (const place of document.querySelectorAll(".chart")) {
      const specification = JSON.parse(place.nextElementSibling.textContent);
      const options = {
        mode: "vega-lite",
        actions: false,
        renderer: "svg",
        config: dark.matches ? themes.dark : themes.light,
        tooltip: { theme: dark.matches ? "dark" : "light" },
      };
      vegaEmbed(place, { ...specification, width: "container" }, options).catch((error) => {
        place.textContent = "This chart could not be drawn: " + error.message;
      });
    }
  };
  dark.addEventListener("change", draw);
  draw();
})();
