/** Load all pictures before anything is shown, so that nobody waits or sees half a batch. */

const AT_ONCE = 6;
const ATTEMPTS = 4;

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
      if (await load(url)) onLoaded(++done);
      else failed.push(url);
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return failed;
}

/** One picture, tried again after growing pauses. */
async function load(url) {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    if (attempt) await new Promise((go) => setTimeout(go, 400 * 3 ** (attempt - 1)));
    try {
      // an answer in the cache is enough: the pages' own images take it from there
      const answer = await fetch(url);
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
