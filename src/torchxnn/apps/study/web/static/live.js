/** The researcher's page keeps itself up to date; what is open, focused and scrolled stays. */

const EVERY = 5000; // milliseconds

const live = document.getElementById("live");
const state = document.getElementById("state");

async function refresh() {
  if (document.visibilityState === "hidden") return;
  try {
    const answer = await fetch(live.dataset.url, { signal: AbortSignal.timeout(EVERY) });
    if (answer.status === 401) {
      location.reload(); // the token is asked for again
      return;
    }
    if (!answer.ok) throw new Error(String(answer.status));
    live.innerHTML = await answer.text();
    state.hidden = true;
  } catch {
    state.hidden = false; // what is shown is of the time that it says
  }
}

setInterval(refresh, EVERY);
document.addEventListener("visibilitychange", refresh);
