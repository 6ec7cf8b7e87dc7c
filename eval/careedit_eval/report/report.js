"use strict";
/* The samples of one kind: each comparison has its own choice. */
for (const select of document.querySelectorAll("[data-filter]")) {
  select.addEventListener("change", () => {
    for (let node = select.closest("p").nextElementSibling; node && node.tagName !== "H2"; node = node.nextElementSibling) {
      if (!node.matches("[data-cards]")) continue;
      for (const card of node.children) card.hidden = select.value !== "" && card.dataset.kind !== select.value;
    }
  });
}
