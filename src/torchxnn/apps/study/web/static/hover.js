/** A mouse that rests on a picture shows its heatmap. */

const HOVER = 120; // milliseconds until a pointer over a picture counts as looking at its heatmap

/**
 * @param {HTMLElement} area that holds the pictures
 * @param {() => string | null} current id of the picture whose heatmap is shown for the pointer
 * @param {(id: string | null) => void} show the heatmap of another picture, or of none
 * @param {(id: string) => boolean} covered whether a heatmap is shown anyway
 * @param {(id: string, on: boolean) => void} note that somebody looks at it, or no longer
 */
export function enableHover(area, current, show, covered, note) {
  let timer = null;
  let noted = false;
  const leave = () => {
    clearTimeout(timer);
    if (current() === null) return;
    if (noted) note(current(), false);
    noted = false;
    show(null);
  };
  area.addEventListener("pointerover", (event) => {
    const id = event.target.closest(".picture")?.closest(".card").dataset.id ?? null;
    if (event.pointerType !== "mouse" || id === current()) return;
    leave();
    if (id === null || covered(id)) return;
    show(id);
    timer = setTimeout(() => {
      noted = true;
      note(id, true);
    }, HOVER);
  });
  area.addEventListener("pointerleave", leave);
}
