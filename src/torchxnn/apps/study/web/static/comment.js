/** Counts the characters that are pasted into the comment; the texts themselves are not looked at. */

const pasted = document.getElementById("pasted");
document.getElementById("comments").addEventListener("paste", (event) => {
  const text = event.clipboardData?.getData("text") ?? "";
  pasted.value = String(Math.min(100000, Number(pasted.value) + text.length));
});
