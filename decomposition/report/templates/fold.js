const folds = [...document.querySelectorAll("details")];
const setAll = (some, open) => some.forEach((fold) => { fold.open = open; });
const contents = document.querySelector("nav");
if (contents && folds.length) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Open all";
  button.addEventListener("click", () => {
    const open = folds.some((fold) => !fold.open);
    setAll(folds, open);
    button.textContent = open ? "Close all" : "Open all";
  });
  contents.append(button);
}
const reveal = () => {
  const target = document.querySelector(":target");
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
  if (target) target.scrollIntoView();
};
addEventListener("hashchange", reveal);
addEventListener("load", reveal);
let closed = [];
addEventListener("beforeprint", () => { closed = folds.filter((f) => !f.open); setAll(closed, true); });
addEventListener("afterprint", () => setAll(closed, false));
