const numbers = document.getElementById("numbers");
const explore = (data, places) => {
  const own = places.map((place) => place.innerHTML);
  const told = places.map((place) => place.getAttribute("aria-label"));
  const captions = places.map((place) => place.parentElement.querySelector("figcaption bdi"));
  const captioned = captions.map((caption) => caption.textContent);
  const ink = "var(--c1a1d23)", muted = "var(--c5b626e)", line = "var(--cd9dce2)";
  const tint = (color) => `var(--c${color.slice(1)})`;
  const fixed = (x) => (x < 0 ? "−" : "") + Math.abs(x).toFixed(3);
  const signed = (x) => (x > 0 ? "+" : "") + fixed(x);
  const lambda = (at) => data.grid[at].toPrecision(2).replace(/e([+-])(\d+)/, (_, sign, power) => `·10${sign === "-" ? "⁻" : ""}${[...power].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d]).join("")}`);
  const form = document.createElement("form");
  form.className = "explore";
  const choose = (name, options) => {
    const label = document.createElement("label");
    const select = document.createElement("select");
    options.forEach((text, value) => select.add(new Option(text, value)));
    label.append(`${name} `, select);
    form.append(label);
    return select;
  };
  const count = data.protocols.length;
  const damping = choose("Damping", [...data.protocols.map((p) => p.label), "one λ for all rungs"]);
  const slider = Object.assign(document.createElement("input"), { type: "range", min: 0, max: data.grid.length - 1, value: data.grid.length >> 1 });
  slider.setAttribute("aria-label", "λ for all rungs");
  form.append(slider);
  const order = choose("Order", data.orders.map((o) => o.steps.map((s) => data.steps[s][0]).join(" → ")));
  const query = choose("Query", ["all, in the mean", ...data.queries]);
  const says = document.createElement("output");
  form.append(says);
  const one = (rung, at) => {
    const value = data.lds[rung][at][query.value - 1];
    return [null, value === null ? null : value / 1000, null];
  };
  const level = (rung) => {
    const at = +slider.value;
    if (+damping.value === count) return +query.value ? one(rung, at) : data.at[rung][at];
    return +query.value ? one(rung, data.best[rung]) : data.protocols[damping.value].levels[rung];
  };
  const svg = (height, body) => `<svg viewBox="0 0 346 ${height}" aria-hidden="true" focusable="false" style="font: 9px var(--font)" fill="${ink}">${body}</svg>`;
  const text = (x, y, words, anchor = "start", color = ink) => `<text x="${x}" y="${y}" text-anchor="${anchor}" fill="${color}" dominant-baseline="middle">${words}</text>`;
  const rule = (x1, y1, x2, y2, color, width = 1) => `<path d="M${x1} ${y1}L${x2} ${y2}" stroke="${color}" stroke-width="${width}"/>`;
  const waterfall = (nodes, steps) => {
    const rows = nodes.map((rung) => [rung, level(rung)]);
    const ends = rows.flatMap(([, v]) => v).filter((v) => v !== null);
    const low = Math.min(...ends), span = Math.max(...ends) - low || 1;
    const x = (v) => 84 + (170 * (v - low)) / span;
    return svg(30 + 30 * rows.length, rows.map(([rung, [lower, value, upper]], i) => {
      const y = 20 + 30 * i, before = i ? rows[i - 1][1][1] : null;
      const color = i ? tint(data.steps[steps[i - 1]][1]) : ink;
      const name = text(78, i ? y - 5 : y, data.rungs[rung], "end") + (i ? text(78, y + 6, data.steps[steps[i - 1]][0], "end", muted) : "");
      if (value === null) return name + text(84, y, "not known", "start", muted);
      const bar = before === null ? "" : `<rect x="${Math.min(x(before), x(value))}" y="${y - 9}" width="${Math.abs(x(value) - x(before))}" height="18" fill="${color}" opacity="0.35"/>` + rule(x(before), y - 30, x(before), y + 9, muted, 0.8);
      const whisker = lower === null ? "" : rule(x(lower), y, x(upper), y, color, 1.4);
      const change = before === null ? "" : ` (${signed(value - before)})`;
      const right = Math.max(x(value), upper === null ? 0 : x(upper), before === null ? 0 : x(before));
      return name + bar + whisker + `<circle cx="${x(value)}" cy="${y}" r="3.4" fill="${color}"/>` + text(right + 5, y, fixed(value) + change);
    }).join(""));
  };
  const drops = (nodes) => data.grid.map((_, at) => nodes.slice(1).map((rung, i) => {
    const [a, b] = [nodes[i], rung].map((r) => (+query.value ? one(r, at) : data.at[r][at])[1]);
    return a === null || b === null ? null : a - b;
  }));
  const strip = (nodes, steps) => {
    const rows = drops(nodes), known = rows.flat().filter((v) => v !== null);
    const high = Math.max(0, ...known), low = Math.min(0, ...known), span = high - low || 1;
    const width = 250 / rows.length, x = (i) => 40 + width * (i + 0.5), y = (v) => 12 + (170 * (high - v)) / span;
    const lines = steps.map((step, s) => {
      const points = rows.map((row, i) => (row[s] === null ? null : `${x(i)},${y(row[s])}`)).filter(Boolean);
      return `<polyline points="${points.join(" ")}" fill="none" stroke="${tint(data.steps[step][1])}" stroke-width="1.6"/>`;
    });
    const cells = rows.map((row, i) => {
      const top = Math.max(...row.map((v) => (v === null ? -Infinity : v)));
      const color = top > 0 ? tint(data.steps[steps[row.indexOf(top)]][1]) : line;
      return `<rect x="${x(i) - width / 2}" y="190" width="${width}" height="16" fill="${color}" opacity="0.75" shape-rendering="crispEdges"/>`;
    });
    const ticks = [high, 0, low].map((v) => rule(40, y(v), 290, y(v), v ? line : muted) + text(36, y(v), fixed(v), "end", muted));
    const places = [0, rows.length >> 1, rows.length - 1].map((i) => text(x(i), 216, lambda(i), "middle", muted));
    const mark = +damping.value === count ? rule(x(+slider.value), 12, x(+slider.value), 206, muted) : "";
    const key = steps.map((step, i) => text(40 + 68 * i, 244, data.steps[step][0], "start", tint(data.steps[step][1])));
    return svg(252, [...ticks, ...lines, ...cells, ...places, mark, text(165, 230, "one λ for all rungs", "middle"), ...key].join(""));
  };
  const draw = () => {
    const alone = +query.value > 0;
    [...damping.options].forEach((o, i) => { o.disabled = alone && i < count && data.protocols[i].key !== "tuned"; });
    if (damping.selectedOptions[0].disabled) damping.value = count;
    slider.hidden = +damping.value !== count;
    slider.setAttribute("aria-valuetext", `λ = ${lambda(slider.value)}`);
    const { steps, nodes } = data.orders[order.value];
    const asMade = [[damping, order, query], [order, query]].map((some) => some.every((s) => +s.value === 0));
    const values = nodes.map((rung) => level(rung)[1]);
    [() => waterfall(nodes, steps), () => strip(nodes, steps)].forEach((make, i) => {
      if (!places[i]) return;
      const kept = asMade[i] && (i === 0 || slider.hidden);
      places[i].innerHTML = kept ? own[i] : make();
      captions[i].textContent = kept ? captioned[i] : i ? "LDS lost in each step at one λ for all rungs, as chosen: estimates without intervals. The strip: the step with the largest loss." : "LDS along the order, damping and query chosen; lines are intervals where there are any. The CSV holds what stood here before.";
      places[i].setAttribute("aria-label", kept ? told[i] : i ? "Drop of each step at every λ, estimates" : nodes.map((rung, n) => `${data.rungs[rung]} ${values[n] === null ? "not known" : fixed(values[n])}`).join(", "));
    });
    const lost = steps.map((step, i) => [values[i] - values[i + 1], step, i]).filter(([v], i) => values[i] !== null && values[i + 1] !== null);
    const [size, step, at] = lost.reduce((a, b) => (b[0] > a[0] ? b : a), [0, "", -1]);
    const sure = !alone && +damping.value < count && data.protocols[damping.value].drops[order.value];
    const bounds = sure && at >= 0 && sure[at][0] !== null ? ` [${fixed(sure[at][0])}, ${fixed(sure[at][2])}]` : "";
    const where = slider.hidden ? "" : `λ = ${lambda(slider.value)}: `;
    says.textContent = where + (step ? `${data.steps[step][0]} costs most, ${fixed(size)}${bounds} of LDS` : "no step costs LDS") + (alone ? "; one query has no interval." : ".");
  };
  form.addEventListener("input", draw);
  form.addEventListener("submit", (event) => event.preventDefault());
  draw();
  return form;
};
if (numbers) {
  const places = ["waterfall", "at-damping"].map((name) => document.querySelector(`#answer [id^="figure-${name}"] .plot`));
  const columns = document.querySelector("#answer .half");
  if (columns && places[0]) columns.before(explore(JSON.parse(numbers.content.textContent), places.filter(Boolean)));
}
