// Search and order of the index. The page is complete without this script.
"use strict";
(() => {
  const { classes, nouns } = window.TORCHXNN_ATLAS;
  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const list = document.getElementById("classes");
  const cards = [...list.children];
  const [search, sort, flagged] = ["search", "sort", "flagged"].map((id) => document.getElementById(id));
  const count = document.getElementById("count");
  const found = document.getElementById("found");
  const foundList = document.getElementById("found-list");
  const MOST = 40;
  const texts = classes.map((each) => fold(`${each.title} ${each.name} ${each.features.join(" ")}`));
  // only names that people gave say more than their number
  const features = classes.flatMap((each) =>
    each.features.map((name, at) => ({ each, name, at, text: fold(name) })))
    .filter(({ name }) => !/^x-feature \d+$/.test(name));
  const last = (value) => (value === null ? -Infinity : value);
  const orders = {
    order: (a, b) => a - b,
    name: (a, b) => classes[a].title.localeCompare(classes[b].title) || a - b,
    r2: (a, b) => last(classes[b].r2) - last(classes[a].r2) || a - b,
    "r2-low": (a, b) => last(classes[a].r2) - last(classes[b].r2) || a - b,
    active: (a, b) => classes[b].active - classes[a].active || a - b,
    recall: (a, b) => last(classes[b].recall) - last(classes[a].recall) || a - b,
  };

  function show() {
    const words = fold(search.value).split(/\s+/).filter(Boolean);
    let shown = 0;
    cards.forEach((card, at) => {
      const fits = words.every((word) => texts[at].includes(word))
        && (!flagged.checked || classes[at].degenerate);
      card.hidden = !fits;
      shown += fits;
    });
    count.textContent = `${shown} of ${cards.length} ${nouns}`;
    const hits = words.length
      ? features.filter(({ text }) => words.every((word) => text.includes(word))) : [];
    found.hidden = !hits.length;
    foundList.replaceChildren(...hits.slice(0, MOST).map(({ each, name, at }) => {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = `classes/${each.name}/x-feature-${at + 1}.html`;
      link.textContent = `${name} of ${each.title}`;
      item.append(link);
      return item;
    }));
  }

  function order() {
    const compare = orders[sort.value] || orders.order;
    const sorted = [...cards.keys()].sort(compare);
    list.replaceChildren(...sorted.map((at) => cards[at]));
  }

  search.addEventListener("input", show);
  flagged.addEventListener("change", show);
  sort.addEventListener("change", order);
  document.querySelector(".tools").hidden = false;
  order(); // a browser that goes back brings the fields back as they were
  show();
})();
