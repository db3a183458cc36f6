
"use strict";
(() => {
  /** Close-ups too: a whole number of screen pixels for each of theirs, and no smaller than without this. */
  const sharpen = () => {
    const ratio = window.devicePixelRatio;
    document.querySelectorAll("[data-pixels]").forEach((image) => {
      const pixels = Number(image.dataset.pixels);
      image.style.width = `${(pixels * Math.ceil((Number(image.getAttribute("width")) * ratio) / pixels - 0.01)) / ratio}px`;
    });
  };

  document.querySelectorAll(".viewer").forEach((root) => new Viewer(root));
  sharpen();
  window.addEventListener("resize", sharpen);
})();
