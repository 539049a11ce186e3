const standalone = (svg) => {
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const [, , width, height] = svg.getAttribute("viewBox").split(" ");
  copy.setAttribute("width", `${width}pt`);
  copy.setAttribute("height", `${height}pt`);
  const text = new XMLSerializer().serializeToString(copy);
  // on the page colours are variables named after themselves, as on white
  return text.replace(/var\(--c([0-9a-f]{6})\)/g, "#$1").replace(/var\(--font\)/g, "sans-serif");
};
const save = (name, address) => {
  const link = document.createElement("a");
  link.download = name;
  link.href = address;
  link.click();
};
const savers = {
  SVG: (name, source) => save(`${name}.svg`, source),
  PNG: (name, source) => {
    const image = new Image();
    image.addEventListener("load", () => {
      const canvas = document.createElement("canvas");
      canvas.width = 2 * image.width;
      canvas.height = 2 * image.height;
      const pen = canvas.getContext("2d");
      pen.fillStyle = "#fff";
      pen.fillRect(0, 0, canvas.width, canvas.height);
      pen.drawImage(image, 0, 0, canvas.width, canvas.height);
      save(`${name}.png`, canvas.toDataURL());
    });
    image.src = source;
  },
};
for (const figure of document.querySelectorAll("figure")) {
  const name = figure.id.replace("figure-", "");
  for (const [kind, saver] of Object.entries(savers)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "get";
    button.textContent = kind;
    button.setAttribute("aria-label", `${kind} of ${name}`);
    button.addEventListener("click", () => {
      const text = standalone(figure.querySelector("svg"));
      saver(name, `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`);
    });
    figure.querySelector("figcaption").append(" ", button);
  }
}
