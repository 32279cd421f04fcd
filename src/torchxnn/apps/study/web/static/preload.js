/** Load all pictures before anything is shown, so that nobody waits or sees half a batch. */

const AT_ONCE = 6;
const ATTEMPTS = 4;
const LONGEST = 30000; // milliseconds for one picture

/**
 * @param {string[]} urls
 * @param {(done: number) => void} onLoaded
 * @returns {Promise<string[]>} those that could not be loaded
 */
export async function preload(urls, onLoaded) {
  const waiting = [...urls];
  const failed = [];
  let done = 0;
  async function work() {
    for (let url = waiting.shift(); url !== undefined; url = waiting.shift()) {
      // once a picture is given up, it is time to say so, not to be patient with each of the others
      if (await load(url, failed.length ? 1 : ATTEMPTS)) onLoaded(++done);
      else failed.push(url);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return failed;
}

/** One picture, tried again after growing pauses. */
async function load(url, attempts) {
  for (let attempt = 0; attempt < attempts; attempt++) {
    if (attempt) await new Promise((go) => setTimeout(go, 400 * 3 ** (attempt - 1)));
    try {
      // an answer in the cache is enough: the pages' own images take it from there
      const answer = await fetch(url, { signal: AbortSignal.timeout(LONGEST) });
      if (answer.ok) {
        const bitmap = await createImageBitmap(await answer.blob());
        bitmap.close();
        return true;
      }
    } catch {
      // tried again
    }
  }
  return false;
}
