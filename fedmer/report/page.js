"use strict";
(() => {
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const button = (content, pressed) => {
    const made = document.createElement("button");
    made.type = "button";
    made.append(...content);
    if (pressed !== undefined) made.setAttribute("aria-pressed", pressed);
    return made;
  };

  // A click on a head sorts by its column, the next the other way, the third puts rows back.
  const valueOf = cell => {
    if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
    const found = cell.textContent.trim().replace(/\u2212/g, "-").match(/^[+-]?\d+(\.\d+)?(?![\w.])/);
    return found ? Number(found[0]) : NaN;
  };
  const textOf = cell => cell.textContent.trim();
  const sort = (table, column, direction) => {
    for (const body of table.tBodies) {
      const rows = [...body.rows];
      rows.forEach((row, place) => { row.dataset.place ??= place; });
      const filled = rows.map(row => row.cells[column]).filter(textOf);
      const numbers = filled.every(cell => !Number.isNaN(valueOf(cell)));
      const order = (one, other) => {
        if (!direction) return one.dataset.place - other.dataset.place;
        const [a, b] = [one, other].map(row => row.cells[column]);
        if (!textOf(a) || !textOf(b)) return !textOf(a) - !textOf(b);
        return direction * (numbers ? valueOf(a) - valueOf(b) : textOf(a).localeCompare(textOf(b), "en", { numeric: true }));
      };
      body.append(...rows.sort(order));
    }
  };
  for (const table of all("table.sortable")) {
    const heads = [...[...table.tHead.rows].at(-1).cells];
    heads.forEach((head, column) => {
      const click = button(head.childNodes);
      head.append(click);
      click.title = "Sort by this column";
      click.addEventListener("click", () => {
        const cell = [...table.tBodies[0].rows].map(row => row.cells[column]).find(textOf);
        const first = cell && !Number.isNaN(valueOf(cell)) ? "descending" : "ascending";
        const second = first === "ascending" ? "descending" : "ascending";
        const next = { [first]: second, [second]: "" }[head.getAttribute("aria-sort")] ?? first;
        heads.forEach(other => other.removeAttribute("aria-sort"));
        if (next) head.setAttribute("aria-sort", next);
        sort(table, column, { ascending: 1, descending: -1 }[next] ?? 0);
      });
    });
  }

  // A click on a name in a legend switches its curves off in every figure, and on again.
  const names = {};
  for (const item of all(".legend li")) {
    const row = item.dataset.row;
    names[row] = textOf(item);
    const click = button(item.childNodes, "true");
    item.append(click);
    click.title = "Switch this row's curves off or on";
    click.addEventListener("click", () => {
      const on = click.getAttribute("aria-pressed") === "false";
      all(`.legend li[data-row="${row}"] button`).forEach(one => one.setAttribute("aria-pressed", on));
      all(`svg [data-row="${row}"]`).forEach(drawn => drawn.classList.toggle("off", !on));
    });
  }

  // Pointing at a figure, or the arrow keys in it, show the value that is nearest.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.setAttribute("role", "status");
  document.body.append(tip);
  const dot = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  dot.setAttribute("r", 4);
  dot.setAttribute("class", "here");
  const pointsOf = group => {
    const said = JSON.parse(group.dataset.values);
    const marks = all("use", group);
    const places = marks.length === said.length
      ? marks.map(mark => [Number(mark.getAttribute("x")), Number(mark.getAttribute("y"))])
      : (group.querySelector(":scope > path").getAttribute("d").match(/-?[\d.]+ -?[\d.]+/g) ?? [])
        .map(pair => pair.split(" ").map(Number));
    return said.map((text, i) => ({ text, group, x: places[i]?.[0], y: places[i]?.[1] }));
  };
  const hide = () => { tip.textContent = ""; dot.remove(); };
  const onScreen = (svg, point) => new DOMPoint(point.x, point.y).matrixTransform(svg.getScreenCTM());
  const show = (svg, point) => {
    const row = point.group.dataset.row;
    tip.textContent = (row === undefined ? "" : `${names[row] ?? ""}, `) + point.text;
    dot.setAttribute("cx", point.x);
    dot.setAttribute("cy", point.y);
    svg.append(dot);
    const { x, y } = onScreen(svg, point);
    tip.style.left = `${Math.max(8, Math.min(x + 12, innerWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${y > tip.offsetHeight + 20 ? y - tip.offsetHeight - 12 : y + 16}px`;
  };
  for (const svg of all("svg")) {
    const groups = all("[data-values]", svg);
    if (!groups.length) continue;
    let known, here;
    const visible = () => (known ??= groups.map(pointsOf)).filter(own => !own[0]?.group.classList.contains("off"));
    svg.tabIndex = 0;
    svg.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. The arrow keys go through its values.`);
    const point = event => {
      let nearest = 40;
      here = undefined;
      for (const one of visible().flat()) {
        const place = onScreen(svg, one);
        const far = Math.hypot(place.x - event.clientX, place.y - event.clientY);
        if (far < nearest) [nearest, here] = [far, one];
      }
      if (here) show(svg, here); else hide();
    };
    svg.addEventListener("pointermove", point);
    svg.addEventListener("pointerdown", point);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", event => {
      const rows = visible();
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (event.key === "Escape") hide();
      if (!step || !rows.length) return;
      event.preventDefault();
      let row = rows.findIndex(own => own.includes(here)), place = row < 0 ? -1 : rows[row].indexOf(here);
      row = (Math.max(row, 0) + step[0] + rows.length) % rows.length;
      place = Math.max(0, Math.min(place + step[1], rows[row].length - 1));
      here = rows[row][place];
      show(svg, here);
    });
  }
})();
