"use strict";
for (const table of document.querySelectorAll("table")) {
  const body = table.tBodies[0];
  if (!body || body.rows.length < 2) continue;
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order === 1 ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.key;
      const compare = (a, b) => {
        const x = value(a), y = value(b);
        if (x !== undefined && y !== undefined) return order * (Number(x) - Number(y));
        if (x !== undefined || y !== undefined) return x !== undefined ? -1 : 1;
        return order * a.cells[column].textContent.localeCompare(b.cells[column].textContent);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
