"use strict";
// Moving over a track, or the slider, puts the cursor of one episode on a step and shows what is there.
for (const section of document.querySelectorAll(".episode")) {
  const source = section.querySelector('script[type="application/json"]');
  if (!source) continue;
  const { total, rate, steps, values, frames } = JSON.parse(source.textContent);
  const find = (selector) => [...section.querySelectorAll(selector)];
  const [slider] = find("input"), [track] = find(".slider"), [cursor] = find(".cursor"), [tracks] = find(".tracks");
  const strips = find(".strip"), current = find(".current"), shown = find(".frame"), outputs = find(".value");
  const said = find(".said"), timelines = find(".timeline").map((line) => [...line.children]);
  const nearest = (sorted, step) =>
    sorted.reduce((best, value, index) => (Math.abs(value - step) < Math.abs(sorted[best] - step) ? index : best), 0);

  const show = (place) => {
    const step = steps[place];
    slider.value = place;
    cursor.style.left = `${track.offsetLeft + (track.offsetWidth * (step + 0.5)) / total}px`;
    find(".step")[0].textContent = step;
    find(".seconds")[0].textContent = (step / rate).toFixed(2);
    outputs.forEach((output, row) => (output.textContent = values[row][place]));
    strips.forEach((strip, camera) => {
      const thumb = nearest(frames[camera], step);
      const image = strip.children[thumb].querySelector("img");
      current[camera].src = image ? image.src : "data:,";
      shown[camera].textContent = frames[camera][thumb];
    });
    timelines.forEach((line, row) => {
      for (const segment of line) {
        const active = step >= segment.dataset.start && step < segment.dataset.end;
        segment.classList.toggle("active", active);
        if (active) said[row].textContent = segment.classList.contains("none") ? "" : segment.title;
      }
    });
  };

  tracks.addEventListener("pointermove", (event) => {
    const box = track.getBoundingClientRect();
    const fraction = (event.clientX - box.left) / box.width;
    if (event.target !== slider && fraction >= 0 && fraction < 1) show(nearest(steps, Math.floor(fraction * total)));
  });
  for (const button of find(".changes button"))
    button.addEventListener("click", () => show(nearest(steps, Number(button.dataset.step))));
  slider.addEventListener("input", () => show(Number(slider.value)));
  addEventListener("resize", () => show(Number(slider.value)));
  show(0);
}
