// A hundred changes of the three choices on the page: event to DOM done, in milliseconds, ascending.
// The page must show all kept candidates, which is the most that a change redraws.

export const filterTimes = (page) => page.evaluate(async () => {
  const times = [];
  const controls = ["engine", "card", "order"].map((name) => document.querySelector(`select[name=${name}]`));
  for (let step = 0; step < 100; step++) {
    const control = controls[step % 3];
    control.value = control.options[(step * 7) % control.options.length].value;
    const began = performance.now();
    const done = new Promise((resolve) => {
      const watcher = new MutationObserver(() => { watcher.disconnect(); resolve(performance.now()); });
      watcher.observe(document.getElementById("app"), { subtree: true, childList: true, attributes: true, characterData: true });
    });
    control.dispatchEvent(new Event("change", { bubbles: true }));
    times.push((await Promise.race([done, new Promise((resolve) => setTimeout(() => resolve(performance.now()), 60))])) - began);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return times.sort((a, b) => a - b);
});
